//! What a zone did so far, for `status` and the metrics.

use std::time::Duration;

use serde::Serialize;

use super::report::Failure;

/// How long answers took. Time-outs are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Latency {
    /// Answers.
    pub count: u64,
    /// Of all answers together, in microseconds.
    pub sum_us: u64,
    /// The slowest, in microseconds.
    pub max_us: u64,
    /// Answers by [`Latency::BOUNDS_MS`], not cumulative; the last one holds all slower ones.
    pub buckets: [u64; 10],
}

impl Latency {
    /// Upper bounds of the buckets but the last, in milliseconds, inclusive.
    pub const BOUNDS_MS: [u64; 9] = [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000];

    /// Counts one answer.
    pub fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.max_us = self.max_us.max(us);
        let slot = Self::BOUNDS_MS.iter().position(|bound| us <= bound * 1_000).unwrap_or(Self::BOUNDS_MS.len());
        if let Some(bucket) = self.buckets.get_mut(slot) {
            *bucket += 1;
        }
    }
}

/// What a zone did so far. Counts are of clients' queries; probes of the test points are not in them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ZoneStats {
    /// The zone's shown name.
    pub zone: String,
    /// Queries sent or tried.
    pub queries: u64,
    /// Answers that list the client.
    pub listed: u64,
    /// Answers that do not.
    pub not_listed: u64,
    /// No answer in time.
    pub timed_out: u64,
    /// The resolver could not find out.
    pub server_failures: u64,
    /// The resolver did not want to.
    pub refused: u64,
    /// Other response codes and senseless responses.
    pub bad_responses: u64,
    /// The resolver could not be reached.
    pub unreachable: u64,
    /// Error codes in place of listings.
    pub error_codes: u64,
    /// Not asked, as the zone was suspended.
    pub skipped: u64,
    /// Not asked, as too many look-ups ran.
    pub overloaded: u64,
    /// Since when the zone is suspended, in Unix time.
    pub suspended_since: Option<u64>,
    /// Whether 127.0.0.2 was listed when it was last asked for; `None`: not known.
    pub test_point: Option<bool>,
    /// How long answers took.
    pub latency: Latency,
}

impl ZoneStats {
    /// Counts one failure.
    pub(super) fn count(&mut self, failure: Failure) {
        let counter = match failure {
            Failure::TimedOut(_) => &mut self.timed_out,
            Failure::ServerFailure => &mut self.server_failures,
            Failure::Refused => &mut self.refused,
            Failure::BadResponse => &mut self.bad_responses,
            Failure::Unreachable => &mut self.unreachable,
            Failure::ErrorCode(_) => &mut self.error_codes,
            Failure::Suspended => &mut self.skipped,
            Failure::Overloaded => &mut self.overloaded,
        };
        *counter += 1;
    }
}
