//! Run-time entries: what an operator denies or allows, and clients that failed a test whose action is `drop`.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::share::Version;

/// Most entries that [`RuntimeLists::default`] holds.
pub const CAPACITY: usize = 1_000_000;

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Lets clients through without any test.
    Allow,
    /// Turns clients away.
    Deny,
}

/// Who made an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// An operator; such an entry goes only when its time is over or an operator says so.
    Operator,
    /// The screener, after a failed test.
    Failure,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whom it is about.
    pub net: IpNet,
    /// What it does.
    pub kind: Kind,
    /// Unix time in seconds from which it counts no more; `None`: for ever.
    pub until: Option<u64>,
    /// Why, for people.
    pub reason: String,
    /// Who made it.
    pub origin: Origin,
    /// When it was made.
    #[serde(default)]
    pub version: Version,
    /// The host that made it; empty if nobody knows.
    #[serde(default)]
    pub host: String,
    /// Of a failure: what is remembered beyond its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offence: Option<Offence>,
}

/// How often a client has failed, which counts when it fails again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Offence {
    /// How often, one after the other.
    pub failures: u32,
    /// Unix time in seconds until which that is remembered.
    pub until: u64,
}

/// Where an entry stands. What failures say never replaces what an operator says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Roll {
    /// Who is let through.
    Allow,
    /// Whom an operator turns away.
    Deny,
    /// Who failed.
    Failure,
}

impl Roll {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Allow, Self::Deny, Self::Failure];
}

impl Entry {
    /// Where it stands.
    #[must_use]
    pub const fn roll(&self) -> Roll {
        match (self.kind, self.origin) {
            (Kind::Allow, _) => Roll::Allow,
            (Kind::Deny, Origin::Operator) => Roll::Deny,
            (Kind::Deny, Origin::Failure) => Roll::Failure,
        }
    }

    /// Unix time in seconds from which nothing of it is of use; `None`: never.
    #[must_use]
    pub fn ends(&self) -> Option<u64> {
        self.until.map(|until| until.max(self.offence.map_or(0, |offence| offence.until)))
    }

    /// Whether it is to replace `other`, which stands in the same place. Of two entries of one version every host must choose the same.
    fn replaces(&self, other: &Self) -> bool {
        let rank = |entry: &Self| (entry.until, entry.offence, entry.host.clone(), entry.reason.clone());
        match self.version.cmp(&other.version) {
            Ordering::Equal => rank(self) > rank(other),
            different => different.is_gt(),
        }
    }

    /// Whether it still counts.
    #[must_use]
    pub fn is_live(&self, now: u64) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// The run-time entries: at most one of each roll for a network, and a bounded number in all.
///
/// An allow entry wins over every deny entry; among those of one kind the longest prefix is the one that is reported.
#[derive(Debug, Clone)]
pub struct RuntimeLists {
    allows: Table,
    denies: Table,
    failed: Table,
    /// Entries that end, soonest first.
    ends: BTreeSet<(u64, Roll, IpNet)>,
    /// Entries made by failures, soonest end first: the first to go when there is no more room.
    failures: BTreeSet<(u64, IpNet)>,
    capacity: usize,
}

impl Default for RuntimeLists {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl RuntimeLists {
    /// Empty lists that hold at most `capacity` entries.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            allows: Table::default(),
            denies: Table::default(),
            failed: Table::default(),
            ends: BTreeSet::new(),
            failures: BTreeSet::new(),
            capacity,
        }
    }

    /// Adds an entry, or replaces an earlier one of its roll for the same network.
    pub fn insert(&mut self, entry: Entry) -> Inserted {
        let entry = Entry { net: canonical(entry.net), ..entry };
        let roll = entry.roll();
        if let Some(old) = self.get(roll, entry.net) {
            if !entry.replaces(old) {
                return Inserted { taken: false, evicted: Vec::new() };
            }
            self.remove(roll, entry.net);
        }
        let mut evicted = Vec::new();
        while self.len() >= self.capacity {
            // Only failures may go to make room: an allow entry that vanishes would cost mail.
            let Some((_, net)) = self.failures.first().copied() else {
                return Inserted { taken: false, evicted };
            };
            match self.remove(Roll::Failure, net) {
                Some(gone) => evicted.push(gone),
                None => break,
            }
        }
        if let Some(end) = entry.ends() {
            self.ends.insert((end, roll, entry.net));
        }
        if roll == Roll::Failure {
            self.failures.insert((entry.until.unwrap_or(u64::MAX), entry.net));
        }
        self.table_mut(roll).insert(entry);
        Inserted { taken: true, evicted }
    }

    /// Takes out the entry of this roll for exactly this network.
    pub fn remove(&mut self, roll: Roll, net: IpNet) -> Option<Entry> {
        let gone = self.table_mut(roll).remove(canonical(net))?;
        if let Some(end) = gone.ends() {
            self.ends.remove(&(end, roll, gone.net));
        }
        if roll == Roll::Failure {
            self.failures.remove(&(gone.until.unwrap_or(u64::MAX), gone.net));
        }
        Some(gone)
    }

    /// Takes out every entry for `net` or a part of it that was made at `version` or before.
    pub fn forget(&mut self, net: IpNet, version: Version) -> Vec<Entry> {
        let net = canonical(net);
        let mut gone = Vec::new();
        for roll in Roll::ALL {
            for inside in self.table(roll).within(net) {
                if self.get(roll, inside).is_some_and(|entry| entry.version <= version) {
                    gone.extend(self.remove(roll, inside));
                }
            }
        }
        gone
    }

    /// Takes out every entry of which nothing is of use at `now`, soonest first.
    pub fn expire(&mut self, now: u64) -> Vec<Entry> {
        let mut gone = Vec::new();
        while let Some((until, roll, net)) = self.ends.first().copied() {
            if until > now {
                break;
            }
            self.ends.pop_first();
            gone.extend(self.remove(roll, net));
        }
        gone
    }

    /// The Unix time when the next entry ends.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        self.ends.first().map(|(until, _, _)| *until)
    }

    /// The entry of this roll for exactly this network, whether its time is over or not.
    #[must_use]
    pub fn get(&self, roll: Roll, net: IpNet) -> Option<&Entry> {
        self.table(roll).entries.get(&canonical(net))
    }

    /// The live allow entry with the longest prefix that covers `address`.
    #[must_use]
    pub fn allowed(&self, address: IpAddr, now: u64) -> Option<&Entry> {
        self.allows.longest(address.to_canonical(), now)
    }

    /// The live deny entry with the longest prefix that covers `address`, an operator's before a failure's. An allow entry may overrule it.
    #[must_use]
    pub fn denied(&self, address: IpAddr, now: u64) -> Option<&Entry> {
        let address = address.to_canonical();
        let both = [self.failed.longest(address, now), self.denies.longest(address, now)];
        both.into_iter().flatten().max_by_key(|entry| entry.net.prefix_len())
    }

    /// All entries, allowing ones first, then those of operators, each in the order of networks.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        [&self.allows, &self.denies, &self.failed].into_iter().flat_map(|table| table.entries.values())
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        [&self.allows, &self.denies, &self.failed].into_iter().map(|table| table.entries.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    const fn table(&self, roll: Roll) -> &Table {
        match roll {
            Roll::Allow => &self.allows,
            Roll::Deny => &self.denies,
            Roll::Failure => &self.failed,
        }
    }

    const fn table_mut(&mut self, roll: Roll) -> &mut Table {
        match roll {
            Roll::Allow => &mut self.allows,
            Roll::Deny => &mut self.denies,
            Roll::Failure => &mut self.failed,
        }
    }
}

/// What became of an entry that was to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inserted {
    /// It is there now. If not, a later one is there already, or all the room is an operator's.
    pub taken: bool,
    /// What had to go to make room: failures, those that end soonest first.
    pub evicted: Vec<Entry>,
}

/// Host bits cleared, and IPv4 in its own family.
fn canonical(net: IpNet) -> IpNet {
    let net = net.trunc();
    match (net.addr().to_canonical(), net.prefix_len().checked_sub(96)) {
        (address @ IpAddr::V4(_), Some(length)) if net.addr().is_ipv6() => IpNet::new(address, length).unwrap_or(net),
        _ => net,
    }
}

/// Networks with their entries, searched by longest prefix.
#[derive(Debug, Clone, Default)]
struct Table {
    entries: BTreeMap<IpNet, Entry>,
    /// How many entries there are of each prefix length, by family: look-ups try no other.
    lengths_v4: BTreeMap<u8, usize>,
    lengths_v6: BTreeMap<u8, usize>,
}

impl Table {
    fn lengths_mut(&mut self, net: IpNet) -> &mut BTreeMap<u8, usize> {
        match net {
            IpNet::V4(_) => &mut self.lengths_v4,
            IpNet::V6(_) => &mut self.lengths_v6,
        }
    }

    fn insert(&mut self, entry: Entry) {
        let net = entry.net;
        if self.entries.insert(net, entry).is_none() {
            *self.lengths_mut(net).entry(net.prefix_len()).or_default() += 1;
        }
    }

    fn remove(&mut self, net: IpNet) -> Option<Entry> {
        let gone = self.entries.remove(&net)?;
        let lengths = self.lengths_mut(net);
        if let Some(count) = lengths.get_mut(&net.prefix_len()) {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&net.prefix_len());
            }
        }
        Some(gone)
    }

    fn longest(&self, address: IpAddr, now: u64) -> Option<&Entry> {
        let lengths = if address.is_ipv4() { &self.lengths_v4 } else { &self.lengths_v6 };
        lengths.keys().rev().find_map(|length| {
            let net = IpNet::new(address, *length).ok()?.trunc();
            self.entries.get(&net).filter(|entry| entry.is_live(now))
        })
    }

    /// The networks that are `net` or part of it.
    fn within(&self, net: IpNet) -> Vec<IpNet> {
        // Networks are ordered by address first, so those inside `net` stand together.
        self.entries
            .range(IpNet::new(net.network(), 0).unwrap_or(net)..)
            .map(|(inside, _)| *inside)
            .take_while(|inside| inside.addr() <= net.broadcast() && inside.addr().is_ipv4() == net.addr().is_ipv4())
            .filter(|inside| net.contains(inside))
            .collect()
    }
}

#[cfg(test)]
mod tests;
