//! How long things take: counts by powers of two, so that they can be read as percentiles and take no room.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::Serialize;

/// Counts of what took 2^n microseconds at most; the last one also has all that took longer.
const BUCKETS: usize = 32;

/// Durations that were measured since the start.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [AtomicU64; BUCKETS],
    /// Of those that were counted, together, in microseconds.
    total: AtomicU64,
    longest: AtomicU64,
}

/// All counts at one moment, as Prometheus reads them.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Upper bounds in seconds, ascending, the last one infinite; and how many durations each has that are above the one before.
    pub buckets: Vec<(f64, u64)>,
    /// Of all durations together, in seconds.
    pub sum: f64,
}

impl Histogram {
    /// How many durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
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
        let bucket = (u64::BITS - micros.saturating_sub(1).leading_zeros()) as usize;
        if let Some(count) = self.buckets.get(bucket.min(BUCKETS - 1)) {
            count.fetch_add(1, Ordering::Relaxed);
            self.total.fetch_add(micros, Ordering::Relaxed);
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
        let mut longest = 0.0;
        let counts = Self::counts(all.into_iter().inspect(|one| longest = one.longest_ms().max(longest)));
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

    /// What several have measured together, by duration.
    #[must_use]
    pub fn histogram<'a>(all: impl IntoIterator<Item = &'a Self>) -> Histogram {
        let mut micros: u64 = 0;
        let counts = Self::counts(
            all.into_iter().inspect(|one| micros = micros.saturating_add(one.total.load(Ordering::Relaxed))),
        );
        let buckets = (0..BUCKETS).zip(counts).map(|(bucket, count)| {
            let bound = if bucket == BUCKETS - 1 { f64::INFINITY } else { (1_u64 << bucket) as f64 / 1e6 };
            (bound, count)
        });
        Histogram { buckets: buckets.collect(), sum: micros as f64 / 1e6 }
    }

    fn counts<'a>(all: impl IntoIterator<Item = &'a Self>) -> [u64; BUCKETS] {
        let mut counts = [0; BUCKETS];
        for one in all {
            for (sum, count) in counts.iter_mut().zip(&one.buckets) {
                *sum += count.load(Ordering::Relaxed);
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn each_bound_counts_all_that_took_no_longer(measured in vec(vec((0_u64..64, any::<u64>()), 0..20), 0..4)) {
            // Of any magnitude, and few enough at that for their sum to be exact.
            let micros = |(shift, bits): &(u64, u64)| bits >> shift.max(&16);
            let all: Vec<u64> = measured.iter().flatten().map(micros).collect();
            let parts: Vec<Latency> = measured
                .iter()
                .map(|part| {
                    let latency = Latency::default();
                    part.iter().for_each(|one| latency.add(Duration::from_micros(micros(one))));
                    latency
                })
                .collect();
            let histogram = Latency::histogram(&parts);
            let mut counted = 0;
            for (bound, count) in &histogram.buckets {
                counted += count;
                let no_longer = all.iter().filter(|&&micros| micros as f64 / 1e6 <= *bound).count();
                prop_assert_eq!(counted, no_longer as u64, "no longer than {} s", bound);
            }
            prop_assert!(histogram.buckets.is_sorted_by(|(lower, _), (upper, _)| lower < upper));
            prop_assert_eq!(histogram.buckets.last().map(|(bound, _)| *bound), Some(f64::INFINITY));
            prop_assert_eq!(histogram.count(), all.len() as u64);
            prop_assert_eq!(histogram.sum, all.iter().sum::<u64>() as f64 / 1e6);
        }

        #[test]
        fn what_came_to_nothing_is_not_counted(micros in any::<u32>()) {
            let latency = Latency::default();
            latency.note_longest(Duration::from_micros(micros.into()));
            let histogram = Latency::histogram([&latency]);
            prop_assert_eq!((histogram.count(), histogram.sum), (0, 0.0));
        }
    }

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
