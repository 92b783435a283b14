//! A lane: shards that are there or away together, what waits to be told of them, and what is known of their state.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{Key, Latency, Version};

/// Most registers of a lane whose changes wait to be told, or were told and not heard back. Beyond, the lane is reconciled as a whole.
const MOST: usize = 1 << 16;

/// How far a lane is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody has tried yet.
    Beginning,
    /// The registers can't be reached, and why.
    Away(String),
    /// They can; this host and they do not know the same yet.
    Reconciling,
    /// What one knows the other hears.
    Synced,
}

/// A lane, from the side of this host.
#[derive(Debug)]
pub(super) struct Lane {
    queue: Mutex<Queue>,
    /// There is something to tell, or somebody to tell it to.
    pub(super) work: Notify,
    phase: Mutex<(Phase, Instant)>,
    /// What is told is not taken, and that was said.
    refused: AtomicBool,
    /// How long it takes until a change of this host is heard back.
    pub(super) echo: Latency,
    /// Something was left out of the queue: only a look at everything helps.
    owes: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    /// Registers that this host has changed, and since when.
    waiting: HashMap<Key, Instant>,
    /// Those that were told.
    told: HashMap<Key, Told>,
}

/// What was told of a register.
#[derive(Debug, Clone, Copy)]
struct Told {
    version: Version,
    /// Since when it had been waiting.
    since: Instant,
    at: Instant,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            work: Notify::new(),
            phase: Mutex::new((Phase::Beginning, Instant::now())),
            refused: AtomicBool::new(false),
            echo: Latency::default(),
            owes: AtomicBool::new(false),
        }
    }
}

impl Lane {
    /// Notes that a register has changed here. The latest state is told, whatever happens until then.
    pub(super) fn note(&self, key: Key) {
        self.note_since(key, Instant::now());
        self.work.notify_one();
    }

    fn note_since(&self, key: Key, since: Instant) {
        let mut queue = self.queue();
        if queue.waiting.len() >= MOST && !queue.waiting.contains_key(&key) {
            self.owes.store(true, Ordering::Release);
        } else {
            queue.waiting.entry(key).or_insert(since);
        }
    }

    /// Takes out up to `most` registers that wait.
    pub(super) fn take(&self, most: usize) -> Vec<(Key, Instant)> {
        let mut queue = self.queue();
        if queue.waiting.len() <= most {
            return mem::take(&mut queue.waiting).into_iter().collect();
        }
        let keys: Vec<Key> = queue.waiting.keys().take(most).cloned().collect();
        keys.into_iter().filter_map(|key| queue.waiting.remove_entry(&key)).collect()
    }

    /// Puts back what could not be told.
    pub(super) fn put_back(&self, keys: Vec<(Key, Instant)>) {
        keys.into_iter().for_each(|(key, since)| self.note_since(key, since));
    }

    /// Notes what was told, until it is heard back.
    pub(super) fn told(&self, key: Key, version: Version, since: Instant) {
        let mut queue = self.queue();
        if queue.told.len() >= MOST && !queue.told.contains_key(&key) {
            self.owes.store(true, Ordering::Release);
        } else {
            queue.told.insert(key, Told { version, since, at: Instant::now() });
        }
    }

    /// Notes that a register was heard of in this version or a later one.
    pub(super) fn heard(&self, key: &Key, version: Version) {
        let mut queue = self.queue();
        if let Some(&Told { version: told, since, .. }) = queue.told.get(key)
            && told <= version
        {
            queue.told.remove(key);
            drop(queue);
            self.echo.add(since.elapsed());
        }
    }

    /// What was told this long ago or longer, and not heard back, is told again.
    pub(super) fn tell_again(&self, after: Duration) {
        let told: Vec<(Key, Told)> = self.queue().told.extract_if(|_, told| told.at.elapsed() >= after).collect();
        if !told.is_empty() {
            told.into_iter().for_each(|(key, told)| self.note_since(key, told.since));
            self.work.notify_one();
        }
    }

    /// Something was left out that is to be told.
    pub(super) fn owe(&self) {
        self.owes.store(true, Ordering::Release);
    }

    /// A look at everything begins: nothing is owed, and what was told until `before` counts as heard.
    pub(super) fn settle(&self, before: Instant) {
        self.queue().told.retain(|_, told| told.since > before);
        self.owes.store(false, Ordering::Release);
    }

    /// Notes whether what is told is taken, and returns whether that is news.
    pub(super) fn refuses(&self, refused: bool) -> bool {
        self.refused.swap(refused, Ordering::AcqRel) != refused
    }

    /// Whether only a look at everything brings this lane together again.
    pub(super) fn owes(&self) -> bool {
        self.owes.load(Ordering::Acquire)
    }

    /// How many registers wait, and how many were told and not heard back.
    pub(super) fn pending(&self) -> (usize, usize) {
        let queue = self.queue();
        (queue.waiting.len(), queue.told.len())
    }

    /// How far it is, and for how long.
    pub(super) fn phase(&self) -> (Phase, Duration) {
        let phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        (phase.0.clone(), phase.1.elapsed())
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.phase.lock().unwrap_or_else(PoisonError::into_inner).0, Phase::Reconciling | Phase::Synced)
    }

    /// Goes on to a phase, and returns the one before.
    pub(super) fn enter(&self, phase: Phase) -> Phase {
        let mut current = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let same = mem::discriminant(&current.0) == mem::discriminant(&phase);
        let since = if same { current.1 } else { Instant::now() };
        mem::replace(&mut *current, (phase, since)).0
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole between any two statements that change it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which registers were seen, by hashes: what is taken for another one is told when it changes.
#[derive(Debug, Default)]
pub(super) struct Seen {
    hasher: std::hash::RandomState,
    hashes: HashSet<u64>,
}

impl Seen {
    pub(super) fn add(&mut self, key: &Key) {
        use std::hash::BuildHasher as _;
        self.hashes.insert(self.hasher.hash_one(key));
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        use std::hash::BuildHasher as _;
        self.hashes.contains(&self.hasher.hash_one(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        Key::Forget(std::net::IpAddr::from(number.to_be_bytes()).into())
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_and_not_heard_back_is_told_again() {
        let lane = Lane::default();
        lane.note(key(1));
        lane.note(key(1));
        let taken = lane.take(10);
        assert_eq!(taken.len(), 1, "a register waits once");
        let since = taken[0].1;
        lane.told(key(1), Version(5), since);
        lane.heard(&key(1), Version(4));
        assert_eq!(lane.pending(), (0, 1), "that was an earlier state");
        lane.tell_again(Duration::from_secs(1));
        assert_eq!(lane.pending(), (0, 1), "it may still come");
        tokio::time::advance(Duration::from_secs(1)).await;
        lane.tell_again(Duration::from_secs(1));
        assert_eq!(lane.take(10), taken);
        lane.told(key(1), Version(5), since);
        lane.heard(&key(1), Version(6));
        assert_eq!((lane.pending(), lane.echo.summary().unwrap().count), ((0, 0), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_has_a_bound_beyond_which_everything_is_owed() {
        let lane = Lane::default();
        (0..MOST as u32).for_each(|number| lane.note(key(number)));
        assert!(!lane.owes());
        lane.note(key(0));
        assert!(!lane.owes(), "it waits already");
        lane.note(key(MOST as u32));
        assert_eq!((lane.owes(), lane.pending()), (true, (MOST, 0)));
        assert_eq!((lane.take(100).len(), lane.pending().0), (100, MOST - 100));
        lane.settle(Instant::now());
        assert!(!lane.owes());
    }

    #[tokio::test(start_paused = true)]
    async fn a_phase_has_an_age() {
        let lane = Lane::default();
        assert_eq!(lane.enter(Phase::Away("a reason".to_owned())), Phase::Beginning);
        tokio::time::advance(Duration::from_secs(5)).await;
        lane.enter(Phase::Away("another reason".to_owned()));
        assert_eq!(lane.phase().1, Duration::from_secs(5));
        assert_eq!(lane.enter(Phase::Synced), Phase::Away("another reason".to_owned()));
        assert_eq!((lane.phase(), lane.is_connected()), ((Phase::Synced, Duration::ZERO), true));
    }
}
