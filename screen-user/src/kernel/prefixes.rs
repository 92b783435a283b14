//! A set of prefixes, each denied or allowed by lists until a time, and what a longest-prefix map must hold to say the same.
//!
//! A longest-prefix map answers with one entry only. If that entry expires before a shorter one that holds it, the map would
//! forget the shorter one. So every entry is written with the latest expiry of all that hold it: then one answer is enough.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use super::{clock::Expiry, prefix::Prefix};

/// Who keeps a list; the number that maps and events show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListId(pub u32);

impl ListId {
    /// `access.list` of the configuration.
    pub const ACCESS: Self = Self(1);
    /// Entries made by the operator at run time.
    pub const OPERATOR: Self = Self(2);
    /// Clients that failed a test whose action is `drop`.
    pub const FAILURE: Self = Self(3);
    /// The first number for imported lists.
    pub const IMPORTED: Self = Self(16);
}

/// What a list says of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) list: ListId,
    pub(super) expires: Expiry,
}

impl Entry {
    /// Which of two entries speaks for an address that both hold: the later expiry, then the lower list.
    pub(super) fn stronger(self, other: Self) -> Self {
        if (other.expires, std::cmp::Reverse(other.list)) > (self.expires, std::cmp::Reverse(self.list)) {
            other
        } else {
            self
        }
    }
}

/// What the lists say of a prefix: at most one entry each, and in nearly all cases one in all.
#[derive(Debug)]
struct Voices {
    first: Entry,
    others: Vec<Entry>,
}

impl Voices {
    fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }

    /// Sets what a list says; returns what it said before.
    fn set(&mut self, entry: Entry) -> Option<Entry> {
        let own = std::iter::once(&mut self.first).chain(&mut self.others).find(|other| other.list == entry.list);
        match own {
            Some(own) => Some(std::mem::replace(own, entry)),
            None => {
                self.others.push(entry);
                None
            }
        }
    }

    fn strongest(&self) -> Entry {
        self.others.iter().copied().fold(self.first, Entry::stronger)
    }
}

/// The set.
#[derive(Debug, Default)]
pub(super) struct PrefixSet {
    entries: BTreeMap<Prefix, Voices>,
    expiries: BTreeSet<(Expiry, Prefix, ListId)>,
    /// How many prefixes there are of each length: most lengths have none and need not be tried.
    lengths: BTreeMap<u8, usize>,
}

impl PrefixSet {
    /// Sets what `list` says of `prefix`.
    pub(super) fn set(&mut self, prefix: Prefix, entry: Entry) {
        let former = match self.entries.entry(prefix) {
            btree_map::Entry::Vacant(place) => {
                place.insert(Voices { first: entry, others: Vec::new() });
                *self.lengths.entry(prefix.bits()).or_default() += 1;
                None
            }
            btree_map::Entry::Occupied(place) => place.into_mut().set(entry),
        };
        if let Some(former) = former {
            self.expiries.remove(&(former.expires, prefix, former.list));
        }
        if entry.expires != Expiry::NEVER {
            self.expiries.insert((entry.expires, prefix, entry.list));
        }
    }

    /// Takes back what `list` says of `prefix`; returns whether it said anything.
    pub(super) fn unset(&mut self, prefix: Prefix, list: ListId) -> bool {
        let Some(voices) = self.entries.get_mut(&prefix) else { return false };
        let Some(entry) = voices.iter().find(|entry| entry.list == list) else { return false };
        self.expiries.remove(&(entry.expires, prefix, list));
        if voices.first.list != list {
            voices.others.retain(|other| other.list != list);
        } else if let Some(next) = voices.others.pop() {
            voices.first = next;
        } else {
            self.entries.remove(&prefix);
            if let Some(count) = self.lengths.get_mut(&prefix.bits()) {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&prefix.bits());
                }
            }
        }
        true
    }

    /// The strongest that is said of exactly this prefix.
    pub(super) fn own(&self, prefix: Prefix) -> Option<Entry> {
        self.entries.get(&prefix).map(Voices::strongest)
    }

    /// What `list` says of exactly this prefix.
    pub(super) fn of_list(&self, prefix: Prefix, list: ListId) -> Option<Entry> {
        self.entries.get(&prefix)?.iter().find(|entry| entry.list == list)
    }

    /// How many lists speak of exactly this prefix.
    pub(super) fn voices(&self, prefix: Prefix) -> usize {
        self.entries.get(&prefix).map_or(0, |voices| voices.iter().count())
    }

    /// Every prefix with the strongest that is said of exactly it; what holds others comes before them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Prefix, Entry)> + '_ {
        self.entries.iter().map(|(prefix, voices)| (*prefix, voices.strongest()))
    }

    /// The prefixes of the set that hold `prefix`, itself included, the shortest first.
    pub(super) fn around(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, Entry)> + '_ {
        self.lengths.range(prefix.shortest()..=prefix.bits()).filter_map(move |(bits, _)| {
            let outer = Prefix::new(prefix.key(), *bits);
            self.own(outer).filter(|_| outer.holds(prefix)).map(|entry| (outer, entry))
        })
    }

    /// The strongest that is said of `prefix` as a whole, by itself or by what holds it.
    pub(super) fn effective(&self, prefix: Prefix) -> Option<Entry> {
        self.around(prefix).map(|(_, entry)| entry).reduce(Entry::stronger)
    }

    /// The prefixes of the set that `prefix` holds, itself included; what holds others comes before them.
    pub(super) fn within(&self, prefix: Prefix) -> impl Iterator<Item = Prefix> + '_ {
        let last = Prefix::new(prefix.last(), 128);
        self.entries.range(prefix..=last).map(|(inner, _)| *inner).filter(move |inner| prefix.holds(*inner))
    }

    /// All that `list` says.
    pub(super) fn list(&self, list: ListId) -> impl Iterator<Item = (Prefix, Entry)> + '_ {
        self.entries.iter().filter_map(move |(prefix, voices)| {
            voices.iter().find(|entry| entry.list == list).map(|entry| (*prefix, entry))
        })
    }

    /// What has expired by `now`.
    pub(super) fn expired(&self, now: Expiry) -> Vec<(Prefix, ListId)> {
        self.expiries
            .iter()
            .take_while(|(expires, ..)| *expires <= now)
            .map(|(_, prefix, list)| (*prefix, *list))
            .collect()
    }

    /// How many prefixes.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many single addresses.
    pub(super) fn hosts(&self) -> usize {
        self.lengths.get(&128).copied().unwrap_or_default()
    }
}

/// What stands in a longest-prefix map, kept so that only differences are written.
#[derive(Debug, Default)]
pub(super) struct Written {
    entries: BTreeMap<Prefix, Entry>,
}

impl Written {
    /// After `changed` changed in `set`: what to write (`None`: remove). `belongs` tells which prefixes of the set this map holds.
    pub(super) fn refresh(
        &mut self,
        set: &PrefixSet,
        changed: Prefix,
        belongs: impl Fn(Prefix) -> bool,
    ) -> Vec<(Prefix, Option<Entry>)> {
        let mut differences = Vec::new();
        let mut inspect = |prefix: Prefix| {
            // What has left the set must leave the map, even if a shorter prefix says the same for now.
            let wanted = if set.voices(prefix) > 0 && belongs(prefix) { set.effective(prefix) } else { None };
            if wanted == self.entries.get(&prefix).copied() {
                return;
            }
            match wanted {
                Some(entry) => self.entries.insert(prefix, entry),
                None => self.entries.remove(&prefix),
            };
            differences.push((prefix, wanted));
        };
        if set.voices(changed) == 0 {
            inspect(changed);
        }
        for prefix in set.within(changed) {
            inspect(prefix);
        }
        differences
    }

    /// Makes `entries`, which are sorted, all that stands in the map; returns the prefixes of which it says something else then.
    pub(super) fn replace(&mut self, entries: Vec<(Prefix, Entry)>) -> Vec<Prefix> {
        let former = std::mem::replace(&mut self.entries, entries.into_iter().collect());
        let mut differences: Vec<Prefix> =
            former.keys().filter(|prefix| !self.entries.contains_key(*prefix)).copied().collect();
        differences.extend(
            self.entries
                .iter()
                .filter(|(prefix, entry)| former.get(*prefix) != Some(*entry))
                .map(|(prefix, _)| *prefix),
        );
        differences
    }

    /// What stands in the map of exactly this prefix.
    pub(super) fn get(&self, prefix: Prefix) -> Option<Entry> {
        self.entries.get(&prefix).copied()
    }

    /// The prefixes of which `list` has the word.
    pub(super) fn of_list(&self, list: ListId) -> impl Iterator<Item = Prefix> + '_ {
        self.entries.iter().filter(move |(_, entry)| entry.list == list).map(|(prefix, _)| *prefix)
    }

    /// How many entries stand in the map.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        Prefix::from(text.parse::<IpNet>().unwrap())
    }

    fn entry(list: u32, expires: u64) -> Entry {
        Entry { list: ListId(list), expires: Expiry::from_nanos(expires) }
    }

    #[test]
    fn a_shorter_prefix_that_lasts_longer_speaks_for_the_longer_one() {
        let mut set = PrefixSet::default();
        let mut written = Written::default();
        set.set(prefix("192.0.2.0/24"), entry(1, 10));
        set.set(prefix("192.0.2.0/28"), entry(2, 5));
        assert_eq!(
            written.refresh(&set, prefix("192.0.2.0/28"), |_| true),
            [(prefix("192.0.2.0/28"), Some(entry(1, 10)))]
        );
        set.unset(prefix("192.0.2.0/24"), ListId(1));
        assert_eq!(
            written.refresh(&set, prefix("192.0.2.0/24"), |_| true),
            [(prefix("192.0.2.0/28"), Some(entry(2, 5)))]
        );
    }

    #[test]
    fn what_is_taken_out_is_not_kept_for_a_shorter_prefix() {
        let mut set = PrefixSet::default();
        let mut written = Written::default();
        for text in ["192.0.2.0/24", "192.0.2.0/28"] {
            set.set(prefix(text), entry(1, 10));
            written.refresh(&set, prefix(text), |_| true);
        }
        for text in ["192.0.2.0/28", "192.0.2.0/24"] {
            set.unset(prefix(text), ListId(1));
            assert_eq!(written.refresh(&set, prefix(text), |_| true), [(prefix(text), None)]);
        }
        assert_eq!(written.len(), 0);
    }

    #[test]
    fn lists_speak_for_themselves() {
        let mut set = PrefixSet::default();
        set.set(prefix("192.0.2.7/32"), entry(2, 10));
        set.set(prefix("192.0.2.7/32"), entry(3, 20));
        assert_eq!(set.own(prefix("192.0.2.7/32")), Some(entry(3, 20)));
        assert!(set.unset(prefix("192.0.2.7/32"), ListId(3)));
        assert!(!set.unset(prefix("192.0.2.7/32"), ListId(3)));
        assert_eq!(set.own(prefix("192.0.2.7/32")), Some(entry(2, 10)));
        assert_eq!(set.expired(Expiry::from_nanos(10)), [(prefix("192.0.2.7/32"), ListId(2))]);
        assert_eq!(set.expired(Expiry::from_nanos(9)), []);
    }
}
