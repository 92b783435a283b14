//! The write-behind: lines that wait, and the thread that writes them.

use std::{
    fmt,
    fs::File,
    io::{self, Seek as _, SeekFrom, Write as _},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{Entry, Segments};
use crate::{config, operate::log::Log};

/// Between two batches.
const BATCH: Duration = Duration::from_secs(1);
/// Between two attempts to open a segment.
const REOPEN: Duration = Duration::from_secs(10);
/// Most bytes that wait: what a disk that takes nothing for a while costs.
const MOST_WAITING: usize = 4 << 20;

/// Where segments are opened.
pub trait Open: fmt::Debug + Send {
    /// Opens the segment that was begun last for appending, or begins one: if it is full, or if a `fresh` one is wanted.
    ///
    /// # Errors
    /// It can't be opened.
    fn open(&self, fresh: bool) -> io::Result<File>;
}

/// The journal's state, for `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JournalStatus {
    /// Whether one is kept.
    pub kept: bool,
    /// Lines written since the start.
    pub written: u64,
    /// Lines that are lost, as the disk was full or too slow.
    pub lost: u64,
    /// Why nothing can be written at the moment; it is tried again.
    pub failing: Option<String>,
}

/// Where lines go.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    hurry: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    limits: config::Journal,
    waiting: Vec<u8>,
    lines: u64,
    status: JournalStatus,
    /// It was said in the log that lines are lost.
    told: bool,
    stop: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole between any two statements that change it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal {
    /// Starts the thread, which opens segments by `disk` and says in `log` when it can't write.
    #[must_use]
    pub fn start(limits: config::Journal, disk: impl Open + 'static, log: &Log) -> Self {
        let shared = Arc::new(Shared::default());
        let work =
            Work { shared: Arc::clone(&shared), disk: Box::new(disk), log: log.clone(), segment: None, tried: None };
        let thread = match Builder::new().name("mxs-journal".to_owned()).spawn(move || work.run()) {
            Ok(thread) => Some(thread),
            Err(error) => {
                log.warn(format!("there is no journal: {error}"));
                shared.queue().stop = true;
                None
            }
        };
        let journal = Self { shared, thread: Mutex::new(thread) };
        journal.limit(limits);
        journal
    }

    /// Goes by other limits from now on.
    pub fn limit(&self, limits: config::Journal) {
        let mut queue = self.shared.queue();
        queue.limits = limits;
        queue.status.kept = limits.max_size > 0 && !queue.stop;
    }

    /// Queues an entry, if a journal is kept. Waits for nobody.
    pub fn keep(&self, entry: &Entry) {
        if !self.shared.queue().status.kept {
            return;
        }
        let Some(mut line) = entry.line() else { return };
        let mut queue = self.shared.queue();
        if queue.waiting.len() + line.len() > MOST_WAITING {
            queue.status.lost += 1;
        } else {
            queue.waiting.append(&mut line);
            queue.lines += 1;
        }
    }

    /// How it does.
    #[must_use]
    pub fn status(&self) -> JournalStatus {
        self.shared.queue().status.clone()
    }

    /// Has the thread write what waits, and end. What comes later is lost.
    pub fn close(&self) {
        {
            let mut queue = self.shared.queue();
            queue.stop = true;
            queue.status.kept = false;
        }
        self.shared.hurry.notify_one();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // An error is a panic of the thread: nothing is left to be written.
            let _ = thread.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// A segment that is being written.
#[derive(Debug)]
struct Writing {
    file: File,
    bytes: u64,
    begun: Instant,
    /// The last line may be torn.
    torn: bool,
}

/// The thread's side.
struct Work {
    shared: Arc<Shared>,
    disk: Box<dyn Open>,
    log: Log,
    segment: Option<Writing>,
    /// When a segment could not be opened.
    tried: Option<Instant>,
}

impl Work {
    fn run(mut self) {
        loop {
            let queue = self.shared.queue();
            let (mut queue, _) = self
                .shared
                .hurry
                .wait_timeout_while(queue, BATCH, |queue| !queue.stop)
                .unwrap_or_else(PoisonError::into_inner);
            let (batch, lines) = (mem::take(&mut queue.waiting), mem::take(&mut queue.lines));
            let (limits, stop) = (queue.limits, queue.stop);
            drop(queue);
            if lines > 0 {
                let result = self.write(&batch, limits);
                self.report(lines, result);
            }
            if stop {
                return;
            }
        }
    }

    fn write(&mut self, batch: &[u8], limits: config::Journal) -> io::Result<()> {
        // The journal goes in pieces, by age as by size: each holds no more than a share of the time.
        let full = |segment: &Writing| {
            segment.bytes >= Segments::full(limits) || segment.begun.elapsed() >= limits.retention / 8
        };
        let fresh = self.segment.take_if(|segment| full(segment)).is_some();
        let segment = match &mut self.segment {
            Some(segment) => segment,
            None => {
                if self.tried.is_some_and(|tried| tried.elapsed() < REOPEN) {
                    return Err(io::Error::other("no segment could be opened"));
                }
                self.tried = Some(Instant::now());
                let mut file = self.disk.open(fresh)?;
                self.tried = None;
                // A former writer may have been killed in the middle of a line.
                let bytes = file.seek(SeekFrom::End(0))?;
                self.segment.insert(Writing { file, bytes, begun: Instant::now(), torn: bytes > 0 })
            }
        };
        if segment.torn {
            segment.file.write_all(b"\n")?;
        }
        segment.torn = true;
        segment.file.write_all(batch)?;
        segment.torn = false;
        segment.bytes += batch.len() as u64;
        Ok(())
    }

    fn report(&self, lines: u64, result: io::Result<()>) {
        let mut queue = self.shared.queue();
        match result {
            Ok(()) => {
                queue.status.written += lines;
                queue.status.failing = None;
            }
            Err(error) => {
                queue.status.lost += lines;
                queue.status.failing = Some(error.to_string());
            }
        }
        if queue.status.lost > 0 && !mem::replace(&mut queue.told, true) {
            let why = queue.status.failing.as_deref().unwrap_or("the disk is too slow");
            self.log.warn(format!("the journal loses sessions: {why}"));
        }
    }
}
