//! Credit (`cache.pool_credit`): a client that has passed all tests vouches for its neighbours, so that a pool of mail servers takes the
//! deep tests once. It holds in RAM only: records do not tell a test that was taken from one that was spared.

use std::net::IpAddr;

use super::{
    flags::TestSet,
    policy::{Policy, PoolCredit},
    record::{Client, Grounds, Stamp, Test},
    records::Records,
    session::{Session, Turn},
    shared::Screen,
};

/// Most networks with credit: some 20 MB.
const CAPACITY: usize = 100_000;

/// What a network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// Who vouches for it.
    pub earned_by: Client,
    /// Until when, in Unix seconds; that second counts.
    pub until: u64,
}

/// The networks that have credit.
#[derive(Debug)]
pub(super) struct Credits {
    networks: Records<Credit>,
}

impl Credits {
    pub(super) fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    pub(super) fn with_capacity(networks: usize) -> Self {
        Self { networks: Records::new(networks) }
    }

    pub(super) fn len(&self) -> usize {
        self.networks.len()
    }

    pub(super) fn valid(&self, network: Client, now: u64) -> Option<Credit> {
        self.networks.get(network).filter(|credit| now <= credit.until)
    }

    /// The network that is vouched for longest keeps who vouches for it.
    pub(super) fn add(&mut self, network: Client, credit: Credit) {
        if self.networks.refresh(network).is_none_or(|known| known.until < credit.until) {
            self.networks.insert(network, credit);
        }
    }

    fn withdraw(&mut self, network: Client) {
        self.networks.remove(network);
    }

    /// Drops what `keep` does not want.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(Client, &Credit) -> bool) {
        self.networks.retain(|network, credit| keep(network, credit));
    }
}

impl Screen {
    /// The credit of the network of `client`, with that network, if there is any at `now`, in Unix seconds.
    #[must_use]
    pub fn credit(&self, client: IpAddr, now: u64) -> Option<(Client, Credit)> {
        let network = self.policy().pool_credit.network(client)?;
        self.credits.valid(network, now).map(|credit| (network, credit))
    }

    /// A client has failed a test: its network loses its credit.
    pub(super) fn withdraw_credit(&mut self, client: IpAddr) {
        if let Some(network) = self.policy().pool_credit.network(client) {
            self.credits.withdraw(network);
        }
    }
}

impl PoolCredit {
    /// The network whose clients vouch for `client`; `None` where there is no such thing.
    #[must_use]
    pub fn network(self, client: IpAddr) -> Option<Client> {
        let client = client.to_canonical();
        let length = if client.is_ipv4() { self.ipv4 } else { self.ipv6 };
        length.map(|length| Client::within(client, length))
    }
}

impl Session {
    /// Spares the client the deep tests if its network has credit and nothing speaks against the client, ignored failures included.
    /// They count as passed as long as the credit lasts, but no longer than a pregreet pass: then the credit is looked at again, so
    /// that one that is gone is gone for all before long.
    pub(super) fn spare_deep(&mut self, turn: &mut Turn<'_>) {
        let left = self.flags.todo.and(TestSet::DEEP).without(self.flags.pass);
        if left.is_empty() || self.flags.any_fail() || !self.evidence.is_empty() {
            return;
        }
        let unix = turn.now.unix();
        let Some((_, credit)) = turn.screen.credit(self.endpoints.client.ip(), unix) else { return };
        if let Some(found) = &mut self.found {
            found.credit = true;
        }
        let until = Stamp::until(unix, self.policy.ttl(Test::Pregreet)).min(Stamp(credit.until));
        for test in Test::ALL.into_iter().filter(|&test| left.has(test)) {
            self.pass(test, until, Grounds::Neighbour, turn);
            self.flags.done.insert(test);
            self.flags.spared.insert(test);
        }
    }

    /// A client that has passed everything, every enabled deep test among it and in this session, vouches for its network: as long as
    /// the first of these passes lasts.
    pub(super) fn earn_credit(&self, turn: &mut Turn<'_>) {
        // The engine is where deep tests are taken: a score can spare them, and so can credit, which must not earn credit again.
        if self.engine.is_none() || !self.evidence.is_empty() || !self.policy.remember_results {
            return;
        }
        let deep = enabled_deep(&self.policy);
        let until = Test::ALL.into_iter().filter(|&test| deep.has(test));
        let until = until.map(|test| turn.screen.stamp(self.client, test).0).min();
        if let Some(until) = until.filter(|_| deep.without(self.flags.pass).is_empty())
            && let Some(network) = self.policy.pool_credit.network(self.endpoints.client.ip())
        {
            turn.screen.credits.add(network, Credit { earned_by: self.client, until });
        }
    }
}

fn enabled_deep(policy: &Policy) -> TestSet {
    policy.enabled().collect::<TestSet>().and(TestSet::DEEP)
}
