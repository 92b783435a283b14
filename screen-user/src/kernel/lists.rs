//! The lists in the kernel: what is denied, allowed, and passed, each a model here and its maps there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
};

use aya::maps::{Array, HashMap, LpmTrie, MapData, MapError, lpm_trie::Key};
use screen_common::{
    abi::{ALLOW_ENTRIES, Deny, PASS_ENTRIES, TEXT_DENIED, Until, map},
    address::IpKey,
};

use super::{
    KernelError, batch,
    clock::Expiry,
    deny::{Changes, DenyTable},
    former, lock,
    prefix::{ALL_IPV4, Prefix},
    prefixes::{Entry, ListId, PrefixSet, Written},
};

/// The deny table and its four maps.
pub(super) struct DenyList {
    pub(super) table: DenyTable,
    /// Lists with a text of their own, by its number.
    pub(super) texts: BTreeMap<ListId, u32>,
    pub(super) rows: Array<MapData, [u8; 256]>,
    pub(super) classes: Array<MapData, Deny>,
    pub(super) hosts: HashMap<MapData, IpKey, Deny>,
    pub(super) nets: LpmTrie<MapData, IpKey, Deny>,
}

impl DenyList {
    /// Puts up the wall between the families: without it `::/0` would hold the mapped IPv4 addresses.
    pub(super) fn raise_wall(&mut self) -> Result<(), KernelError> {
        self.nets.insert(&lpm_key(ALL_IPV4), WALL, 0).map_err(KernelError::map(map::DENY_NET))
    }

    fn write_classes(&mut self, classes: &[(u8, ListId)]) -> Result<(), KernelError> {
        for (class, list) in classes {
            let entry = deny(&self.texts, Entry { list: *list, expires: Expiry::NEVER });
            self.classes.set(u32::from(*class), entry, 0).map_err(KernelError::map(map::CLASSES))?;
        }
        Ok(())
    }

    /// Writes what the table says now of one slice of what has changed.
    fn write(&mut self, slice: &Slice<'_>) -> Result<(), KernelError> {
        let (table, texts) = (&self.table, &self.texts);
        match slice {
            Slice::NewHosts(keys) => {
                let new = keys.iter().filter_map(|key| Some((*key, deny(texts, table.host(*key)?))));
                batch::insert(&mut self.hosts, new, |hosts, key, entry| hosts.insert(key, entry, 0))
                    .map_err(KernelError::map(map::DENY_HOST))
            }
            Slice::NewNets(prefixes) => {
                let new = prefixes.iter().filter_map(|net| Some((lpm_key(*net), deny(texts, table.net(*net)?))));
                batch::insert(&mut self.nets, new, |nets, key, entry| nets.insert(key, entry, 0))
                    .map_err(KernelError::map(map::DENY_NET))
            }
            Slice::Rows(rows) => {
                let rows = rows.iter().map(|row| (u32::from(*row), table.row(*row)));
                batch::insert(&mut self.rows, rows, |rows, row, bytes| rows.set(*row, bytes, 0))
                    .map_err(KernelError::map(map::DENY_CLASS))
            }
            Slice::OldHosts(keys) => {
                let old = keys.iter().filter(|key| table.host(**key).is_none()).copied();
                batch::remove(&mut self.hosts, old, |hosts, key| gone(hosts.remove(key)))
                    .map_err(KernelError::map(map::DENY_HOST))
            }
            Slice::OldNets(prefixes) => {
                let old = prefixes.iter().filter(|net| table.net(**net).is_none()).copied();
                let (walls, old): (Vec<Prefix>, Vec<Prefix>) = old.partition(|prefix| *prefix == ALL_IPV4);
                if !walls.is_empty() {
                    self.raise_wall()?;
                }
                batch::remove(&mut self.nets, old.into_iter().map(lpm_key), |nets, key| gone(nets.remove(key)))
                    .map_err(KernelError::map(map::DENY_NET))
            }
        }
    }
}

/// A part of what has changed that is written in one go.
enum Slice<'a> {
    NewHosts(&'a [IpKey]),
    NewNets(&'a [Prefix]),
    Rows(&'a [u16]),
    OldHosts(&'a [IpKey]),
    OldNets(&'a [Prefix]),
}

/// The deny list, for many threads. The table changes at once; the maps follow in slices, and whoever waits gets in between two of them.
pub(super) struct SharedDenyList {
    list: Mutex<DenyList>,
    /// Held while waiting for the list: without it, one who writes slice after slice would always be the first to take the list again.
    door: Mutex<()>,
}

impl SharedDenyList {
    pub(super) fn new(list: DenyList) -> Self {
        Self { list: Mutex::new(list), door: Mutex::new(()) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, DenyList> {
        let _next = lock(&self.door);
        lock(&self.list)
    }

    /// Gives `list` the text of this number, or none of its own, also in what is denied already.
    pub(super) fn set_text(&self, list: ListId, number: Option<u32>) -> Result<(), KernelError> {
        let former = match number {
            Some(number) => self.lock().texts.insert(list, number),
            None => self.lock().texts.remove(&list),
        };
        if former == number {
            return Ok(());
        }
        self.change(|table, changes| {
            table.say_again(list, changes);
            Ok(())
        })
    }

    /// Changes the table, then brings the maps to what it says, also when the change went only half way.
    ///
    /// Every slice is written by what the table says at that time. So changes that overlap do no harm to each other: the last one to
    /// write an entry writes what is right then, whoever changed it.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut DenyTable, &mut Changes) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let mut changes = Changes::default();
        let result = {
            let mut list = self.lock();
            let result = change(&mut list.table, &mut changes);
            list.write_classes(&changes.classes)?;
            result
        };
        let rows: Vec<u16> = changes.rows.into_iter().collect();
        let (hosts, taken_back) = (changes.hosts.chunks(batch::ENTRIES), changes.taken_back.chunks(batch::ENTRIES));
        let nets = changes.nets.chunks(batch::ENTRIES);
        // What is new comes before the class bytes that lead to it, and what is old goes after them.
        let slices = (hosts.map(Slice::NewHosts))
            .chain(nets.clone().map(Slice::NewNets))
            .chain(rows.chunks(batch::ENTRIES).map(Slice::Rows))
            .chain(taken_back.map(Slice::OldHosts))
            .chain(nets.map(Slice::OldNets));
        for slice in slices {
            self.lock().write(&slice)?;
        }
        result
    }
}

/// The allow table and its map.
pub(super) struct AllowList {
    set: PrefixSet,
    written: Written,
    map: LpmTrie<MapData, IpKey, Until>,
    /// Entries that were refused for want of room.
    no_room: u64,
}

impl AllowList {
    pub(super) fn new(map: LpmTrie<MapData, IpKey, Until>) -> Result<Self, KernelError> {
        let mut list = Self { set: PrefixSet::default(), written: Written::default(), map, no_room: 0 };
        list.write(ALL_IPV4, None)?;
        Ok(list)
    }

    pub(super) fn insert(&mut self, prefix: Prefix, entry: Entry) -> Result<(), KernelError> {
        if self.set.of_list(prefix, entry.list) == Some(entry) {
            return Ok(());
        }
        // One is taken by the wall between the families.
        if self.set.voices(prefix) == 0 && self.set.len() >= ALLOW_ENTRIES - 1 {
            self.no_room += 1;
            return Err(KernelError::Full { table: map::ALLOW, capacity: ALLOW_ENTRIES });
        }
        self.set.set(prefix, entry);
        self.refresh(prefix)
    }

    pub(super) fn remove(&mut self, prefix: Prefix, list: ListId) -> Result<bool, KernelError> {
        let removed = self.set.unset(prefix, list);
        if removed {
            self.refresh(prefix)?;
        }
        Ok(removed)
    }

    pub(super) fn replace(&mut self, list: ListId, entries: &BTreeMap<Prefix, Expiry>) -> Result<(), KernelError> {
        let gone: Vec<Prefix> =
            self.set.list(list).map(|(prefix, _)| prefix).filter(|prefix| !entries.contains_key(prefix)).collect();
        let left = gone.iter().filter(|prefix| self.set.voices(**prefix) == 1).count();
        let new = entries.keys().filter(|prefix| self.set.voices(**prefix) == 0).count();
        if self.set.len() + new > left + ALLOW_ENTRIES - 1 {
            self.no_room += new as u64;
            return Err(KernelError::Full { table: map::ALLOW, capacity: ALLOW_ENTRIES });
        }
        for prefix in gone {
            self.remove(prefix, list)?;
        }
        for (prefix, expires) in entries {
            self.insert(*prefix, Entry { list, expires: *expires })?;
        }
        Ok(())
    }

    pub(super) fn sweep(&mut self, now: Expiry) -> Result<usize, KernelError> {
        let expired = self.set.expired(now);
        for (prefix, list) in &expired {
            self.remove(*prefix, *list)?;
        }
        Ok(expired.len())
    }

    pub(super) fn list(&self, list: ListId) -> impl Iterator<Item = (Prefix, Entry)> + '_ {
        self.set.list(list)
    }

    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    pub(super) fn no_room(&self) -> u64 {
        self.no_room
    }

    fn refresh(&mut self, prefix: Prefix) -> Result<(), KernelError> {
        for (prefix, entry) in self.written.refresh(&self.set, prefix, |_| true) {
            self.write(prefix, entry)?;
        }
        Ok(())
    }

    fn write(&mut self, prefix: Prefix, entry: Option<Entry>) -> Result<(), KernelError> {
        let expires_ns = match entry {
            Some(entry) => entry.expires.nanos(),
            // The wall between the families: what expired at the beginning of time.
            None if prefix == ALL_IPV4 => 0,
            None => return gone(self.map.remove(&lpm_key(prefix))).map_err(KernelError::map(map::ALLOW)),
        };
        self.map.insert(&lpm_key(prefix), Until { expires_ns }, 0).map_err(KernelError::map(map::ALLOW))
    }
}

/// The clients that passed the tests, and their map.
pub(super) struct PassList {
    known: BTreeMap<IpKey, Expiry>,
    expiries: BTreeSet<(Expiry, IpKey)>,
    map: HashMap<MapData, IpKey, Until>,
    /// Passes that made room for others before they expired.
    displaced: u64,
}

impl PassList {
    pub(super) fn new(map: HashMap<MapData, IpKey, Until>) -> Self {
        // A former gate's, which were earned.
        let known: BTreeMap<IpKey, Expiry> = former::passes(&map)
            .into_iter()
            .map(|(client, until)| (client, Expiry::from_nanos(until.expires_ns)))
            .collect();
        let expiries = known.iter().map(|(client, until)| (*until, *client)).collect();
        Self { known, expiries, map, displaced: 0 }
    }

    /// Notes a pass; where the table is full, the one that expires soonest makes room: its client is screened again.
    pub(super) fn insert(&mut self, client: IpKey, until: Expiry) -> Result<(), KernelError> {
        if !self.known.contains_key(&client)
            && self.known.len() >= PASS_ENTRIES
            && let Some((_, soonest)) = self.expiries.first().copied()
        {
            self.remove(soonest)?;
            self.displaced += 1;
        }
        self.map.insert(client, Until { expires_ns: until.nanos() }, 0).map_err(KernelError::map(map::PASS))?;
        self.note(client, until);
        Ok(())
    }

    /// Notes many passes, in few system calls where there is room for all.
    pub(super) fn insert_all(&mut self, passes: &[(IpKey, Expiry)]) -> Result<(), KernelError> {
        if self.known.len() + passes.len() > PASS_ENTRIES {
            return passes.iter().try_for_each(|&(client, until)| self.insert(client, until));
        }
        // Before they are written: where that fails half-way, those that are in the map can be taken back.
        passes.iter().for_each(|&(client, until)| self.note(client, until));
        let entries = passes.iter().map(|&(client, until)| (client, Until { expires_ns: until.nanos() }));
        batch::insert(&mut self.map, entries, |map, client, until| map.insert(client, until, 0))
            .map_err(KernelError::map(map::PASS))
    }

    fn note(&mut self, client: IpKey, until: Expiry) {
        if let Some(before) = self.known.insert(client, until) {
            self.expiries.remove(&(before, client));
        }
        self.expiries.insert((until, client));
    }

    pub(super) fn remove(&mut self, client: IpKey) -> Result<bool, KernelError> {
        let Some(until) = self.known.remove(&client) else { return Ok(false) };
        self.expiries.remove(&(until, client));
        gone(self.map.remove(&client)).map_err(KernelError::map(map::PASS))?;
        Ok(true)
    }

    pub(super) fn sweep(&mut self, now: Expiry) -> Result<usize, KernelError> {
        let expired: Vec<IpKey> =
            self.expiries.iter().take_while(|(until, _)| *until <= now).map(|(_, client)| *client).collect();
        for client in &expired {
            self.remove(*client)?;
        }
        Ok(expired.len())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (IpKey, Expiry)> + '_ {
        self.known.iter().map(|(client, until)| (*client, *until))
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn displaced(&self) -> u64 {
        self.displaced
    }
}

/// An entry that denies nobody.
const WALL: Deny = Deny { expires_ns: 0, list: 0, text: TEXT_DENIED };

fn deny(texts: &BTreeMap<ListId, u32>, entry: Entry) -> Deny {
    let text = texts.get(&entry.list).copied().unwrap_or(TEXT_DENIED);
    Deny { expires_ns: entry.expires.nanos(), list: entry.list.0, text }
}

pub(super) fn lpm_key(prefix: Prefix) -> Key<IpKey> {
    Key::new(u32::from(prefix.bits()), prefix.key())
}

/// A removal of what is not there is a removal.
pub(super) fn gone(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
