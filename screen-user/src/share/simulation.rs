//! A cluster of hosts in one process, with a clock of its own: what links do when the place where they meet is slow, full, cut off,
//! empty, or falls back to what a replica has.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use proptest::prelude::*;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::*;

/// A change as it was announced. The tag tells it from another one that took its place in a history that was lost.
#[derive(Debug, Clone)]
struct Change {
    tag: u64,
    key: Key,
    item: Item,
}

/// A shard: everything that was ever announced, the latter part of which can still be read.
#[derive(Debug, Default)]
struct Shelf {
    changes: Vec<Change>,
    readable_from: usize,
}

impl Shelf {
    /// The registers are what all changes make them.
    fn registers(&self) -> BTreeMap<Key, Item> {
        self.changes.iter().map(|change| (change.key.clone(), change.item.clone())).collect()
    }

    fn place(&self, index: usize) -> Place {
        format!("{index}-{}", self.changes[index].tag).into()
    }

    fn find(&self, place: &str) -> Option<usize> {
        let (index, tag) = place.split_once('-')?;
        let (index, tag): (usize, u64) = (index.parse().unwrap(), tag.parse().unwrap());
        let change = self.changes.get(index)?;
        (index >= self.readable_from && change.tag == tag).then_some(index)
    }
}

/// Where the hosts meet.
#[derive(Debug)]
struct Meeting {
    shelves: Mutex<Vec<Shelf>>,
    news: Notify,
    tags: AtomicU64,
    full: AtomicBool,
}

impl Meeting {
    fn new() -> Arc<Self> {
        let shelves = Shard::all().map(|_| Shelf::default()).collect();
        let (news, tags, full) = (Notify::new(), AtomicU64::new(1), AtomicBool::new(false));
        Arc::new(Self { shelves: Mutex::new(shelves), news, tags, full })
    }

    fn shelves(&self) -> MutexGuard<'_, Vec<Shelf>> {
        self.shelves.lock().unwrap()
    }

    fn merge(&self, key: &Key, item: &Item) -> bool {
        let mut shelves = self.shelves();
        let shelf = &mut shelves[key.shard().index()];
        let known = shelf.changes.iter().rev().find(|change| change.key == *key);
        let mut state = known.map_or_else(Item::default, |change| change.item.clone());
        let changed = state.merge(item);
        if changed {
            self.append(shelf, key, state);
        }
        changed
    }

    fn append(&self, shelf: &mut Shelf, key: &Key, item: Item) {
        shelf.changes.push(Change { tag: self.tags.fetch_add(1, Ordering::Relaxed), key: key.clone(), item });
    }

    /// A replica takes over that had not heard of the last changes.
    fn fall_back(&self, shard: usize, changes: usize) {
        let shelf = &mut self.shelves()[shard];
        let left = shelf.changes.len().saturating_sub(changes);
        shelf.changes.truncate(left);
        shelf.readable_from = shelf.readable_from.min(left);
    }

    fn lose_everything(&self) {
        self.shelves().iter_mut().for_each(|shelf| *shelf = Shelf::default());
    }

    fn trim(&self) {
        self.shelves().iter_mut().for_each(|shelf| shelf.readable_from = shelf.changes.len());
    }

    fn total(&self) -> BTreeMap<Key, Item> {
        self.shelves().iter().flat_map(Shelf::registers).filter(|(key, _)| *key != mark()).collect()
    }
}

/// Stands for the first announcement of a shard, which is about nothing.
fn mark() -> Key {
    Key::List("".into())
}

/// A host's way to the meeting.
#[derive(Debug)]
struct Road {
    shards: Vec<Shard>,
    meeting: Arc<Meeting>,
    state: Arc<RoadState>,
}

#[derive(Debug, Default)]
struct RoadState {
    cut: AtomicBool,
    /// Milliseconds that each step takes.
    slow: AtomicU64,
}

impl Road {
    async fn travel(&self) -> Result<(), Fault> {
        sleep(Duration::from_millis(self.state.slow.load(Ordering::Relaxed))).await;
        if self.state.cut.load(Ordering::Relaxed) {
            // As it is with packets that are lost.
            sleep(Duration::from_secs(2)).await;
            return Err(Fault("timed out".to_owned()));
        }
        Ok(())
    }
}

impl Registers for Road {
    fn shards(&self) -> &[Shard] {
        &self.shards
    }

    async fn merge(&self, items: &[(Key, Item)]) -> Result<Vec<Merged>, Fault> {
        self.travel().await?;
        if self.meeting.full.load(Ordering::Relaxed) {
            return Err(Fault("OOM".to_owned()));
        }
        let one = |(key, item): &(Key, Item)| {
            if self.meeting.merge(key, item) { Merged::Changed } else { Merged::Known }
        };
        let merged = items.iter().map(one).collect();
        self.meeting.news.notify_waiters();
        // The answer may get lost, whatever became of the question.
        self.travel().await?;
        Ok(merged)
    }

    async fn ends(&self) -> Result<Places, Fault> {
        self.travel().await?;
        let mut shelves = self.meeting.shelves();
        let mut ends = Places::new();
        for &shard in &self.shards {
            let shelf = &mut shelves[shard.index()];
            if shelf.changes.len() == shelf.readable_from {
                self.meeting.append(shelf, &mark(), Item::default());
            }
            ends.insert(shard, shelf.place(shelf.changes.len() - 1));
        }
        Ok(ends)
    }

    async fn news(&self, places: &Places) -> Result<News, Fault> {
        self.travel().await?;
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            let notified = self.meeting.news.notified();
            {
                let shelves = self.meeting.shelves();
                let mut next = places.clone();
                let mut heard = Vec::new();
                for (shard, place) in places {
                    let shelf = &shelves[shard.index()];
                    let Some(index) = shelf.find(place) else { return Ok(News::Gap) };
                    for index in (index + 1)..shelf.changes.len() {
                        let Change { key, item, .. } = &shelf.changes[index];
                        if *key != mark() {
                            heard.push(Announced { key: key.clone(), item: (index % 5 > 0).then(|| item.clone()) });
                        }
                        next.insert(*shard, shelf.place(index));
                    }
                }
                if next != *places || Instant::now() >= deadline {
                    return Ok(News::Heard(heard, next));
                }
            }
            let _ = tokio::time::timeout_at(deadline, notified).await;
            if self.state.cut.load(Ordering::Relaxed) {
                return Err(Fault("timed out".to_owned()));
            }
        }
    }

    async fn keys(&self, from: Option<&str>) -> Result<Page, Fault> {
        self.travel().await?;
        let from = from.map_or(0, |from| from.parse::<usize>().unwrap());
        let all: Vec<Key> = {
            let shelves = self.meeting.shelves();
            self.shards.iter().flat_map(|shard| shelves[shard.index()].registers().into_keys()).collect()
        };
        let keys: Vec<Key> = all.iter().filter(|key| **key != mark()).skip(from).take(7).cloned().collect();
        let next = (keys.len() == 7).then(|| (from + 7).to_string().into());
        Ok(Page { keys, next })
    }

    async fn fetch(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, Fault> {
        self.travel().await?;
        let shelves = self.meeting.shelves();
        Ok(keys.iter().map(|key| shelves[key.shard().index()].registers().remove(key)).collect())
    }

    async fn look_up(&self, key: &Key) -> Result<Option<Item>, Fault> {
        Ok(self.fetch(std::slice::from_ref(key)).await?.pop().flatten())
    }
}

/// What a host knows, as bare registers.
#[derive(Debug, Default)]
struct Memory(Mutex<BTreeMap<Key, Item>>);

impl Knowledge for Memory {
    fn learn(&self, items: &[(Key, Item)]) -> Vec<Learnt> {
        let mut known = self.0.lock().unwrap();
        let one = |(key, item): &(Key, Item)| {
            let ours = known.entry(key.clone()).or_default();
            ours.merge(item);
            Learnt { knows_better: item.is_behind(ours) }
        };
        items.iter().map(one).collect()
    }

    fn item(&self, key: &Key) -> Option<Item> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn keys(&self, wanted: &dyn Fn(&Key) -> bool) -> Vec<Key> {
        self.0.lock().unwrap().keys().filter(|key| wanted(key)).cloned().collect()
    }

    fn unix_millis(&self) -> u64 {
        0
    }

    fn say(&self, _trouble: bool, _text: &str) {}
}

struct Host {
    memory: Arc<Memory>,
    link: Link<Road, Memory>,
    road: Arc<RoadState>,
}

impl Host {
    fn learns(&self, key: &Key, item: &Item) {
        self.memory.learn(&[(key.clone(), item.clone())]);
        self.link.note(key.clone());
    }

    fn knows(&self) -> BTreeMap<Key, Item> {
        self.memory.0.lock().unwrap().clone()
    }
}

/// Hosts that meet, and what they have ever learnt.
struct Cluster {
    meeting: Arc<Meeting>,
    hosts: Vec<Host>,
    learnt: BTreeMap<Key, Item>,
    stop: watch::Sender<bool>,
}

impl Cluster {
    fn new(hosts: usize, lanes: usize) -> Self {
        let meeting = Meeting::new();
        let stop = watch::Sender::new(false);
        let host = |number: usize| {
            let (memory, road) = (Arc::new(Memory::default()), Arc::new(RoadState::default()));
            let all: Vec<Shard> = Shard::all().collect();
            let roads = all.chunks(all.len() / lanes).map(|shards| Road {
                shards: shards.to_vec(),
                meeting: Arc::clone(&meeting),
                state: Arc::clone(&road),
            });
            let link = Link::start(roads.collect(), Arc::clone(&memory), &format!("mx{number}"), &stop);
            Host { memory, link, road }
        };
        let hosts = (0..hosts).map(host).collect();
        Self { meeting, hosts, learnt: BTreeMap::new(), stop }
    }

    fn learns(&mut self, host: usize, key: &Key, item: &Item) {
        let host = host % self.hosts.len();
        self.learnt.entry(key.clone()).or_default().merge(item);
        self.hosts[host].learns(key, item);
    }

    /// Mends everything, and waits until all know the same.
    async fn comes_together(&self) {
        self.meeting.full.store(false, Ordering::Relaxed);
        for host in &self.hosts {
            host.road.cut.store(false, Ordering::Relaxed);
            host.road.slow.store(0, Ordering::Relaxed);
        }
        let expected = cells(&self.learnt);
        let together = async {
            loop {
                let all = self.hosts.iter().all(|host| cells(&host.knows()) == expected);
                if all && cells(&self.meeting.total()) == expected {
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
        };
        let limit = Duration::from_secs(120);
        let apart = |host: &Host| cells(&host.knows()) != expected;
        if timeout(limit, together).await.is_err() {
            let apart: Vec<usize> = (0..self.hosts.len()).filter(|&number| apart(&self.hosts[number])).collect();
            let status = self.hosts[apart.first().copied().unwrap_or(0)].link.status();
            panic!("after two minutes these hosts know something else: {apart:?}, {status:?}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Who is named as the host is of no account.
fn cells(known: &BTreeMap<Key, Item>) -> BTreeMap<Key, Vec<Cell>> {
    known.iter().map(|(key, item)| (key.clone(), item.cells.clone())).collect()
}

fn key(number: u8) -> Key {
    Key::Forget(std::net::IpAddr::from([192, 0, 2, number]).into())
}

#[derive(Debug, Clone)]
enum Step {
    Learn(usize, u8, Item),
    Cut(usize, bool),
    Slow(usize, u64),
    Full(bool),
    FallBack(usize, usize),
    LoseEverything,
    Trim,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (any::<usize>(), 0..20_u8, item::tests::any_item()).prop_map(|(host, key, item)| Step::Learn(host, key, item)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(host, cut)| Step::Cut(host, cut)),
        1 => (any::<usize>(), 0..3000_u64).prop_map(|(host, millis)| Step::Slow(host, millis)),
        1 => any::<bool>().prop_map(Step::Full),
        2 => (0..usize::from(SHARDS), 1..4_usize).prop_map(|(shard, changes)| Step::FallBack(shard, changes)),
        1 => Just(Step::LoseEverything),
        1 => Just(Step::Trim),
        6 => (0..4000_u64).prop_map(Step::Wait),
    ]
}

async fn play(cluster: &mut Cluster, steps: Vec<Step>) {
    for step in steps {
        let of = |number: usize| &cluster.hosts[number % cluster.hosts.len()].road;
        match step {
            Step::Learn(host, number, item) => cluster.learns(host, &key(number), &item),
            Step::Cut(host, cut) => of(host).cut.store(cut, Ordering::Relaxed),
            Step::Slow(host, millis) => of(host).slow.store(millis, Ordering::Relaxed),
            Step::Full(full) => cluster.meeting.full.store(full, Ordering::Relaxed),
            Step::FallBack(shard, changes) => cluster.meeting.fall_back(shard, changes),
            Step::LoseEverything => cluster.meeting.lose_everything(),
            Step::Trim => cluster.meeting.trim(),
            Step::Wait(millis) => sleep(Duration::from_millis(millis)).await,
        }
    }
    cluster.comes_together().await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_happens_all_come_to_know_all(steps in prop::collection::vec(step(), 1..60), lanes in prop::sample::select(vec![1, 16])) {
        runtime().block_on(async { play(&mut Cluster::new(4, lanes), steps).await });
    }
}

/// Pseudo-random numbers, the same at each run.
fn numbers(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

#[test]
fn a_hundred_hosts_come_together_after_every_kind_of_fault() {
    runtime().block_on(async {
        let mut cluster = Cluster::new(100, 1);
        let mut number = numbers(6);
        for round in 0..40_u64 {
            for _ in 0..10 {
                let payload = vec![number(250) as u8];
                let item = Item::of_one(&format!("mx{round}"), Version(round * 100 + number(100)), 0, payload);
                cluster.learns(number(100) as usize, &key(number(250) as u8), &item);
            }
            match round % 8 {
                1 => (0..30).for_each(|host| cluster.hosts[host].road.cut.store(true, Ordering::Relaxed)),
                2 => cluster.meeting.fall_back(number(16) as usize, 3),
                3 => cluster.meeting.full.store(true, Ordering::Relaxed),
                4 => cluster.meeting.trim(),
                5 => cluster.meeting.full.store(false, Ordering::Relaxed),
                6 => (0..30).for_each(|host| cluster.hosts[host].road.cut.store(false, Ordering::Relaxed)),
                7 => cluster.meeting.lose_everything(),
                _ => {}
            }
            sleep(Duration::from_millis(number(3000))).await;
        }
        cluster.comes_together().await;
    });
}

#[test]
fn what_one_learns_all_hear_at_once_and_nobody_looks_at_everything_for_it() {
    runtime().block_on(async {
        let mut cluster = Cluster::new(3, 1);
        for host in &cluster.hosts {
            host.link.first_heard().await;
        }
        let before: Vec<u64> = cluster.hosts.iter().map(|host| host.link.status().reconciled).collect();
        cluster.learns(0, &key(1), &Item::of_one("mx0", Version(7), 0, Vec::new()));
        sleep(Duration::from_millis(1)).await;
        assert!(cluster.hosts.iter().all(|host| host.memory.item(&key(1)).is_some()));
        // An interruption is none if nothing was missed.
        cluster.hosts[1].road.cut.store(true, Ordering::Relaxed);
        sleep(Duration::from_secs(5)).await;
        assert!(!cluster.hosts[1].link.status().connected);
        cluster.learns(1, &key(2), &Item::of_one("mx1", Version(8), 0, Vec::new()));
        cluster.learns(2, &key(3), &Item::of_one("mx2", Version(9), 0, Vec::new()));
        cluster.comes_together().await;
        let after: Vec<u64> = cluster.hosts.iter().map(|host| host.link.status().reconciled).collect();
        assert_eq!(before, after);
    });
}

#[test]
fn what_a_replica_has_not_heard_is_told_again() {
    runtime().block_on(async {
        let mut cluster = Cluster::new(1, 1);
        cluster.hosts[0].link.first_heard().await;
        // It asks for news every second: the next question will be on its way for a while.
        cluster.hosts[0].road.slow.store(3000, Ordering::Relaxed);
        sleep(Duration::from_millis(1500)).await;
        cluster.hosts[0].road.slow.store(0, Ordering::Relaxed);
        cluster.learns(0, &key(1), &Item::of_one("mx0", Version(7), 0, Vec::new()));
        sleep(Duration::from_millis(1)).await;
        assert_eq!(cells(&cluster.meeting.total()), cells(&cluster.learnt));
        cluster.meeting.fall_back(key(1).shard().index(), 1);
        assert!(cluster.meeting.total().is_empty());
        cluster.comes_together().await;
        assert_eq!(cluster.hosts[0].link.status().reconciled, 1, "it has missed nothing");
    });
}

#[test]
fn a_start_does_not_wait_for_a_place_that_can_not_be_reached() {
    runtime().block_on(async {
        let cluster = Cluster::new(1, 1);
        let host = &cluster.hosts[0];
        host.road.cut.store(true, Ordering::Relaxed);
        // By the simulation's clock; it would wait as long as the place is away.
        timeout(Duration::from_secs(60), host.link.first_heard()).await.unwrap();
        let status = host.link.status();
        assert_eq!((status.connected, status.reconciled), (false, 0));
        host.road.cut.store(false, Ordering::Relaxed);
        cluster.comes_together().await;
    });
}

#[test]
fn nobody_waits_for_a_place_that_does_not_answer() {
    runtime().block_on(async {
        let cluster = Cluster::new(1, 1);
        let host = &cluster.hosts[0];
        let limit = Duration::from_millis(20);
        assert_eq!(host.link.look_up(&key(1), limit).await, None);
        assert_eq!(host.link.status().lookups.skipped, 1, "not connected yet");
        host.link.first_heard().await;
        cluster.hosts[0].learns(&key(1), &Item::of_one("mx0", Version(7), 0, Vec::new()));
        sleep(Duration::from_millis(1)).await;
        assert!(host.link.look_up(&key(1), limit).await.is_some());

        host.road.slow.store(50, Ordering::Relaxed);
        let asked = Instant::now();
        for _ in 0..100 {
            assert_eq!(host.link.look_up(&key(1), limit).await, None);
        }
        assert_eq!(asked.elapsed(), limit, "one has waited, for all of them");
        let lookups = host.link.status().lookups;
        assert_eq!((lookups.answered, lookups.timed_out, lookups.skipped), (1, 1, 100));
        assert_eq!(lookups.longest_ms, 20.0);
        host.road.slow.store(0, Ordering::Relaxed);
        sleep(Duration::from_secs(1)).await;
        assert!(host.link.look_up(&key(1), limit).await.is_some());
    });
}
