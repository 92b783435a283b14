//! Tells what this host has learnt.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::sleep;

use super::{
    Item, Key,
    link::Shared,
    registers::{Fault, Knowledge, Merged, Registers},
};

/// Registers that are told in one step.
const BATCH: usize = 512;

/// How long to wait before what could not be told is tried again; hearing from the registers ends the wait.
const PAUSE: Duration = Duration::from_secs(1);

/// What tells a lane.
pub(super) struct Writer<R, K> {
    shared: Arc<Shared<R, K>>,
    number: usize,
}

impl<R: Registers, K: Knowledge> Writer<R, K> {
    pub(super) fn new(shared: Arc<Shared<R, K>>, number: usize) -> Self {
        Self { shared, number }
    }

    /// Tells whatever comes.
    pub(super) async fn run(self) {
        let Some((_, lane)) = self.shared.lane(self.number) else { return };
        loop {
            lane.work.notified().await;
            while let Err(fault) = self.tell_all().await {
                self.complain(&fault);
                tokio::select! {
                    () = sleep(PAUSE) => {}
                    () = lane.work.notified() => {}
                }
            }
        }
    }

    /// Tells what waits.
    pub(super) async fn tell_all(&self) -> Result<(), Fault> {
        let Some((registers, lane)) = self.shared.lane(self.number) else { return Ok(()) };
        loop {
            let taken = lane.take(BATCH);
            if taken.is_empty() {
                return Ok(());
            }
            let mut items: Vec<(Key, Item)> = Vec::with_capacity(taken.len());
            for (key, since) in &taken {
                // What this host has forgotten meanwhile, it has nothing to say of.
                if let Some(item) = self.shared.knowledge.item(key) {
                    lane.told(key.clone(), item.version(), *since);
                    items.push((key.clone(), item));
                }
            }
            match registers.merge(&items).await {
                Ok(merged) => {
                    if merged.contains(&Merged::Unbelieved) {
                        self.complain(&Fault("this host's clock is more than a day ahead of Redis's".to_owned()));
                    } else if lane.refuses(false) {
                        self.shared.knowledge.say(false, "what is learnt here is told to other hosts again");
                    }
                    self.shared.told.fetch_add(items.len() as u64, Ordering::Relaxed);
                    // What was known already is announced to nobody.
                    let known = items.iter().zip(merged).filter(|(_, merged)| *merged != Merged::Changed);
                    known.for_each(|((key, item), _)| lane.heard(key, item.version()));
                }
                Err(fault) => {
                    lane.put_back(taken);
                    return Err(fault);
                }
            }
        }
    }

    /// The reader knows whether the registers are there; that they take nothing is news if they are.
    fn complain(&self, fault: &Fault) {
        let Some((_, lane)) = self.shared.lane(self.number) else { return };
        if lane.is_connected() && lane.refuses(true) {
            self.shared.knowledge.say(true, &format!("what is learnt here is not told to other hosts: {fault}"));
        }
    }
}
