//! The deny table as a pure model: a set of prefixes in, and out the differences to write to the kernel's four maps.
//!
//! An address is denied if any entry that holds it has not expired. The kernel finds that out with one look into an array for
//! IPv4: a class byte for each /24. Prefixes of a /24 or shorter that never expire are painted as the class of their list; all
//! else (single addresses, longer prefixes, prefixes with an expiry) paints the byte [`FURTHER`] where no class stands, and
//! is found in the hash of single addresses or in the longest-prefix map. IPv6 uses those two alone.

use std::collections::{BTreeMap, BTreeSet};

use screen_common::{
    abi::{DENY_HOST_ENTRIES, DENY_NET_ENTRIES, map},
    address::IpKey,
    decide::{FURTHER, MAX_CLASS},
};

use super::{
    KernelError,
    clock::Expiry,
    prefix::Prefix,
    prefixes::{Entry, ListId, PrefixSet, Written},
};

/// The bits of a /24 in a key.
const SLASH24: u8 = 120;
/// Class bytes in a row of the array.
const ROW: usize = 256;

/// The map that an entry stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The array of class bytes.
    Class,
    /// The hash of single addresses.
    Host,
    /// The longest-prefix map.
    Net,
}

/// What to write to the maps.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Classes that are new.
    pub(super) classes: Vec<(u8, ListId)>,
    /// Single addresses; `None`: remove.
    pub(super) hosts: BTreeMap<IpKey, Option<Entry>>,
    /// Prefixes; `None`: remove.
    pub(super) nets: BTreeMap<Prefix, Option<Entry>>,
    /// Rows of class bytes that differ.
    pub(super) rows: BTreeSet<u16>,
    /// IPv4 prefixes of a /24 or shorter whose class bytes are to be painted anew; none is left when a change is complete.
    stale: Vec<Prefix>,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct DenyTable {
    set: PrefixSet,
    written: Written,
    hosts: BTreeMap<IpKey, Entry>,
    /// Rows with any byte that is not zero.
    rows: BTreeMap<u16, Box<[u8; ROW]>>,
    /// The list of each class; the class is the index plus one.
    classes: Vec<ListId>,
}

impl DenyTable {
    /// Denies `prefix` by `entry.list` until `entry.expires`, in place of what that list said of it.
    pub(super) fn insert(&mut self, prefix: Prefix, entry: Entry, changes: &mut Changes) -> Result<(), KernelError> {
        let inserted = self.put(prefix, entry, changes);
        self.paint_stale(changes);
        inserted
    }

    fn put(&mut self, prefix: Prefix, entry: Entry, changes: &mut Changes) -> Result<(), KernelError> {
        if self.set.of_list(prefix, entry.list) == Some(entry) {
            return Ok(());
        }
        if self.set.voices(prefix) == 0 {
            let place = self.place(prefix, entry);
            self.room(usize::from(place == Place::Host), usize::from(place == Place::Net))?;
        }
        if self.place(prefix, entry) == Place::Class {
            self.open_class(entry.list, changes);
        }
        self.set.set(prefix, entry);
        self.refresh(prefix, changes);
        Ok(())
    }

    /// Takes back what `list` says of `prefix`; returns whether it said anything.
    pub(super) fn remove(&mut self, prefix: Prefix, list: ListId, changes: &mut Changes) -> bool {
        let removed = self.take_out(prefix, list, changes);
        self.paint_stale(changes);
        removed
    }

    fn take_out(&mut self, prefix: Prefix, list: ListId, changes: &mut Changes) -> bool {
        let removed = self.set.unset(prefix, list);
        if removed {
            self.refresh(prefix, changes);
        }
        removed
    }

    /// Makes `entries` all that `list` says; what stays is not touched. All of it or, if there is no room, none.
    pub(super) fn replace(
        &mut self,
        list: ListId,
        entries: &BTreeMap<Prefix, Expiry>,
        changes: &mut Changes,
    ) -> Result<(), KernelError> {
        let gone: Vec<Prefix> =
            self.set.list(list).map(|(prefix, _)| prefix).filter(|prefix| !entries.contains_key(prefix)).collect();
        // Of each kind of place, as many as take room and as many as leave it.
        let tally = |places: &mut dyn Iterator<Item = Place>| {
            places.fold((0, 0), |(hosts, nets): (usize, usize), place| match place {
                Place::Class => (hosts, nets),
                Place::Host => (hosts + 1, nets),
                Place::Net => (hosts, nets + 1),
            })
        };
        let new = tally(
            &mut entries
                .iter()
                .filter(|(prefix, _)| self.set.voices(**prefix) == 0)
                .map(|(prefix, expires)| self.place(*prefix, Entry { list, expires: *expires })),
        );
        let left = tally(
            &mut gone
                .iter()
                .filter(|prefix| self.set.voices(**prefix) == 1)
                .filter_map(|prefix| self.set.own(*prefix).map(|entry| self.place(*prefix, entry))),
        );
        self.room(new.0.saturating_sub(left.0), new.1.saturating_sub(left.1))?;
        for prefix in gone {
            self.take_out(prefix, list, changes);
        }
        let put = entries
            .iter()
            .try_for_each(|(prefix, expires)| self.put(*prefix, Entry { list, expires: *expires }, changes));
        self.paint_stale(changes);
        put
    }

    /// Removes what has expired by `now`; returns how many entries.
    pub(super) fn sweep(&mut self, now: Expiry, changes: &mut Changes) -> usize {
        let expired = self.set.expired(now);
        for (prefix, list) in &expired {
            self.take_out(*prefix, *list, changes);
        }
        self.paint_stale(changes);
        expired.len()
    }

    /// A row of class bytes as it must stand in the map.
    pub(super) fn row(&self, row: u16) -> [u8; ROW] {
        self.rows.get(&row).map_or([0; ROW], |bytes| **bytes)
    }

    /// All that `list` says.
    pub(super) fn list(&self, list: ListId) -> impl Iterator<Item = (Prefix, Entry)> + '_ {
        self.set.list(list)
    }

    /// Prefixes in all.
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    /// Entries of the hash and of the longest-prefix map.
    pub(super) fn fill(&self) -> (usize, usize) {
        (self.hosts.len(), self.written.len())
    }

    /// Where an entry of its own goes.
    fn place(&self, prefix: Prefix, entry: Entry) -> Place {
        if prefix.is_host() {
            return Place::Host;
        }
        let sayable = prefix.is_ipv4() && prefix.bits() <= SLASH24 && entry.expires == Expiry::NEVER;
        let free = self.classes.len() < usize::from(MAX_CLASS);
        if sayable && (free || self.class(entry.list).is_some()) { Place::Class } else { Place::Net }
    }

    /// Whether so many more fit.
    fn room(&self, hosts: usize, nets: usize) -> Result<(), KernelError> {
        if self.hosts.len() + hosts > DENY_HOST_ENTRIES {
            return Err(KernelError::Full { table: map::DENY_HOST, capacity: DENY_HOST_ENTRIES });
        }
        // One is taken by the wall between the families.
        if nets > 0 && self.written.len() + nets > DENY_NET_ENTRIES - 1 {
            return Err(KernelError::Full { table: map::DENY_NET, capacity: DENY_NET_ENTRIES });
        }
        Ok(())
    }

    fn open_class(&mut self, list: ListId, changes: &mut Changes) {
        if self.class(list).is_none() && self.classes.len() < usize::from(MAX_CLASS) {
            self.classes.push(list);
            if let Some(class) = self.class(list) {
                changes.classes.push((class, list));
            }
        }
    }

    /// The class of a list, if it has one: past 254 lists, theirs are entries of the longest-prefix map.
    fn class(&self, list: ListId) -> Option<u8> {
        let index = self.classes.iter().position(|known| *known == list)?;
        u8::try_from(index + 1).ok()
    }

    /// The class that `entry` paints over `prefix`, if it is one that a class byte can say.
    fn class_of(&self, prefix: Prefix, entry: Entry) -> Option<u8> {
        if self.place(prefix, entry) == Place::Class { self.class(entry.list) } else { None }
    }

    /// Brings everything that depends on `prefix` up to date, but for the class bytes, which many changes may share.
    fn refresh(&mut self, prefix: Prefix, changes: &mut Changes) {
        if prefix.is_host() {
            self.refresh_host(prefix, changes);
        } else {
            self.refresh_nets(prefix, changes);
        }
        if prefix.is_ipv4() {
            changes.stale.push(Prefix::new(prefix.key(), prefix.bits().min(SLASH24)));
        }
    }

    fn refresh_host(&mut self, prefix: Prefix, changes: &mut Changes) {
        let key = prefix.key();
        let wanted = self.set.own(prefix);
        if wanted == self.hosts.get(&key).copied() {
            return;
        }
        match wanted {
            Some(entry) => self.hosts.insert(key, entry),
            None => self.hosts.remove(&key),
        };
        changes.hosts.insert(key, wanted);
    }

    fn refresh_nets(&mut self, prefix: Prefix, changes: &mut Changes) {
        let mut written = std::mem::take(&mut self.written);
        let differences = written.refresh(&self.set, prefix, |inner| {
            !inner.is_host() && self.set.own(inner).is_some_and(|entry| self.class_of(inner, entry).is_none())
        });
        self.written = written;
        changes.nets.extend(differences);
    }

    /// Paints all class bytes that are stale, each prefix once however many of its entries have changed.
    fn paint_stale(&mut self, changes: &mut Changes) {
        let mut stale = std::mem::take(&mut changes.stale);
        stale.sort_unstable();
        stale.dedup();
        for prefix in stale {
            self.paint(prefix, changes);
        }
    }

    /// Paints the class bytes of an IPv4 prefix of a /24 or shorter anew.
    fn paint(&mut self, prefix: Prefix, changes: &mut Changes) {
        let (Some(first), Some(last)) = (prefix.first_slash24(), prefix.last_slash24()) else { return };
        let mut background = 0;
        for (outer, entry) in self.set.around(prefix) {
            background = self.class_of(outer, entry).unwrap_or(if background == 0 { FURTHER } else { background });
        }
        let mut bytes = vec![background; (last - first) as usize + 1];
        for inner in self.set.within(prefix) {
            let (Some(from), Some(to), Some(entry)) =
                (inner.first_slash24(), inner.last_slash24(), self.set.own(inner))
            else {
                continue;
            };
            let class = self.class_of(inner, entry);
            for byte in bytes.get_mut((from - first) as usize..=(to - first) as usize).into_iter().flatten() {
                *byte = class.unwrap_or(if *byte == 0 { FURTHER } else { *byte });
            }
        }
        // A prefix shorter than a /16 begins at a row; a longer one lies in a single row.
        let mut slash24 = first;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (row, column) = ((slash24 >> 8) as u16, (slash24 & 0xff) as usize);
            let (here, next) = rest.split_at(rest.len().min(ROW - column));
            self.write_row(row, column, here, changes);
            slash24 += here.len() as u32;
            rest = next;
        }
    }

    fn write_row(&mut self, row: u16, column: usize, bytes: &[u8], changes: &mut Changes) {
        let here = self.rows.entry(row).or_insert_with(|| Box::new([0; ROW]));
        let Some(place) = here.get_mut(column..column + bytes.len()) else { return };
        if place != bytes {
            place.copy_from_slice(bytes);
            changes.rows.insert(row);
        }
        if bytes.contains(&0) && **here == [0; ROW] {
            self.rows.remove(&row);
        }
    }
}

#[cfg(test)]
mod tests;
