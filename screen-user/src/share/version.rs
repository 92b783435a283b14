//! Which of two findings is the later one, among hosts whose clocks differ.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The bits of a version that count what happens within a millisecond.
const COUNTER_BITS: u32 = 16;

/// How far ahead of this host's clock another one may be and still set the pace. One whose clock is wrong by more must not carry
/// everybody else along.
const FURTHEST_AHEAD: Duration = Duration::from_secs(3600);

/// When something was learnt: a hybrid logical clock, milliseconds of Unix time and a counter. The greater is the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// Of what was never learnt.
    pub const NONE: Self = Self(0);
    /// Of what was learnt before there were versions: whatever else is known is later.
    pub const OLDEST: Self = Self(1);

    /// The first version of a millisecond of Unix time.
    #[must_use]
    pub const fn at(unix_millis: u64) -> Self {
        Self(unix_millis.saturating_mul(1 << COUNTER_BITS))
    }

    /// Its time, in milliseconds of Unix time, by the clock of the host that learnt it.
    #[must_use]
    pub const fn unix_millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }
}

/// Gives versions, each greater than the ones before and than those heard from others.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// The version of something that happens now, in milliseconds of Unix time.
    pub fn next(&self, unix_millis: u64) -> Version {
        let after = |last: u64| Version::at(unix_millis).0.max(last.saturating_add(1));
        let last = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(after(last)));
        Version(after(last.unwrap_or_else(|last| last)))
    }

    /// Notes what another host has given out, so that what happens here from now on counts as later.
    pub fn hear(&self, version: Version, unix_millis: u64) {
        let furthest = unix_millis.saturating_add(u64::try_from(FURTHEST_AHEAD.as_millis()).unwrap_or(u64::MAX));
        if version <= Version::at(furthest) {
            self.0.fetch_max(version.0, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_later_has_the_greater_version_whatever_the_clock_does() {
        let clock = Clock::default();
        let mut last = Version::NONE;
        for now in [1000, 1000, 1001, 900, 900, 5000] {
            let version = clock.next(now);
            assert!(version > last, "{now}");
            last = version;
        }
        assert_eq!(last.unix_millis(), 5000);
    }

    #[test]
    fn what_was_heard_is_earlier_than_what_follows() {
        let clock = Clock::default();
        let heard = Version::at(60_000);
        clock.hear(heard, 1000);
        assert!(clock.next(1000) > heard);
        // Unless it comes from a clock that is plainly wrong.
        let wrong = Version::at(1000 + 3_600_001);
        clock.hear(wrong, 1000);
        assert!(clock.next(1000) < wrong);
    }
}
