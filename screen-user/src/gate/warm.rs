//! The warm start: what is known of clients is taken up while they are served, as unknown ones until then.
//!
//! Lists and run-time entries are in force before: nobody who is denied gets in by it. After a former gate the passes that it has
//! given are in the kernel's table from the start.
//!
//! What other hosts know goes to RAM and to the kernel at once, and to the store after the gate is ready: a file is slower than Redis by
//! far, and whoever is stopped before hears the same again.

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Gate, Phase, feed::BATCH, unix_now};
use crate::{
    cache::{Kept, Store, StoreStatus},
    screen::{
        DEFAULT_RECORD_CAPACITY, Screen,
        record::{Client, Record},
    },
};

/// How long the mail servers may take to say what they announce before the gate is ready.
const SURVEY_LIMIT: Duration = Duration::from_secs(2);

/// How long the gate may take to learn what other hosts know before it is ready without that.
const SYNC_LIMIT: Duration = Duration::from_secs(30);

/// How far the start has come.
#[derive(Debug)]
pub(super) struct Warming {
    /// Records that have been taken up so far, until all are.
    taken_up: Option<u64>,
    /// Clients whose records the store lacks, as many as RAM has room for: the others are asked for again when they come.
    owed: Vec<Client>,
}

impl Default for Warming {
    fn default() -> Self {
        Self { taken_up: Some(0), owed: Vec::new() }
    }
}

impl Gate {
    /// Makes the gate ready, and says so when everything is in. Ends early when the gate does.
    pub(super) async fn warm_up(self: Arc<Self>, kept: Kept) {
        // The first clients are to be promised what the mail servers keep; those that do not answer at once are not waited for.
        let config = self.config.load_full();
        let survey = self.while_running(tokio::time::timeout(SURVEY_LIMIT, self.survey_once(&config)));
        let (_, complete) = tokio::join!(survey, self.take_up_all(kept));
        if !complete {
            return;
        }
        // Other hosts are told of what is known here, so that has to be in.
        let config = self.config.load_full();
        self.begin_sharing(&config.cache, &config.resolver);
        tokio::spawn(Arc::clone(&self).survey());
        if self.while_running(self.hear_others()).await.is_none() {
            return;
        }
        self.warming().taken_up = None;
        let keeper = self.keeper.clone();
        // A keeper that is gone tells nobody.
        let _ = tokio::task::spawn_blocking(move || keeper.ready()).await;
        self.log.info("ready");
        let _ = tokio::task::spawn_blocking(move || self.store_owed()).await;
    }

    fn warming(&self) -> MutexGuard<'_, Warming> {
        self.warming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many records have been taken up so far; `None` when the gate is ready.
    pub(super) fn loading(&self) -> Option<u64> {
        self.warming().taken_up
    }

    /// How the store does, with what it is owed.
    pub(super) fn store_status(&self) -> StoreStatus {
        // In this order: what is stored between the two is counted twice, and not left out.
        let owed = self.warming().owed.len();
        let mut status = self.store.status();
        status.pending += owed;
        status
    }

    /// Has the store keep what another host has found of a client; during the start, afterwards. The caller holds the screen, so that
    /// what a session learns next comes later.
    pub(super) fn store_heard(&self, client: Client, record: Record) {
        let mut warming = self.warming();
        if warming.taken_up.is_none() {
            self.store.remember(client, record);
        } else if warming.owed.len() < DEFAULT_RECORD_CAPACITY {
            warming.owed.push(client);
        }
    }

    /// Has the store keep what it is owed, as fast as its file takes it. Blocks.
    fn store_owed(&self) {
        while *self.phase.borrow() == Phase::Running {
            self.store.make_room(BATCH);
            let screen = self.screen();
            let mut warming = self.warming();
            let rest = warming.owed.len().saturating_sub(BATCH);
            let some = warming.owed.split_off(rest);
            if some.is_empty() {
                warming.owed = Vec::new();
                return;
            }
            for client in some {
                // One that is gone by now has left the store as well.
                if let Some(record) = screen.record(client) {
                    self.store.remember(client, record);
                }
            }
        }
    }

    /// What `work` gives, unless the gate stops before.
    async fn while_running<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut phase = self.phase.subscribe();
        tokio::select! {
            given = work => Some(given),
            // It can't fail: the other end of the channel is the gate's own.
            _ = phase.wait_for(|phase| *phase != Phase::Running) => None,
        }
    }

    /// Waits until what other hosts know is known here, if they can be heard.
    async fn hear_others(&self) {
        let Some(link) = self.link.get() else { return };
        // The link itself says why others are not heard.
        if tokio::time::timeout(SYNC_LIMIT, link.first_heard()).await.is_err() {
            self.log.warn("what other hosts know is still on its way, and is not waited for any longer");
        }
    }

    /// Takes up what the last run has learnt. Returns whether that was all, and not the gate's end.
    async fn take_up_all(self: &Arc<Self>, mut kept: Kept) -> bool {
        while let Some(part) = self.while_running(kept.next()).await {
            match part {
                Some(Ok(records)) => {
                    let gate = Arc::clone(self);
                    // The work of some milliseconds, in which sessions would have to wait. A panic in it costs this batch.
                    let _ = tokio::task::spawn_blocking(move || gate.take_up_records(&records)).await;
                }
                Some(Err(complaint)) => self.notice(format!("the cache file: {complaint}")),
                None => return true,
            }
        }
        false
    }

    /// Takes up records from the store. What was learnt since the start stays.
    fn take_up_records(&self, records: &[(Client, Record)]) {
        let known = take_up(&mut self.screen(), &self.store, records, unix_now());
        self.feed_records(&known);
        if let Some(count) = self.warming().taken_up.as_mut() {
            *count += records.len() as u64;
        }
    }
}

/// Has `screen` know `records` as well, and `store` keep what differs from them then. Returns what is known of their clients.
fn take_up(screen: &mut Screen, store: &Store, records: &[(Client, Record)], now: u64) -> Vec<(Client, Record)> {
    let one = |&(client, kept): &(Client, Record)| {
        let met = screen.record(client).is_some();
        screen.restore([(client, kept)], now);
        let known = screen.record(client).unwrap_or_default();
        // While the screen is locked: what a session learns next is queued after this.
        if known.is_empty() {
            store.forget(client);
        } else if met || known != kept {
            // The session that met it has put less in the place of what was kept.
            store.remember(client, known);
        }
        (client, known)
    };
    records.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::tempdir;

    use super::*;
    use crate::{
        cache::{Opened, StateFile},
        config,
        screen::record::{Finding, Grounds, Stamp, Test},
        share::{HostId, Hosts, Version},
    };

    /// What was learnt of `test` at a second of Unix time: it is passed for an hour.
    fn learnt(test: Test, at: u64) -> Record {
        let mut record = Record::default();
        let finding = Finding { version: Version::at(at * 1000), stamp: Stamp(at + 3_600), grounds: Grounds::Taken };
        record.set(test, finding, HostId::THIS);
        record
    }

    async fn all(opened: &mut Opened) -> Vec<(Client, Record)> {
        let mut records = Vec::new();
        while let Some(part) = opened.records.next().await {
            records.extend(part.unwrap());
        }
        records.sort_by_key(|(client, _)| *client);
        records
    }

    #[tokio::test]
    async fn what_was_learnt_since_the_start_stays_and_what_was_forgotten_stays_so() {
        let text = "layout = \"front\"\nforward.to = [\"192.0.2.25:25\"]";
        let config = config::load_text(text, Path::new("x.toml"), &[]).unwrap().config;
        let directory = tempdir().unwrap();
        let open = || Store::open(&config.cache, StateFile::within(directory.path()), Arc::new(Hosts::new("mx1")));
        let client = |host: u8| Client { address: [192, 0, 2, host].into(), prefix_len: 32 };
        let now = unix_now();
        let kept = learnt(Test::Pregreet, now - 60);
        let [untouched, seen_again, seen_by_a_late_clock, forgotten] = [1, 2, 3, 4].map(client);
        let opened = open();
        for client in [untouched, seen_again, seen_by_a_late_clock, forgotten] {
            opened.store.remember(client, kept);
        }
        drop(opened);

        let mut opened = open();
        let records = all(&mut opened).await;
        assert_eq!(records.len(), 4);
        let mut screen = Screen::new(config.policy.clone());
        let later = learnt(Test::BareNewline, now);
        for (client, record) in [(seen_again, later), (seen_by_a_late_clock, learnt(Test::Pregreet, now - 90))] {
            screen.learn(client, &record);
            opened.store.remember(client, record);
        }
        screen.forget(forgotten.net(), Version::at(now * 1000));
        opened.store.flush();

        let known = take_up(&mut screen, &opened.store, &records, now);
        let mut both = kept;
        both.merge(&later);
        let expected = [(untouched, kept), (seen_again, both), (seen_by_a_late_clock, kept)];
        assert_eq!(known[..3], expected);
        assert!(known[3].1.is_empty());
        assert_eq!(opened.store.status().pending, 3, "what the file says already is not written again");
        let mut remembered = screen.records();
        remembered.sort_by_key(|(client, _)| *client);
        assert_eq!(remembered, expected);
        drop(opened);
        assert_eq!(all(&mut open()).await, expected, "the next start finds the same");
    }
}
