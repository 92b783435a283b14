//! Mail that flows all the time, so that the gate's coming and going would be noticed.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{
    client::{self, Got, Manner},
    stage::Host,
};

/// The pause between two messages.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
struct Counters {
    stop: AtomicBool,
    delivered: AtomicUsize,
    failed: AtomicUsize,
    last: Mutex<Duration>,
    first_failure: Mutex<Option<Got>>,
}

impl Counters {
    /// How the first failed connection failed, in words.
    fn first_failure(&self) -> String {
        let first = self.first_failure.lock().ok().and_then(|first| first.clone());
        first.map_or_else(|| "no connection failed".to_owned(), |got| format!("the first failure: {got:?}"))
    }
}

/// A client that delivers one message after the other until it is stopped.
pub(super) struct Traffic {
    counters: Arc<Counters>,
    thread: JoinHandle<Result<()>>,
}

impl Traffic {
    /// Starts to deliver from this host.
    pub(super) fn start(host: Host, server: SocketAddr) -> Self {
        let counters = Arc::new(Counters::default());
        let shared = Arc::clone(&counters);
        let thread = host.thread(move || {
            while !shared.stop.load(Ordering::Relaxed) {
                let visit = client::visit(server, Manner::Polite)?;
                if let Ok(mut last) = shared.last.lock() {
                    *last = visit.after;
                }
                if let Got::Delivered(_) = visit.got {
                    shared.delivered.fetch_add(1, Ordering::Relaxed);
                } else {
                    shared.failed.fetch_add(1, Ordering::Relaxed);
                    if let Ok(mut first) = shared.first_failure.lock() {
                        first.get_or_insert(visit.got);
                    }
                }
                std::thread::sleep(PAUSE);
            }
            Ok(())
        });
        Self { counters, thread }
    }

    /// Messages delivered so far.
    pub(super) fn delivered(&self) -> usize {
        self.counters.delivered.load(Ordering::Relaxed)
    }

    /// How long the last client waited for its greeting.
    pub(super) fn last(&self) -> Duration {
        self.counters.last.lock().map(|last| *last).unwrap_or_default()
    }

    /// Waits until so many messages have been delivered in all.
    pub(super) fn wait_for(&self, count: usize) -> Result<()> {
        let begin = Instant::now();
        while self.delivered() < count {
            if begin.elapsed() > Duration::from_secs(30) || self.thread.is_finished() {
                bail!(
                    "mail does not flow: {} of {count} messages delivered; {}",
                    self.delivered(),
                    self.counters.first_failure()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends it; gives how many messages were delivered.
    ///
    /// # Errors
    /// When a connection failed meanwhile; how the first one did is in the message.
    pub(super) fn stop(self) -> Result<usize> {
        self.counters.stop.store(true, Ordering::Relaxed);
        let Self { counters, thread } = self;
        thread
            .join()
            .map_err(|_| anyhow!("the partner's thread panicked"))?
            .context("the partner's client broke down")?;
        let failed = counters.failed.load(Ordering::Relaxed);
        if failed > 0 {
            bail!(
                "{failed} of the partner's connections failed while the gate came or went; {}",
                counters.first_failure()
            );
        }
        Ok(counters.delivered.load(Ordering::Relaxed))
    }
}
