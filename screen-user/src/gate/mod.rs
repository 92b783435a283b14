//! The running gate: what sessions, the control socket and the kernel half have in common.

mod activity;
mod blocklists;
mod busiest;
mod changes;
mod directory;
mod dry_run;
mod entries;
mod examine;
mod exchange;
mod explain;
mod failures;
mod feed;
mod harm;
mod history;
mod housekeeping;
mod import;
mod left_out;
mod listings;
mod measures;
mod reload;
mod run;
mod shared_lists;
mod sharing;
mod spf;
mod standing;
mod survey;
mod tallies;
mod view;
mod warm;
mod zones;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::{
    access::runtime::RuntimeLists,
    cache::Store,
    config::Config,
    dns::{Dnsbl, Subscription},
    forward::{pass::Passes, pool::Pool, relay::Traffic},
    journal::{Entry, Journal},
    keeper::Keeper,
    kernel::Kernel,
    net::tls::TlsServer,
    operate::log::Log,
    screen::{
        Screen, TlsState,
        event::Now,
        log::LogLine,
        outcome::Outcome,
        record::{Client, Record},
    },
    share::{Clock, Hosts, Key, Link, Version, redis::RedisRegisters},
    unix_time::{unix_millis, unix_now},
};

pub(crate) use self::view::words;
pub use self::{
    measures::{KernelMeasures, ListMeasures, Measures, RedisMeasures, Reloads},
    run::screen,
};

/// Connections whose PROXY header may be awaited at one time.
const PROXY_WAITS: u32 = 10_000;

/// The running gate.
#[derive(Debug)]
pub struct Gate {
    config: ArcSwap<Config>,
    source: run::Source,
    /// The configuration in force, as it was read.
    read: Mutex<changes::Read>,
    screen: Mutex<Screen>,
    lists: RwLock<RuntimeLists>,
    imported: RwLock<blocklists::Imported>,
    directory: directory::Directory,
    fed: Mutex<feed::Fed>,
    /// Held by the one who feeds the access list, until the kernel agrees.
    feeding: Mutex<()>,
    domains: Mutex<spf::Domains>,
    dnsbl: ArcSwapOption<Dnsbl>,
    tls: ArcSwapOption<TlsServer>,
    store: Store,
    warming: Mutex<warm::Warming>,
    /// To other edge hosts, once it is begun.
    link: OnceLock<Link<RedisRegisters, Self>>,
    sharing_stops: watch::Sender<bool>,
    clock: Arc<Clock>,
    hosts: Arc<Hosts>,
    kernel: Option<Kernel>,
    keeper: Keeper,
    log: Log,
    notices: Mutex<Vec<String>>,
    counts: Counts,
    tallies: tallies::Tallies,
    reloads: Mutex<Reloads>,
    history: history::History,
    activity: activity::Activity,
    journal: Journal,
    traffic: Traffic,
    pool: Arc<Pool>,
    surveyed: Mutex<survey::Surveyed>,
    passes: Passes,
    started: Instant,
    started_unix: u64,
    /// Whether stopping takes the kernel's programs off.
    detaches: AtomicBool,
    /// Whether the kernel's programs know nothing of connections that are relayed from now on.
    relays_no_more: AtomicBool,
    phase: watch::Sender<Phase>,
}

/// What the gate counts besides what the protocol core counts.
#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU32,
    relays: AtomicU32,
    proxy_waits: AtomicU32,
    requests: AtomicU32,
    tls_sessions: AtomicU32,
    accepted: AtomicU64,
    relayed: AtomicU64,
}

/// How far the gate is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It is not.
    Running,
    /// Somebody asked it to stop; the port is about to be given back.
    StopAsked,
    /// New clients meet the mail server. What the listeners still hold is taken, and then they close.
    Closing,
}

/// Something that is counted while it lives.
#[derive(Debug)]
pub struct Counted {
    gate: Arc<Gate>,
    counter: fn(&Counts) -> &AtomicU32,
}

impl Counted {
    fn new(gate: &Arc<Gate>, counter: fn(&Counts) -> &AtomicU32) -> Self {
        counter(&gate.counts).fetch_add(1, Ordering::Relaxed);
        Self { gate: Arc::clone(gate), counter }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.counter)(&self.gate.counts).fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a session needs of the gate.
impl Gate {
    /// The configuration in force.
    pub fn config(&self) -> arc_swap::Guard<Arc<Config>> {
        self.config.load()
    }

    /// The protocol core's shared state. Held for the length of one event, never across a wait.
    pub fn screen(&self) -> MutexGuard<'_, Screen> {
        // A panic in one session must not end all others: the state is counters and records, each change complete in itself.
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        Now { monotonic: self.started.elapsed(), unix_millis: unix_millis() }
    }

    /// Asks the DNSBL zones about a client, or joins whoever asks already.
    pub fn look_up(&self, client: IpAddr) -> Option<Subscription> {
        self.dnsbl.load().as_ref().map(|dnsbl| dnsbl.subscribe(client))
    }

    /// Writes a line of the protocol core.
    pub fn log_line(&self, line: &LogLine) {
        self.log.line_with(line.severity().into(), line.to_string(), || line.fields());
    }

    /// The log, for lines that no session gave.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The kernel half, where it shows mail servers the clients of relayed connections.
    pub fn relay_kernel(&self) -> Option<&Kernel> {
        self.kernel.as_ref().filter(|_| !self.relays_no_more.load(Ordering::Acquire))
    }

    /// The kernel half, where it runs.
    pub fn kernel(&self) -> Option<&Kernel> {
        self.kernel.as_ref()
    }

    /// Whom to ask for what the screener can't do.
    pub fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// The server side of TLS, where a certificate is there.
    pub fn tls_acceptor(&self) -> Option<TlsAcceptor> {
        self.tls.load().as_ref().map(|tls| tls.acceptor())
    }

    /// Counts a session that goes on inside TLS, and turns the next one away if there are enough.
    pub fn tls_begins(&self) {
        self.counts.tls_sessions.fetch_add(1, Ordering::Relaxed);
        self.offer_tls();
    }

    /// The other end of [`Self::tls_begins`].
    pub fn tls_ended(&self) {
        self.counts.tls_sessions.fetch_sub(1, Ordering::Relaxed);
        self.offer_tls();
    }

    /// Tells the protocol core whether the next STARTTLS can be served.
    fn offer_tls(&self) {
        let mut screen = self.screen();
        let state = if self.tls.load().is_none() {
            TlsState::Absent
        } else if self.counts.tls_sessions.load(Ordering::Relaxed) < self.config.load().tls.sessions {
            TlsState::Usable
        } else {
            TlsState::Broken
        };
        screen.set_tls(state);
    }

    /// Keeps what became of a session.
    pub fn keep(&self, mut outcome: Outcome) {
        if outcome.was_forwarded() {
            self.counts.relayed.fetch_add(1, Ordering::Relaxed);
        }
        self.tallies.add(&outcome);
        self.log.outcome(&outcome);
        if let Some(found) = outcome.found.take() {
            self.journal.keep(&Entry::of_session(&outcome, *found));
        }
        self.note_outcome(&outcome);
        self.history.add(outcome);
    }

    /// Counts an accepted connection while it lives.
    pub fn count_connection(self: &Arc<Self>) -> Counted {
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        Counted::new(self, |counts| &counts.connections)
    }

    /// Counts a request of an operator until it is answered: the gate does not end before.
    pub fn count_request(self: &Arc<Self>) -> Counted {
        Counted::new(self, |counts| &counts.requests)
    }

    /// Counts a relayed connection while it lives.
    pub fn count_relay(self: &Arc<Self>) -> Counted {
        Counted::new(self, |counts| &counts.relays)
    }

    /// Counts a connection that waits for its PROXY header, or `None` if too many do.
    pub fn count_proxy_wait(self: &Arc<Self>) -> Option<Counted> {
        let room = self.counts.proxy_waits.load(Ordering::Relaxed) < PROXY_WAITS;
        room.then(|| Counted::new(self, |counts| &counts.proxy_waits))
    }

    /// The mail servers.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// What is under way to Postfix.
    pub fn passes(&self) -> &Passes {
        &self.passes
    }

    /// What relays have moved.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Keeps what was learnt of a client and, if that makes it known good, tells the kernel; and other hosts.
    pub fn remember(&self, client: Client, record: Record) {
        self.keep_record(client, record);
        self.tell(Key::Record(client));
        if self.config.load().policy.vouches(&record, unix_now()) {
            self.forgive(client);
        }
    }

    fn keep_record(&self, client: Client, record: Record) {
        self.store.remember(client, record);
        self.feed_record(client, &record);
    }

    /// The version of what is decided now.
    fn next_version(&self) -> Version {
        self.clock.next(unix_millis())
    }
}

/// How long it is until `until`, Unix time in seconds; zero if it has passed. To the millisecond: both halves are to end what ends at one time.
fn from_now(until: u64) -> Duration {
    Duration::from_millis(until.saturating_mul(1000).saturating_sub(unix_millis()))
}
