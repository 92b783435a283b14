//! Run-time entries: what an operator denies or allows, and clients that failed a test whose action is `drop`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

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
}

impl Entry {
    /// Whether it still counts.
    #[must_use]
    pub fn is_live(&self, now: u64) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// The run-time entries: at most one of each kind for a network, and a bounded number in all.
///
/// An allow entry wins over every deny entry; among those of one kind the longest prefix is the one that is reported.
#[derive(Debug, Clone)]
pub struct RuntimeLists {
    allows: Table,
    denies: Table,
    /// Entries that end, soonest first.
    ends: BTreeSet<(u64, Kind, IpNet)>,
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
            ends: BTreeSet::new(),
            failures: BTreeSet::new(),
            capacity,
        }
    }

    /// Adds an entry, or replaces the one of its kind for the same network. A failure never replaces what an operator entered, nor an
    /// entry that lasts longer.
    ///
    /// Returns what had to go to make room: failures, those that end soonest first. If all the room is an operator's, the new
    /// entry itself comes back.
    pub fn insert(&mut self, entry: Entry) -> Vec<Entry> {
        let entry = Entry { net: canonical(entry.net), ..entry };
        if let Some(old) = self.get(entry.kind, entry.net) {
            let outlasts = |old: Option<u64>, new: Option<u64>| match (old, new) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(old), Some(new)) => old >= new,
            };
            if entry.origin == Origin::Failure && (old.origin == Origin::Operator || outlasts(old.until, entry.until)) {
                return Vec::new();
            }
            self.remove(entry.kind, entry.net);
        }
        let mut evicted = Vec::new();
        while self.len() >= self.capacity {
            let Some((_, net)) = self.failures.first().copied() else {
                evicted.push(entry);
                return evicted;
            };
            match self.remove(Kind::Deny, net) {
                Some(gone) => evicted.push(gone),
                None => break,
            }
        }
        if let Some(until) = entry.until {
            self.ends.insert((until, entry.kind, entry.net));
        }
        if is_failure(&entry) {
            self.failures.insert((entry.until.unwrap_or(u64::MAX), entry.net));
        }
        self.table_mut(entry.kind).insert(entry);
        evicted
    }

    /// Takes out the entry of this kind for exactly this network.
    pub fn remove(&mut self, kind: Kind, net: IpNet) -> Option<Entry> {
        let gone = self.table_mut(kind).remove(canonical(net))?;
        if let Some(until) = gone.until {
            self.ends.remove(&(until, kind, gone.net));
        }
        if is_failure(&gone) {
            self.failures.remove(&(gone.until.unwrap_or(u64::MAX), gone.net));
        }
        Some(gone)
    }

    /// Takes out every entry for `net` or a part of it.
    pub fn remove_within(&mut self, net: IpNet) -> Vec<Entry> {
        let net = canonical(net);
        let mut gone = Vec::new();
        for kind in [Kind::Allow, Kind::Deny] {
            for inside in self.table(kind).within(net) {
                gone.extend(self.remove(kind, inside));
            }
        }
        gone
    }

    /// Takes out every entry whose time is over at `now`, soonest first.
    pub fn expire(&mut self, now: u64) -> Vec<Entry> {
        let mut gone = Vec::new();
        while let Some((until, kind, net)) = self.ends.first().copied() {
            if until > now {
                break;
            }
            self.ends.pop_first();
            gone.extend(self.remove(kind, net));
        }
        gone
    }

    /// The Unix time when the next entry ends.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        self.ends.first().map(|(until, _, _)| *until)
    }

    /// The entry of this kind for exactly this network, whether its time is over or not.
    #[must_use]
    pub fn get(&self, kind: Kind, net: IpNet) -> Option<&Entry> {
        self.table(kind).entries.get(&canonical(net))
    }

    /// The live allow entry for exactly this network.
    #[must_use]
    pub fn allow_entry(&self, net: IpNet, now: u64) -> Option<&Entry> {
        self.get(Kind::Allow, net).filter(|entry| entry.is_live(now))
    }

    /// The live deny entry for exactly this network.
    #[must_use]
    pub fn deny_entry(&self, net: IpNet, now: u64) -> Option<&Entry> {
        self.get(Kind::Deny, net).filter(|entry| entry.is_live(now))
    }

    /// The live allow entry with the longest prefix that covers `address`.
    #[must_use]
    pub fn allowed(&self, address: IpAddr, now: u64) -> Option<&Entry> {
        self.allows.longest(address.to_canonical(), now)
    }

    /// The live deny entry with the longest prefix that covers `address`. An allow entry may overrule it.
    #[must_use]
    pub fn denied(&self, address: IpAddr, now: u64) -> Option<&Entry> {
        self.denies.longest(address.to_canonical(), now)
    }

    /// All entries, allowing ones first, each kind in the order of networks.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.allows.entries.values().chain(self.denies.entries.values())
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.allows.entries.len() + self.denies.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn table(&self, kind: Kind) -> &Table {
        match kind {
            Kind::Allow => &self.allows,
            Kind::Deny => &self.denies,
        }
    }

    fn table_mut(&mut self, kind: Kind) -> &mut Table {
        match kind {
            Kind::Allow => &mut self.allows,
            Kind::Deny => &mut self.denies,
        }
    }
}

/// Only deny entries may go to make room: an allow entry that vanishes would cost mail.
fn is_failure(entry: &Entry) -> bool {
    entry.kind == Kind::Deny && entry.origin == Origin::Failure
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
