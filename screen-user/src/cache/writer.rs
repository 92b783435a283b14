//! The write-behind: a queue that holds one change a client, and the thread that empties it.

use std::{
    collections::{BTreeMap, HashMap, btree_map, hash_map},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use redb::Database;

use super::{StoreStatus, codec::KEY, file::CacheFile};
use crate::screen::record::{Client, Record};

/// The most changes that wait, of records and of entries each.
pub(super) const MOST_PENDING: usize = 1 << 18;

/// When the thread does what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rhythm {
    /// Between two batches.
    pub(super) batch: Duration,
    /// Between two attempts to open a file that can't be used.
    pub(super) reopen: Duration,
}

/// Changes that are written together; `None` removes.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// By client.
    pub(super) records: HashMap<Client, Option<Record>>,
    /// By key.
    pub(super) entries: BTreeMap<String, Option<Vec<u8>>>,
    /// Keys of records to be removed if nothing has become of them since they were read.
    pub(super) stale: Vec<[u8; KEY]>,
}

impl Batch {
    fn len(&self) -> usize {
        self.records.len() + self.entries.len()
    }
}

/// What the queue and the thread share.
#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// The thread has something to do before its time.
    hurry: Condvar,
    /// A batch was taken, or tried.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Batch,
    written: u64,
    lost: u64,
    failing: Option<String>,
    /// Flushes asked for, and flushes done.
    asked: u64,
    flushed: u64,
    stop: bool,
    /// The thread has ended: nobody will write any more.
    ended: bool,
}

/// The queue's end where changes go in.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. Without a `database`, it tries to open `file` now and then. The second value says why there is no thread.
    pub(super) fn start(
        file: CacheFile,
        database: Option<Database>,
        failing: Option<String>,
        rhythm: Rhythm,
    ) -> (Self, Option<String>) {
        let shared = Arc::new(Shared::default());
        if database.is_none() {
            shared.queue().failing = failing;
        }
        let work = Work { shared: shared.clone(), file, database, rhythm, opened: Instant::now() };
        match Builder::new().name("mxs-cache".to_owned()).spawn(move || work.run()) {
            Ok(thread) => (Self { shared, thread: Some(thread) }, None),
            Err(error) => {
                let why = format!("no thread for the cache file: {error}");
                let mut queue = shared.queue();
                queue.ended = true;
                queue.failing = Some(why.clone());
                drop(queue);
                (Self { shared, thread: None }, Some(why))
            }
        }
    }

    /// Queues a change of a client, in place of an earlier one.
    pub(super) fn queue_record(&self, client: Client, record: Option<Record>) {
        let mut queue = self.shared.queue();
        let full = queue.waiting.records.len() >= MOST_PENDING;
        if full && !queue.waiting.records.contains_key(&client) {
            queue.lost += 1;
        } else {
            queue.waiting.records.insert(client, record);
        }
    }

    /// Queues a change of an entry, in place of an earlier one.
    pub(super) fn queue_entry(&self, key: &str, json: Option<Vec<u8>>) {
        let mut queue = self.shared.queue();
        let full = queue.waiting.entries.len() >= MOST_PENDING;
        if full && !queue.waiting.entries.contains_key(key) {
            queue.lost += 1;
        } else {
            queue.waiting.entries.insert(key.to_owned(), json);
        }
    }

    /// Waits until there is room for so many changes of clients more, or the file did not take what was queued.
    pub(super) fn make_room(&self, records: usize) {
        let mut queue = self.shared.queue();
        let beyond = |queue: &Queue, bound| queue.waiting.records.len() + records > bound;
        // One half is written while the other one fills.
        if beyond(&queue, MOST_PENDING / 2) && queue.asked == queue.flushed {
            queue.asked += 1;
            self.shared.hurry.notify_one();
        }
        if beyond(&queue, MOST_PENDING) {
            queue.asked += 1;
            let turn = queue.asked;
            self.shared.hurry.notify_one();
            while beyond(&queue, MOST_PENDING) && queue.flushed < turn && !queue.ended {
                queue = self.shared.done.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Waits until what is queued now was tried.
    pub(super) fn flush(&self) {
        let mut queue = self.shared.queue();
        queue.asked += 1;
        let turn = queue.asked;
        self.shared.hurry.notify_one();
        while queue.flushed < turn && !queue.ended {
            queue = self.shared.done.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Where keys go whose records make no sense any more.
    pub(super) fn stale(&self) -> StaleKeys {
        StaleKeys(Arc::clone(&self.shared))
    }

    /// Has the thread write what is queued and end, and waits for that.
    pub(super) fn close(&self) {
        let mut queue = self.shared.queue();
        queue.stop = true;
        self.shared.hurry.notify_one();
        while !queue.ended {
            queue = self.shared.done.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How the thread does.
    pub(super) fn status(&self) -> StoreStatus {
        let queue = self.shared.queue();
        StoreStatus {
            pending: queue.waiting.len(),
            written: queue.written,
            lost: queue.lost,
            failing: queue.failing.clone(),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue().stop = true;
        self.shared.hurry.notify_one();
        if let Some(thread) = self.thread.take() {
            // An error is a panic of the thread: nothing is left to be written.
            let _ = thread.join();
        }
    }
}

/// Takes the keys of records that are to leave the file.
#[derive(Debug)]
pub(super) struct StaleKeys(Arc<Shared>);

impl StaleKeys {
    /// Queues keys. What finds no room is found again at the next start.
    pub(super) fn queue(&self, keys: Vec<[u8; KEY]>) {
        let mut queue = self.0.queue();
        if queue.waiting.stale.len() + keys.len() <= MOST_PENDING {
            queue.waiting.stale.extend(keys);
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole between any two statements that change it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's side.
struct Work {
    shared: Arc<Shared>,
    file: CacheFile,
    database: Option<Database>,
    rhythm: Rhythm,
    /// When the file was last opened, or tried.
    opened: Instant,
}

impl Work {
    fn run(mut self) {
        // Also if a panic ends the thread: whoever waits for a flush must not wait for ever.
        let _ended = Ended(self.shared.clone());
        loop {
            let (batch, turn, stop) = self.take();
            self.write(batch);
            if stop {
                // Whoever waits for the end finds the file closed.
                self.database = None;
            }
            let mut queue = self.shared.queue();
            queue.flushed = queue.flushed.max(turn);
            drop(queue);
            self.shared.done.notify_all();
            if stop {
                return;
            }
        }
    }

    /// Waits for the next batch: a whole interval, unless somebody is in a hurry.
    fn take(&self) -> (Batch, u64, bool) {
        let queue = self.shared.queue();
        let idle = |queue: &mut Queue| !queue.stop && queue.asked == queue.flushed;
        let (mut queue, _) = self
            .shared
            .hurry
            .wait_timeout_while(queue, self.rhythm.batch, idle)
            .unwrap_or_else(PoisonError::into_inner);
        let waiting = mem::take(&mut queue.waiting);
        self.shared.done.notify_all();
        (waiting, queue.asked, queue.stop)
    }

    fn write(&mut self, batch: Batch) {
        if batch.len() == 0 && batch.stale.is_empty() {
            return;
        }
        if self.database.is_none() && self.opened.elapsed() >= self.rhythm.reopen {
            self.opened = Instant::now();
            // What it holds was read after the start, or is older than what RAM has learnt since: only changes matter now.
            let loaded = self.file.open();
            self.database = loaded.database;
            self.shared.queue().failing = loaded.complaint.filter(|_| self.database.is_none());
        }
        let Some(database) = &self.database else {
            self.put_back(batch);
            return;
        };
        match self.file.write(database, &batch) {
            Ok(()) => {
                let mut queue = self.shared.queue();
                queue.written += batch.len() as u64;
                queue.failing = None;
            }
            Err(error) => {
                // redb accepts nothing more after an error of the disk: the file has to be opened again.
                self.database.take().into_iter().for_each(CacheFile::abandon);
                self.opened = Instant::now();
                self.shared.queue().failing = Some(error);
                self.put_back(batch);
            }
        }
    }

    /// Queues a batch again that could not be written, where nothing newer has come since.
    fn put_back(&self, batch: Batch) {
        let mut queue = self.shared.queue();
        let Queue { waiting, lost, .. } = &mut *queue;
        for (client, record) in batch.records {
            let full = waiting.records.len() >= MOST_PENDING;
            match waiting.records.entry(client) {
                hash_map::Entry::Occupied(_) => {}
                hash_map::Entry::Vacant(_) if full => *lost += 1,
                hash_map::Entry::Vacant(place) => drop(place.insert(record)),
            }
        }
        for (key, json) in batch.entries {
            let full = waiting.entries.len() >= MOST_PENDING;
            match waiting.entries.entry(key) {
                btree_map::Entry::Occupied(_) => {}
                btree_map::Entry::Vacant(_) if full => *lost += 1,
                btree_map::Entry::Vacant(place) => drop(place.insert(json)),
            }
        }
    }
}

/// Says at the end of the thread that it has ended.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.queue().ended = true;
        self.0.done.notify_all();
    }
}
