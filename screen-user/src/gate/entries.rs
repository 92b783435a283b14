//! Run-time entries: what operators deny, allow and forget, and clients that failed a test with `drop`.

use std::{sync::PoisonError, time::Duration};

use ipnet::IpNet;

use super::{Gate, unix_now};
use crate::{
    access::runtime::{Entry, Kind, Origin},
    screen::record::Client,
};

impl Gate {
    /// Takes up the entries that outlived the last run.
    pub(super) fn restore_entries(&self, entries: Vec<(String, Vec<u8>)>) {
        let now = unix_now();
        let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        for (key, json) in entries {
            if self.restore_list(&key, &json) {
                continue;
            }
            match serde_json::from_slice::<Entry>(&json) {
                Ok(entry) if entry.until.is_none_or(|until| until > now) => {
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

    /// Adds or replaces an entry, here, in the store and in the kernel. Returns whether there was room for it.
    pub(super) fn enter(&self, entry: Entry) -> bool {
        let (kind, net) = (entry.kind, entry.net);
        let (gone, current) = {
            let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
            let gone = lists.insert(entry);
            (gone, lists.get(kind, net).cloned())
        };
        gone.iter().filter(|gone| (gone.kind, gone.net) != (kind, net)).for_each(|gone| self.drop_entry(gone));
        // What is in the list now need not be what was entered: a failure does not replace an operator's entry.
        let Some(current) = current else { return false };
        match serde_json::to_vec(&current) {
            Ok(json) => self.store.keep_entry(&store_key(&current), json),
            Err(error) => self.log.warn(format!("{net}: this entry ends with the gate: {error}")),
        }
        self.feed_entry(&current);
        true
    }

    /// Denies a client that failed a test whose action is `drop`, so that it is not heard again for `duration`.
    pub fn bar(&self, client: Client, duration: Duration) {
        let room = self.enter(Entry {
            net: client.net(),
            kind: Kind::Deny,
            until: Some(unix_now() + duration.as_secs().max(1)),
            reason: "failed a test whose action is drop".into(),
            origin: Origin::Failure,
        });
        if !room {
            self.log.warn(format!("{}: no room to remember its failure: it is screened again", client.net()));
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

    /// Removes entries and records of `net` and everything in it. Returns how many of each.
    pub(super) fn forget(&self, net: IpNet) -> (usize, usize) {
        let entries = self.lists.write().unwrap_or_else(PoisonError::into_inner).remove_within(net);
        entries.iter().for_each(|entry| self.drop_entry(entry));
        let forgotten = self.screen().forget_within(net);
        for &client in &forgotten {
            self.store.forget(client);
            self.unfeed_record(client);
        }
        (entries.len(), forgotten.len())
    }
}

fn store_key(entry: &Entry) -> String {
    let word = match entry.kind {
        Kind::Allow => "allow",
        Kind::Deny => "deny",
    };
    format!("{word} {}", entry.net)
}
