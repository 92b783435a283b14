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

/// Where the maps must be brought to what the table says. No values: by the time that one is written, the table may say something else.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Classes that are new.
    pub(super) classes: Vec<(u8, ListId)>,
    /// Single addresses.
    pub(super) hosts: Vec<IpKey>,
    /// Those among them of which a list took back what it said. Only they can have to be removed.
    pub(super) taken_back: Vec<IpKey>,
    /// Prefixes.
    pub(super) nets: Vec<Prefix>,
    /// Rows of class bytes.
    pub(super) rows: BTreeSet<u16>,
}

/// A change of more than so many entries, and of more than one in so many, is worked out by one walk over the whole table, a smaller one
/// entry by entry.
const WALK: usize = 16;

/// The table.
#[derive(Debug, Default)]
pub(super) struct DenyTable {
    set: PrefixSet,
    written: Written,
    /// Rows with any byte that is not zero.
    rows: Rows,
    /// The list of each class; the class is the index plus one.
    classes: Vec<ListId>,
    /// Entries that the hash and the longest-prefix map had no room for.
    no_room: (u64, u64),
}

type Rows = BTreeMap<u16, Box<[u8; ROW]>>;

impl DenyTable {
    /// Denies `prefix` by `entry.list` until `entry.expires`, in place of what that list said of it.
    pub(super) fn insert(&mut self, prefix: Prefix, entry: Entry, changes: &mut Changes) -> Result<(), KernelError> {
        if self.set.of_list(prefix, entry.list) == Some(entry) {
            return Ok(());
        }
        if self.set.voices(prefix) == 0 {
            let place = self.place(prefix, entry);
            self.room(usize::from(place == Place::Host), usize::from(place == Place::Net))?;
        }
        self.put(prefix, entry, changes);
        self.settle(&[prefix], 0, changes);
        Ok(())
    }

    fn put(&mut self, prefix: Prefix, entry: Entry, changes: &mut Changes) {
        if self.place(prefix, entry) == Place::Class {
            self.open_class(entry.list, changes);
        }
        self.set.set(prefix, entry);
    }

    /// Takes back what `list` says of `prefix`; returns whether it said anything.
    pub(super) fn remove(&mut self, prefix: Prefix, list: ListId, changes: &mut Changes) -> bool {
        let removed = self.set.unset(prefix, list);
        if removed {
            self.settle(&[prefix], 1, changes);
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
        let taken_back = gone.len();
        let mut changed = gone;
        for prefix in &changed {
            self.set.unset(*prefix, list);
        }
        for (prefix, expires) in entries {
            let entry = Entry { list, expires: *expires };
            if self.set.of_list(*prefix, list) != Some(entry) {
                self.put(*prefix, entry, changes);
                changed.push(*prefix);
            }
        }
        self.settle(&changed, taken_back, changes);
        Ok(())
    }

    /// Removes what has expired by `now`; returns how many entries.
    pub(super) fn sweep(&mut self, now: Expiry, changes: &mut Changes) -> usize {
        let expired = self.set.expired(now);
        for (prefix, list) in &expired {
            self.set.unset(*prefix, *list);
        }
        let changed: Vec<Prefix> = expired.iter().map(|(prefix, _)| *prefix).collect();
        self.settle(&changed, changed.len(), changes);
        expired.len()
    }

    /// Has everything written again that names `list`.
    pub(super) fn say_again(&self, list: ListId, changes: &mut Changes) {
        changes.classes.extend(self.class(list).map(|class| (class, list)));
        changes
            .hosts
            .extend(self.set.list(list).filter(|(prefix, _)| prefix.is_host()).map(|(prefix, _)| prefix.key()));
        changes.nets.extend(self.written.of_list(list));
    }

    /// What must stand in the hash of single addresses under this key.
    pub(super) fn host(&self, key: IpKey) -> Option<Entry> {
        self.set.own(Prefix::new(key, 128))
    }

    /// What must stand in the longest-prefix map of exactly this prefix.
    pub(super) fn net(&self, prefix: Prefix) -> Option<Entry> {
        self.written.get(prefix)
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
        (self.set.hosts(), self.written.len())
    }

    /// Entries that the hash and the longest-prefix map had no room for, ever.
    pub(super) fn no_room(&self) -> (u64, u64) {
        self.no_room
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

    /// Whether so many more fit; counts them if they don't.
    fn room(&mut self, hosts: usize, nets: usize) -> Result<(), KernelError> {
        if hosts > 0 && self.set.hosts() + hosts > DENY_HOST_ENTRIES {
            self.no_room.0 += hosts as u64;
            return Err(KernelError::Full { table: map::DENY_HOST, capacity: DENY_HOST_ENTRIES });
        }
        // One is taken by the wall between the families.
        if nets > 0 && self.written.len() + nets > DENY_NET_ENTRIES - 1 {
            self.no_room.1 += nets as u64;
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

    /// Brings everything that depends on `changed` up to date; of the first `taken_back` of them a list took back what it said.
    fn settle(&mut self, changed: &[Prefix], taken_back: usize, changes: &mut Changes) {
        let key = |prefix: &Prefix| prefix.is_host().then(|| prefix.key());
        changes.hosts.extend(changed.iter().filter_map(key));
        changes.taken_back.extend(changed.iter().take(taken_back).filter_map(key));
        if changed.len() > WALK.max(self.set.len() / WALK) {
            self.walk(changes);
            return;
        }
        for prefix in changed.iter().filter(|prefix| !prefix.is_host()) {
            self.refresh_nets(*prefix, changes);
        }
        // Many changes may share a /24, which is painted once.
        let ipv4 = changed.iter().filter(|prefix| prefix.is_ipv4());
        let stale: BTreeSet<Prefix> =
            ipv4.map(|prefix| Prefix::new(prefix.key(), prefix.bits().min(SLASH24))).collect();
        for prefix in stale {
            self.paint(prefix, changes);
        }
    }

    /// Works out the longest-prefix map and the class bytes anew. Prefixes come sorted, so those that hold the one at hand are those
    /// before it that have not ended yet.
    fn walk(&mut self, changes: &mut Changes) {
        let mut around: Vec<(Prefix, Entry)> = Vec::new();
        let mut nets = Vec::new();
        let mut rows = Rows::new();
        for (prefix, own) in self.set.iter() {
            while around.last().is_some_and(|(outer, _)| !outer.spans(prefix)) {
                around.pop();
            }
            let class = self.class_of(prefix, own);
            if !prefix.is_host() {
                // Of all that hold it the innermost one knows the strongest, unless it is of the other family.
                let outer = around.last().filter(|(outer, _)| outer.holds(prefix));
                let effective = outer.map_or(own, |(_, outer)| outer.stronger(own));
                around.push((prefix, effective));
                if class.is_none() {
                    nets.push((prefix, effective));
                }
            }
            let (Some(mut first), Some(last)) = (prefix.first_slash24(), prefix.last_slash24()) else { continue };
            while first <= last {
                let here = rows.entry((first >> 8) as u16).or_insert_with(|| Box::new([0; ROW]));
                let end = last.min(first | 0xff);
                let bytes = here.get_mut((first & 0xff) as usize..=(end & 0xff) as usize).unwrap_or_default();
                match class {
                    Some(class) => bytes.fill(class),
                    None => bytes.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = FURTHER),
                }
                first = end + 1;
            }
        }
        changes.nets.extend(self.written.replace(nets));
        let former = std::mem::replace(&mut self.rows, rows);
        let rows = former.keys().chain(self.rows.keys()).copied();
        changes.rows.extend(rows.filter(|row| former.get(row) != self.rows.get(row)));
    }

    fn refresh_nets(&mut self, prefix: Prefix, changes: &mut Changes) {
        let mut written = std::mem::take(&mut self.written);
        let differences = written.refresh(&self.set, prefix, |inner| {
            !inner.is_host() && self.set.own(inner).is_some_and(|entry| self.class_of(inner, entry).is_none())
        });
        self.written = written;
        changes.nets.extend(differences.into_iter().map(|(prefix, _)| prefix));
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
