//! Families of samples: a name, a help text, and a sample for each set of labels.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use crate::share::Histogram;

/// The shortest bound of a histogram that is shown, in seconds: what is below is not worth a series.
const SHORTEST: f64 = 0.0001;
/// The longest one.
const LONGEST: f64 = 600.0;

/// Where families are written.
pub(super) struct Families<'a>(pub(super) DescriptorEncoder<'a>);

impl Families<'_> {
    /// Something that only grows. The name is written with `_total` behind it.
    pub(super) fn counter<const N: usize, L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        keys: [&str; N],
        samples: impl IntoIterator<Item = ([L; N], u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        each(&mut family, keys, samples, |sample, count| sample.encode_counter::<NoLabelSet, u64, u64>(&count, None))
    }

    /// Something that goes up and down.
    pub(super) fn gauge<const N: usize, L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        keys: [&str; N],
        samples: impl IntoIterator<Item = ([L; N], u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        each(&mut family, keys, samples, |sample, value| sample.encode_gauge(&value))
    }

    /// How long something takes.
    pub(super) fn histogram<const N: usize, L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        keys: [&str; N],
        samples: impl IntoIterator<Item = ([L; N], Histogram)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        each(&mut family, keys, samples, |sample, histogram| {
            sample.encode_histogram::<NoLabelSet>(histogram.sum, histogram.count(), &shown(&histogram), None)
        })
    }

    /// A gauge without labels.
    pub(super) fn one(&mut self, name: &str, help: &str, value: impl Into<u64>) -> fmt::Result {
        self.gauge(name, help, [], [([""; 0], value.into())])
    }

    /// A counter without labels.
    pub(super) fn count(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counter(name, help, [], [([""; 0], value)])
    }
}

fn each<const N: usize, L: AsRef<str>, V>(
    family: &mut MetricEncoder<'_>,
    keys: [&str; N],
    samples: impl IntoIterator<Item = ([L; N], V)>,
    encode: impl Fn(&mut MetricEncoder<'_>, V) -> fmt::Result,
) -> fmt::Result {
    for (labels, value) in samples {
        if N == 0 {
            encode(family, value)?;
        } else {
            let pairs: Vec<(&str, &str)> = keys.into_iter().zip(labels.iter().map(AsRef::as_ref)).collect();
            encode(&mut family.encode_family(&pairs)?, value)?;
        }
    }
    Ok(())
}

/// The buckets with those bounds left out that are too short or too long to be of use; what they count goes into the next one.
fn shown(histogram: &Histogram) -> Vec<(f64, u64)> {
    let mut shown = Vec::new();
    let mut counted = 0;
    for &(bound, count) in &histogram.buckets {
        counted += count;
        if (SHORTEST..=LONGEST).contains(&bound) || bound.is_infinite() {
            shown.push((bound, std::mem::take(&mut counted)));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::share::Latency;

    #[test]
    fn no_duration_is_lost_with_the_bounds_that_are_left_out() {
        let latency = Latency::default();
        for micros in [0, 1, 127, 129, 5_000_000, 900_000_000, u64::MAX] {
            latency.add(Duration::from_micros(micros));
        }
        let shown = shown(&Latency::histogram([&latency]));
        assert_eq!(shown.iter().map(|(_, count)| count).sum::<u64>(), 7);
        assert_eq!(shown.first(), Some(&(0.000_128, 3)));
        assert_eq!(shown.last(), Some(&(f64::INFINITY, 2)));
        assert!(shown.is_sorted_by(|(lower, _), (upper, _)| lower < upper));
    }
}
