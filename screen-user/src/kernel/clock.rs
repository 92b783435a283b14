//! The kernel's clock.

use std::{
    io, mem,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::time::{ClockId, clock_gettime};
use screen_common::abi::NEVER;

/// A point in time on `CLOCK_MONOTONIC`, by which the kernel half reckons, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry(u64);

impl Expiry {
    /// Never comes.
    pub const NEVER: Self = Self(NEVER);

    /// As far from now.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Self::from_nanos(now_ns().saturating_add(nanos(duration)))
    }

    /// At a second of Unix time, as records hold it. The distance from now is what counts: a clock set back later changes nothing.
    #[must_use]
    pub fn at_unix(seconds: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::after(Duration::from_secs(seconds).saturating_sub(now))
    }

    /// After `Some` duration, or never.
    #[must_use]
    pub fn after_or_never(duration: Option<Duration>) -> Self {
        duration.map_or(Self::NEVER, Self::after)
    }

    /// How long from now; `None` is never.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        (self != Self::NEVER).then(|| Duration::from_nanos(self.0.saturating_sub(now_ns())))
    }

    /// Nanoseconds of `CLOCK_MONOTONIC`. A finite time never becomes [`Expiry::NEVER`].
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(if nanos == NEVER { NEVER - 1 } else { nanos })
    }

    /// Nanoseconds of `CLOCK_MONOTONIC`, [`NEVER`] for never.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }
}

/// What the kernel says of the host's clock (adjtimex(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discipline {
    /// Somebody keeps it in time.
    pub synchronized: bool,
    /// By how much it may be off, as far as that one knows.
    pub largest_error: Duration,
}

impl Discipline {
    /// Of this host. Takes no privileges.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn read() -> io::Result<Self> {
        // SAFETY: `timex` is numbers only, for which all zeros are values; zero as its modes asks, and sets nothing.
        let mut timex: libc::timex = unsafe { mem::zeroed() };
        // SAFETY: the kernel writes no more than a `timex` to where one is.
        let state = unsafe { libc::adjtimex(&raw mut timex) };
        if state < 0 {
            return Err(io::Error::last_os_error());
        }
        let largest_error = Duration::from_micros(u64::try_from(timex.maxerror).unwrap_or(u64::MAX));
        Ok(Self { synchronized: state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0, largest_error })
    }
}

/// Now, in nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub(super) fn now_ns() -> u64 {
    // The clock exists on every Linux; if it did not, nothing would ever expire.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| nanos(Duration::from(time)))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_are_ahead_of_now_and_in_order() {
        let before = now_ns();
        let soon = Expiry::after(Duration::from_secs(60));
        assert!(soon.nanos() >= before + 60_000_000_000);
        assert!(soon < Expiry::after(Duration::from_secs(3_600)) && soon < Expiry::NEVER);
        assert!(soon.remaining().is_some_and(|left| left <= Duration::from_secs(60)));
        assert_eq!(Expiry::NEVER.remaining(), None);
    }

    #[test]
    fn a_time_beyond_the_clock_is_not_never_but_far() {
        assert_ne!(Expiry::after(Duration::MAX), Expiry::NEVER);
        assert_eq!(Expiry::after_or_never(None), Expiry::NEVER);
    }

    #[test]
    fn the_kernel_says_how_the_clock_is_kept() {
        // A clock that nobody keeps may be off by sixteen seconds at the most: the kernel counts no further (ntp.c).
        assert!(Discipline::read().unwrap().largest_error <= Duration::from_secs(17));
    }

    #[test]
    fn unix_time_gone_by_is_now() {
        let now = now_ns();
        assert!(Expiry::at_unix(1).nanos() >= now);
        assert!(Expiry::at_unix(1).remaining().is_some_and(|left| left.is_zero()));
    }
}
