//! How long things take: counts by powers of two, so that they can be read as percentiles and take no room.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::Serialize;

/// Counts of what took less than 2^n microseconds; the last one also has all that took longer.
const BUCKETS: usize = 32;

/// Durations that were measured since the start.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [AtomicU64; BUCKETS],
    longest: AtomicU64,
}

/// What [`Latency`] has measured, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many durations.
    pub count: u64,
    /// Half of them are no longer, to the next power of two microseconds.
    pub p50: f64,
    /// Of a hundred, 99 are no longer.
    pub p99: f64,
    /// The longest one.
    pub max: f64,
}

impl Latency {
    /// Counts one.
    pub fn add(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        if let Some(count) = self.buckets.get(bucket.min(BUCKETS - 1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.longest.fetch_max(micros, Ordering::Relaxed);
    }

    /// Counts one that came to nothing: only how long it was.
    pub fn note_longest(&self, duration: Duration) {
        self.longest.fetch_max(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The longest one, in milliseconds.
    #[must_use]
    pub fn longest_ms(&self) -> f64 {
        self.longest.load(Ordering::Relaxed) as f64 / 1000.0
    }

    /// What was measured; `None` if nothing was.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        Self::sum([self])
    }

    /// What several have measured together.
    #[must_use]
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Option<Summary> {
        let mut counts = [0; BUCKETS];
        let mut longest = 0.0;
        for one in all {
            for (sum, count) in counts.iter_mut().zip(&one.buckets) {
                *sum += count.load(Ordering::Relaxed);
            }
            longest = one.longest_ms().max(longest);
        }
        let count: u64 = counts.iter().sum();
        let below = |percent: u64| {
            let wanted = (count * percent).div_ceil(100);
            let mut seen = 0;
            let bucket = counts.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            bucket.map_or(longest, |bucket| ((1_u64 << bucket) as f64 / 1000.0).min(longest))
        };
        (count > 0).then(|| Summary { count, p50: below(50), p99: below(99), max: longest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_never_below_the_truth_nor_above_twice_it() {
        let latency = Latency::default();
        assert_eq!(latency.summary(), None);
        for millis in 1..=100 {
            latency.add(Duration::from_millis(millis));
        }
        let Summary { count, p50, p99, max } = latency.summary().unwrap();
        assert_eq!((count, max), (100, 100.0));
        assert!((50.0..=100.0).contains(&p50) && (99.0..=100.0).contains(&p99), "{p50} {p99}");
    }
}
