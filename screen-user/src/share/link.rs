//! The link to where hosts meet: tells what this host learns, hears what others have learnt, and answers what is known of a client.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    Histogram, Item, Key, Latency, SHARDS, Shard,
    lane::{Lane, Phase},
    latency::Summary,
    reader::Reader,
    registers::{Knowledge, Registers},
    writer::Writer,
};

/// How long look-ups are left alone after one that took too long: a crowd must not wait for what does not answer.
const LOOK_UP_PAUSE: Duration = Duration::from_secs(1);

/// How long what waits may take to be told at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the parts of a link have in common.
#[derive(Debug)]
pub(super) struct Shared<R, K> {
    pub(super) knowledge: Arc<K>,
    /// What this host is called.
    pub(super) host: Box<str>,
    pub(super) lanes: Vec<(R, Lane)>,
    by_shard: [usize; SHARDS as usize],
    /// How long it takes until a change of another host is in force here, from when it was learnt there, by both clocks.
    pub(super) lag: Latency,
    pub(super) heard: AtomicU64,
    pub(super) told: AtomicU64,
    pub(super) reconciled: AtomicU64,
    look_ups: LookUps,
    /// Whether the operator was told last that all is well; nothing was said at first.
    said: Mutex<Option<bool>>,
}

#[derive(Debug, Default)]
struct LookUps {
    took: Latency,
    timed_out: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
    /// When look-ups may go on, in milliseconds after `began`.
    resume: AtomicU64,
}

/// The link.
#[derive(Debug)]
pub struct Link<R, K> {
    shared: Arc<Shared<R, K>>,
    began: Instant,
    synced: watch::Receiver<usize>,
}

/// How the link does, for `status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LinkStatus {
    /// Whether all registers can be reached.
    pub connected: bool,
    /// Whether this host knows what they say, and they what it knows.
    pub synced: bool,
    /// Why they can't be reached.
    pub failing: Option<String>,
    /// Since how many seconds it is so.
    pub seconds: u64,
    /// Registers that have changed here and were not told yet.
    pub waiting: usize,
    /// Registers that were told and not heard back yet.
    pub unconfirmed: usize,
    /// Changes told since the start.
    pub told: u64,
    /// Changes of others heard since the start.
    pub heard: u64,
    /// How often everything was looked at.
    pub reconciled: u64,
    /// From when another host learnt something until it was in force here, by both clocks.
    pub lag_ms: Option<Summary>,
    /// From when this host learnt something until it heard that back.
    pub echo_ms: Option<Summary>,
    /// What new clients waited for.
    pub lookups: LookUpStatus,
}

/// How look-ups do, for `status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LookUpStatus {
    /// Answered in time.
    pub answered: u64,
    /// Given up at the limit.
    pub timed_out: u64,
    /// Ended with an error.
    pub failed: u64,
    /// Not tried, as the registers could not be reached or did not answer a moment before.
    pub skipped: u64,
    /// How long answers took.
    pub took_ms: Option<Summary>,
    /// The longest that a client has waited, in milliseconds, whether there was an answer or not.
    pub longest_ms: f64,
}

impl<R: Registers, K: Knowledge> Link<R, K> {
    /// Begins to tell and to hear, in tasks of the current runtime, until `stop` says so or its sender is gone.
    pub fn start(lanes: Vec<R>, knowledge: Arc<K>, host: &str, stop: &watch::Sender<bool>) -> Self {
        let mut by_shard = [0; SHARDS as usize];
        for (number, registers) in lanes.iter().enumerate() {
            for shard in registers.shards() {
                if let Some(place) = by_shard.get_mut(shard.index()) {
                    *place = number;
                }
            }
        }
        let lanes: Vec<(R, Lane)> = lanes.into_iter().map(|registers| (registers, Lane::default())).collect();
        let shared = Arc::new(Shared {
            knowledge,
            host: host.into(),
            lanes,
            by_shard,
            lag: Latency::default(),
            heard: AtomicU64::new(0),
            told: AtomicU64::new(0),
            reconciled: AtomicU64::new(0),
            look_ups: LookUps::default(),
            said: Mutex::default(),
        });
        let (first, synced) = watch::channel(0);
        let first = Arc::new(first);
        for number in 0..shared.lanes.len() {
            let reader = Reader::new(Arc::clone(&shared), number, Arc::clone(&first));
            let writer = Writer::new(Arc::clone(&shared), number);
            tokio::spawn(until(stop.subscribe(), reader.run()));
            tokio::spawn(until(stop.subscribe(), writer.run()));
        }
        Self { shared, began: Instant::now(), synced }
    }

    /// Notes that a register has changed here.
    pub fn note(&self, key: Key) {
        if let Some((_, lane)) = self.lane(key.shard()) {
            lane.note(key);
        }
    }

    /// Asks for the state of a register, for at most `limit`. Nothing is known, too, where nobody answers.
    pub async fn look_up(&self, key: &Key, limit: Duration) -> Option<Item> {
        let (registers, lane) = self.lane(key.shard())?;
        let look_ups = &self.shared.look_ups;
        let now = self.began.elapsed();
        if !lane.is_connected() || millis(now) < look_ups.resume.load(Ordering::Relaxed) {
            look_ups.skipped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let asked = Instant::now();
        let answer = timeout(limit, registers.look_up(key)).await;
        match answer {
            Ok(Ok(item)) => {
                look_ups.took.add(asked.elapsed());
                item
            }
            Ok(Err(_)) => {
                look_ups.failed.fetch_add(1, Ordering::Relaxed);
                look_ups.took.note_longest(asked.elapsed());
                None
            }
            Err(_) => {
                look_ups.timed_out.fetch_add(1, Ordering::Relaxed);
                look_ups.took.note_longest(asked.elapsed());
                look_ups.resume.store(millis(self.began.elapsed() + LOOK_UP_PAUSE), Ordering::Relaxed);
                None
            }
        }
    }

    /// Waits until each lane has been reconciled once, or one of them can't be reached.
    pub async fn first_heard(&self) {
        let all = self.shared.lanes.len();
        let away = || self.shared.lanes.iter().any(|(_, lane)| matches!(lane.phase().0, Phase::Away(_)));
        // The sender is gone where the link was stopped.
        let _ = self.synced.clone().wait_for(|synced| *synced >= all || away()).await;
    }

    /// Tells what waits, as far as somebody listens, for a moment at most.
    pub async fn flush(&self) {
        let mut lanes = JoinSet::new();
        for number in 0..self.shared.lanes.len() {
            let writer = Writer::new(Arc::clone(&self.shared), number);
            lanes.spawn(async move { writer.tell_all().await });
        }
        let _ = timeout(LAST_WORDS, lanes.join_all()).await;
    }

    /// How it does.
    #[must_use]
    pub fn status(&self) -> LinkStatus {
        let phases: Vec<(Phase, Duration)> = self.shared.lanes.iter().map(|(_, lane)| lane.phase()).collect();
        let away = phases.iter().find_map(|(phase, since)| match phase {
            Phase::Away(why) => Some((why.clone(), *since)),
            Phase::Beginning => Some(("not connected yet".to_owned(), *since)),
            Phase::Reconciling | Phase::Synced => None,
        });
        let synced = phases.iter().all(|(phase, _)| *phase == Phase::Synced);
        let since = phases.iter().map(|(_, since)| *since).min().unwrap_or_default();
        let (waiting, unconfirmed) = self
            .shared
            .lanes
            .iter()
            .map(|(_, lane)| lane.pending())
            .fold((0, 0), |all, lane| (all.0 + lane.0, all.1 + lane.1));
        let look_ups = &self.shared.look_ups;
        let took = look_ups.took.summary();
        LinkStatus {
            connected: away.is_none(),
            synced,
            seconds: away.as_ref().map_or(since, |(_, since)| *since).as_secs(),
            failing: away.map(|(why, _)| why),
            waiting,
            unconfirmed,
            told: self.shared.told.load(Ordering::Relaxed),
            heard: self.shared.heard.load(Ordering::Relaxed),
            reconciled: self.shared.reconciled.load(Ordering::Relaxed),
            lag_ms: self.shared.lag.summary(),
            echo_ms: Latency::sum(self.shared.lanes.iter().map(|(_, lane)| &lane.echo)),
            lookups: LookUpStatus {
                answered: took.map_or(0, |took| took.count),
                timed_out: look_ups.timed_out.load(Ordering::Relaxed),
                failed: look_ups.failed.load(Ordering::Relaxed),
                skipped: look_ups.skipped.load(Ordering::Relaxed),
                took_ms: took,
                longest_ms: look_ups.took.longest_ms(),
            },
        }
    }

    /// How long it took since the start: until another host's news was in force here, until this host's own came back, and until look-ups
    /// were answered.
    #[must_use]
    pub fn latencies(&self) -> [Histogram; 3] {
        let echo = Latency::histogram(self.shared.lanes.iter().map(|(_, lane)| &lane.echo));
        [Latency::histogram([&self.shared.lag]), echo, Latency::histogram([&self.shared.look_ups.took])]
    }

    fn lane(&self, shard: Shard) -> Option<&(R, Lane)> {
        self.shared.lanes.get(*self.shared.by_shard.get(shard.index())?)
    }
}

impl<R: Registers, K: Knowledge> Shared<R, K> {
    /// Tells the operator, once, how it is with all lanes, after one of them has changed.
    pub(super) fn say(&self) {
        let phases: Vec<Phase> = self.lanes.iter().map(|(_, lane)| lane.phase().0).collect();
        let away = phases.iter().find_map(|phase| match phase {
            Phase::Away(why) => Some(why),
            Phase::Beginning | Phase::Reconciling | Phase::Synced => None,
        });
        let synced = phases.iter().all(|phase| *phase == Phase::Synced);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match away {
            Some(why) if *said != Some(false) => {
                *said = Some(false);
                self.knowledge.say(true, &format!("other hosts are not heard, this one goes on alone: {why}"));
            }
            None if synced && *said != Some(true) => {
                *said = Some(true);
                self.knowledge.say(false, "what other hosts know is known here");
            }
            Some(_) | None => {}
        }
    }

    /// The lane of this number; links make readers and writers for those there are.
    pub(super) fn lane(&self, number: usize) -> Option<&(R, Lane)> {
        self.lanes.get(number)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Runs `work` until it is stopped.
async fn until(mut stop: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}
