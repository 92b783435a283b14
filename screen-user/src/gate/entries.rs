//! Run-time entries: what operators deny, allow and forget, and clients that failed a test with `drop`.

use std::{sync::PoisonError, time::Duration};

use ipnet::IpNet;

use super::{Gate, unix_millis, unix_now};
use crate::{
    access::runtime::{Entry, Inserted, Kind, Offence, Origin, Roll},
    screen::{
        bar::{Bar, Life},
        record::Client,
    },
    share::{HostId, Key, Version},
};

/// How long it is remembered, at least, that a client has failed, after it is let in again.
const REMEMBERED: Duration = Duration::from_hours(24);

/// Most characters of what a client did that are kept.
const EVIDENCE: usize = 200;

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

    /// Adds or replaces an entry, here, in the store and in the kernel. Returns whether it is there now.
    pub(super) fn take_up(&self, entry: &Entry) -> bool {
        let Inserted { taken, evicted } =
            self.lists.write().unwrap_or_else(PoisonError::into_inner).insert(entry.clone());
        evicted.iter().for_each(|gone| self.drop_entry(gone));
        if taken {
            self.keep_entry(entry);
            if entry.is_live(unix_now()) {
                self.feed_entry(entry);
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

    /// Denies a client that failed a test whose action is `drop`, so that it is not heard again for a while.
    pub fn bar(&self, client: Client, bar: &Bar) {
        let (net, now) = (client.net(), unix_now());
        let known = self.lists.read().unwrap_or_else(PoisonError::into_inner).get(Roll::Failure, net).cloned();
        let before = known.as_ref().and_then(|entry| entry.offence).filter(|offence| offence.until > now);
        let failures = before.map_or(0, |offence| offence.failures);
        let cap = self.config.load().kernel.repeat_limit;
        let duration = bar.life.after(failures, cap);
        let live = known.as_ref().is_some_and(|entry| entry.is_live(now));
        let offence = match bar.life {
            Life::Listing(_) => before,
            // Who fails in several sessions at a time has failed once.
            Life::Growing(_) => Some(Offence {
                failures: if live { failures } else { failures.saturating_add(1) },
                until: now.saturating_add(duration.as_secs()).saturating_add(duration.max(REMEMBERED).as_secs()),
            }),
        };
        let evidence: String = bar.evidence.chars().take(EVIDENCE).collect();
        let until = now.saturating_add(duration.as_secs().max(1));
        let room = self.enter(&Entry {
            net,
            kind: Kind::Deny,
            // What it failed before may count for longer.
            until: Some(until.max(known.filter(|_| live).and_then(|entry| entry.until).unwrap_or(0))),
            reason: format!("{}: {evidence}", bar.test),
            origin: Origin::Failure,
            version: self.next_version(),
            host: self.hosts.name(HostId::THIS).to_string(),
            offence,
        });
        if !room {
            self.log.warn(format!("{net}: no room to remember its failure: it is screened again"));
        }
    }

    /// A client that has passed all tests is no repeated offender any more.
    pub(super) fn forgive(&self, client: Client) {
        let net = client.net();
        let known = self.lists.read().unwrap_or_else(PoisonError::into_inner).get(Roll::Failure, net).cloned();
        if let Some(entry) = known
            && let Some(offence) = entry.offence.filter(|offence| offence.failures > 0)
        {
            // Kept as long as the offence would be, so that it reaches all who know of that.
            let offence = Some(Offence { failures: 0, ..offence });
            self.enter(&Entry { offence, version: self.next_version(), ..entry });
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
