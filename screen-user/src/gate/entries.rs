//! Run-time entries in the lists, the store and the kernel: what operators deny, allow and forget, and who failed.

use std::sync::PoisonError;

use ipnet::IpNet;

use super::{Gate, unix_millis, unix_now};
use crate::{
    access::runtime::{Entry, Inserted, Roll},
    share::{Key, Version},
};

impl Gate {
    /// Takes up the entries that outlived the last run.
    pub(super) fn restore_entries(&self, entries: Vec<(String, Vec<u8>)>) {
        let now = unix_now();
        let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        for (key, json) in entries {
            if self.restore_list(&key, &json) || self.restore_forget(&key, &json) {
                continue;
            }
            match serde_json::from_slice::<Entry>(&json) {
                Ok(entry) if entry.ends().is_none_or(|end| end > now) => {
                    self.clock.hear(entry.version, unix_millis());
                    let place = store_key(&entry);
                    if place != key {
                        // It was kept by a version that had another key for it.
                        self.store.drop_entry(&key);
                        self.keep_entry(&entry);
                    }
                    lists.insert(entry);
                }
                Ok(_) => self.store.drop_entry(&key),
                Err(error) => {
                    self.log.warn(format!("a kept run-time entry is not readable and is left out: {key}: {error}"));
                    self.store.drop_entry(&key);
                }
            }
        }
    }

    /// Adds or replaces an entry, and tells other hosts. Returns whether there was room for it.
    pub(super) fn enter(&self, entry: &Entry) -> bool {
        let taken = self.take_up(entry);
        if taken {
            self.tell(Key::Entry(entry.roll(), entry.net));
        }
        taken
    }

    /// Puts what `new` makes of the entry for a network in its place, if it makes anything, and tells other hosts: nobody changes it in
    /// between. Returns whether there was room for it.
    pub(super) fn revise(&self, roll: Roll, net: IpNet, new: impl FnOnce(Option<&Entry>) -> Option<Entry>) -> bool {
        let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = new(lists.get(roll, net)) else { return true };
        let inserted = lists.insert(entry.clone());
        drop(lists);
        let taken = self.spread(&entry, &inserted);
        if taken {
            self.tell(Key::Entry(roll, net));
        }
        taken
    }

    /// Adds or replaces an entry, here, in the store and in the kernel. Returns whether it is there now.
    pub(super) fn take_up(&self, entry: &Entry) -> bool {
        let inserted = self.lists.write().unwrap_or_else(PoisonError::into_inner).insert(entry.clone());
        self.spread(entry, &inserted)
    }

    /// Has store and kernel know what became of an entry in the lists. Returns whether it is there.
    fn spread(&self, entry: &Entry, inserted: &Inserted) -> bool {
        let &Inserted { taken, ref evicted } = inserted;
        evicted.iter().for_each(|gone| self.drop_entry(gone));
        if taken {
            self.keep_entry(entry);
            if entry.is_live(unix_now()) {
                self.feed_entry(entry);
            } else {
                // What it replaces may have been there for longer.
                self.unfeed_entry(entry);
            }
        }
        taken
    }

    fn keep_entry(&self, entry: &Entry) {
        match serde_json::to_vec(entry) {
            Ok(json) => self.store.keep_entry(&store_key(entry), json),
            Err(error) => self.log.warn(format!("{}: this entry ends with the gate: {error}", entry.net)),
        }
    }

    /// Takes out entries whose time is over.
    pub(super) fn expire_entries(&self) {
        let expired = self.lists.write().unwrap_or_else(PoisonError::into_inner).expire(unix_now());
        expired.iter().for_each(|entry| self.drop_entry(entry));
    }

    /// Removes from store and kernel what has left the lists.
    fn drop_entry(&self, entry: &Entry) {
        self.store.drop_entry(&store_key(entry));
        self.unfeed_entry(entry);
    }

    /// Forgets what was entered and learnt of `net` and everything in it until `version`. Returns how many entries and records changed.
    pub(super) fn forget(&self, net: IpNet, version: Version) -> (usize, usize) {
        // First of all the order itself: what others still say of these clients is forgotten as well.
        let changed = self.screen().forget(net, version);
        self.keep_forget(net, version);
        let entries = self.lists.write().unwrap_or_else(PoisonError::into_inner).forget(net, version);
        entries.iter().for_each(|entry| self.drop_entry(entry));
        for (client, left) in &changed {
            if left.is_empty() {
                self.store.forget(*client);
            } else {
                self.store.remember(*client, *left);
            }
            self.feed_record(*client, left);
        }
        (entries.len(), changed.len())
    }
}

fn store_key(entry: &Entry) -> String {
    let word = match entry.roll() {
        Roll::Allow => "allow",
        Roll::Deny => "deny",
        Roll::Failure => "failure",
    };
    format!("{word} {}", entry.net)
}
