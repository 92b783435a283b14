//! A zone: its two names, its counters, and whether it may be asked.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use super::{
    SetupError,
    query::{Answer, query_name},
    report::{Failure, REPORT_INTERVAL, Report},
    stats::ZoneStats,
};
use crate::screen;

/// A zone's name. The name that is asked for can hold a customer's key: it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ZoneName {
    query: String,
    shown: String,
}

impl ZoneName {
    /// A zone that is asked as `query` and printed as `shown`.
    #[must_use]
    pub fn new(query: impl Into<String>, shown: impl Into<String>) -> Self {
        Self { query: query.into(), shown: shown.into() }
    }

    /// The name that queries end with: for the resolver only.
    pub(super) fn secret(&self) -> &str {
        &self.query
    }

    /// The name that may be printed.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

impl From<&screen::dnsbl::Zone> for ZoneName {
    fn from(zone: &screen::dnsbl::Zone) -> Self {
        Self::new(zone.domain(), zone.shown())
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown, f)
    }
}

/// A zone and what is known of it.
#[derive(Debug)]
pub(super) struct Zone {
    /// Its place in the sites' order.
    pub(super) index: usize,
    /// Its names.
    pub(super) name: ZoneName,
    /// Queries that may wait for the resolver.
    pub(super) permits: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stats: ZoneStats,
    reported: Option<Instant>,
    suppressed: u64,
}

impl Zone {
    /// A zone that nobody has asked yet.
    pub(super) fn new(index: usize, name: ZoneName, queries: usize) -> Result<Self, SetupError> {
        // The longest name that a query can have: if it can be built, all others can.
        if query_name(IpAddr::V6(Ipv6Addr::UNSPECIFIED), &name).is_none() {
            return Err(SetupError::Zone(name));
        }
        let stats = ZoneStats { zone: name.shown().to_owned(), ..ZoneStats::default() };
        let permits = Semaphore::new(queries.clamp(1, Semaphore::MAX_PERMITS));
        Ok(Self { index, name, permits, state: Mutex::new(State { stats, ..State::default() }) })
    }

    /// A copy of the counters.
    pub(super) fn stats(&self) -> ZoneStats {
        self.state().stats.clone()
    }

    /// Whether the zone may not be asked.
    pub(super) fn suspended(&self) -> bool {
        self.state().stats.suspended_since.is_some()
    }

    /// Suspends the zone from `since`, in Unix time, or lets it go; whether that changed anything.
    pub(super) fn suspend(&self, since: Option<u64>) -> bool {
        let mut state = self.state();
        let change = state.stats.suspended_since.is_some() != since.is_some();
        if change {
            state.stats.suspended_since = since;
        }
        change
    }

    /// Notes whether 127.0.0.2 is listed; whether that is news.
    pub(super) fn note_test_point(&self, listed: bool) -> bool {
        self.state().stats.test_point.replace(listed) != Some(listed)
    }

    /// Counts what a client's query came to. `took` is `None` if nothing was sent.
    pub(super) fn record(&self, outcome: &Result<Answer, Failure>, took: Option<Duration>) {
        let mut state = self.state();
        let stats = &mut state.stats;
        if took.is_some() {
            stats.queries += 1;
        }
        match outcome {
            Ok(Answer::Listed { .. }) => stats.listed += 1,
            Ok(Answer::NotListed { .. }) => stats.not_listed += 1,
            Err(failure) => stats.count(*failure),
        }
        if let Some(took) = took
            && !matches!(outcome, Err(Failure::TimedOut(_)))
        {
            stats.latency.record(took);
        }
    }

    /// The report of a failure, unless another one was made a short while ago.
    pub(super) fn report(&self, client: IpAddr, failure: Failure) -> Option<Report> {
        let mut state = self.state();
        let now = Instant::now();
        if state.reported.is_some_and(|last| now.saturating_duration_since(last) < REPORT_INTERVAL) {
            state.suppressed += 1;
            return None;
        }
        state.reported = Some(now);
        let suppressed = std::mem::take(&mut state.suppressed);
        Some(Report::Failed { client, zone: self.name.clone(), failure, suppressed })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counters stay usable whatever happened to the thread that held them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
