//! Hears what others have learnt, and sees to it that nothing was missed.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    Item, Key,
    lane::{Phase, Seen},
    link::Shared,
    registers::{Announced, Fault, Knowledge, Learnt, News, Places, Registers},
};

/// The first and the longest wait before registers that can't be reached are tried again.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(3)];

/// How long after a look at everything the next one may follow, if all that was owed could not be told.
const OWED_PAUSE: Duration = Duration::from_secs(30);

/// How long after something was told it should have been heard back.
const ECHO_LIMIT: Duration = Duration::from_secs(10);

/// Registers that are told in one step.
const BATCH: usize = 512;

/// What hears a lane.
pub(super) struct Reader<R, K> {
    shared: Arc<Shared<R, K>>,
    number: usize,
    /// Counts lanes that were reconciled once.
    first: Arc<watch::Sender<usize>>,
    /// When everything was last looked at.
    looked: Option<Instant>,
}

impl<R: Registers, K: Knowledge> Reader<R, K> {
    pub(super) fn new(shared: Arc<Shared<R, K>>, number: usize, first: Arc<watch::Sender<usize>>) -> Self {
        Self { shared, number, first, looked: None }
    }

    /// Hears whatever comes.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let Some((registers, lane)) = shared.lane(self.number) else { return };
        let [mut pause, longest] = PAUSES;
        let mut places: Option<Places> = None;
        let mut before = false;
        loop {
            match self.step(registers, &mut places).await {
                Ok(()) => {
                    pause = PAUSES[0];
                    if !before && lane.phase().0 == Phase::Synced {
                        before = true;
                        self.first.send_modify(|lanes| *lanes += 1);
                    }
                }
                Err(fault) => {
                    lane.enter(Phase::Away(fault.0));
                    // Whoever waits for this lane need not.
                    self.first.send_modify(|_| {});
                    shared.say();
                    sleep(pause).await;
                    pause = (pause * 2).min(longest);
                }
            }
        }
    }

    /// Hears the next news, or looks at everything where nobody knows what was missed.
    async fn step(&mut self, registers: &R, places: &mut Option<Places>) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let Some((_, lane)) = shared.lane(self.number) else { return Ok(()) };
        let owed = lane.owes() && self.looked.is_none_or(|looked| looked.elapsed() >= OWED_PAUSE);
        let Some(from) = places.as_ref().filter(|_| !owed) else {
            let ends = registers.ends().await?;
            self.enter(&Phase::Reconciling);
            self.looked = Some(Instant::now());
            self.reconcile(registers).await?;
            *places = Some(ends);
            self.enter(&Phase::Synced);
            return Ok(());
        };
        match registers.news(from).await? {
            News::Heard(announced, next) => {
                let returned = self.enter(&Phase::Synced);
                self.hear(registers, announced).await?;
                *places = Some(next);
                // A replica that took over may not have heard what its master was told last.
                lane.tell_again(if returned { Duration::ZERO } else { ECHO_LIMIT });
            }
            News::Gap => *places = None,
        }
        Ok(())
    }

    /// Goes on to a phase, and returns whether the registers were away until now.
    fn enter(&self, phase: &Phase) -> bool {
        let Some((_, lane)) = self.shared.lane(self.number) else { return false };
        let before = lane.enter(phase.clone());
        let returned = matches!(before, Phase::Away(_));
        if returned {
            lane.work.notify_one();
        }
        if before != *phase {
            self.shared.say();
        }
        returned
    }

    /// Takes over what was announced.
    async fn hear(&self, registers: &R, announced: Vec<Announced>) -> Result<(), Fault> {
        let Some((_, lane)) = self.shared.lane(self.number) else { return Ok(()) };
        let mut items: Vec<(Key, Item)> = Vec::with_capacity(announced.len());
        for Announced { key, item } in announced {
            let item = match item {
                Some(item) => Some(item),
                // It was too long to be announced with its state.
                None => registers.fetch(std::slice::from_ref(&key)).await?.pop().flatten(),
            };
            items.extend(item.map(|item| (key, item)));
        }
        let own = |item: &(Key, Item)| item.1.host == self.shared.host;
        let sent: Vec<u64> =
            items.iter().filter(|item| !own(item)).map(|(_, item)| item.version().unix_millis()).collect();
        items.iter().for_each(|(key, item)| lane.heard(key, item.version()));
        self.learn(items).await;
        self.shared.heard.fetch_add(sent.len() as u64, Ordering::Relaxed);
        let now = self.shared.knowledge.unix_millis();
        sent.iter().for_each(|sent| self.shared.lag.add(Duration::from_millis(now.saturating_sub(*sent))));
        Ok(())
    }

    /// Has this host know what the registers say, and them what this host knows better.
    async fn reconcile(&self, registers: &R) -> Result<(), Fault> {
        let Some((_, lane)) = self.shared.lane(self.number) else { return Ok(()) };
        lane.settle(Instant::now());
        let mut seen = Seen::default();
        let (listed, mut to_fetch) = mpsc::channel::<Vec<Key>>(1);
        let (fetched, mut to_compare) = mpsc::channel::<Vec<(Key, Item)>>(1);
        // While one page is learnt, the states of the next one are on their way, and the keys of the one after: none waits for another.
        let list = async move {
            let mut from = None;
            loop {
                let page = registers.keys(from.as_deref()).await?;
                from = page.next;
                if listed.send(page.keys).await.is_err() || from.is_none() {
                    return Ok(());
                }
            }
        };
        let fetch = async move {
            while let Some(keys) = to_fetch.recv().await {
                let states = registers.fetch(&keys).await?;
                let items = keys.into_iter().zip(states).filter_map(|(key, item)| Some((key, item?))).collect();
                if fetched.send(items).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        let compare = async {
            while let Some(items) = to_compare.recv().await {
                self.compare(registers, items, &mut seen).await;
            }
            Ok(())
        };
        tokio::try_join!(list, fetch, compare)?;
        let shards = registers.shards().to_vec();
        let knowledge = Arc::clone(&self.shared.knowledge);
        let missing = move || knowledge.keys(&|key| !seen.has(key) && shards.contains(&key.shard()));
        let missing = tokio::task::spawn_blocking(missing).await.unwrap_or_default();
        for keys in missing.chunks(BATCH) {
            self.tell(registers, keys.to_vec()).await;
        }
        self.shared.reconciled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes over states of registers, and tells where this host knows better.
    async fn compare(&self, registers: &R, items: Vec<(Key, Item)>, seen: &mut Seen) {
        let keys: Vec<Key> = items.iter().map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| seen.add(key));
        let learnt = self.learn(items).await;
        let better = keys.into_iter().zip(learnt).filter_map(|(key, learnt)| learnt.knows_better.then_some(key));
        for keys in better.collect::<Vec<Key>>().chunks(BATCH) {
            self.tell(registers, keys.to_vec()).await;
        }
    }

    /// Tells what this host knows better. Registers that take nothing can be heard all the same.
    async fn tell(&self, registers: &R, keys: Vec<Key>) {
        let Some((_, lane)) = self.shared.lane(self.number) else { return };
        if lane.owes() {
            return;
        }
        let items: Vec<(Key, Item)> =
            keys.into_iter().filter_map(|key| self.shared.knowledge.item(&key).map(|item| (key, item))).collect();
        if items.is_empty() {
            return;
        }
        match registers.merge(&items).await {
            Ok(_) => drop(self.shared.told.fetch_add(items.len() as u64, Ordering::Relaxed)),
            Err(fault) => {
                lane.owe();
                if lane.refuses(true) {
                    self.shared
                        .knowledge
                        .say(true, &format!("what is learnt here is not told to other hosts: {fault}"));
                }
            }
        }
    }

    async fn learn(&self, items: Vec<(Key, Item)>) -> Vec<Learnt> {
        if items.is_empty() {
            return Vec::new();
        }
        let knowledge = Arc::clone(&self.shared.knowledge);
        // The kernel's tables are written meanwhile; a list may take a second.
        tokio::task::spawn_blocking(move || knowledge.learn(&items)).await.unwrap_or_default()
    }
}
