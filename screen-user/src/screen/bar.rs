//! For how long, and why, a client is denied that failed a test whose action is `drop`.

use std::time::Duration;

use super::record::Test;

/// A client is not to be heard for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bar {
    /// The test that it failed.
    pub test: Test,
    /// What it did, or who lists it, as the log has it.
    pub evidence: Box<str>,
    /// For how long.
    pub life: Life,
}

/// For how long a failure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// As long as DNS says that the client is listed; then the zones are asked again.
    Listing(Duration),
    /// This long, and longer each time that the client fails again.
    Growing(Duration),
}

impl Life {
    /// How long the client is denied which has failed `before` times, and no longer than `cap` because of that.
    #[must_use]
    pub fn after(self, before: u32, cap: Duration) -> Duration {
        match self {
            Self::Listing(duration) => duration,
            Self::Growing(base) => {
                let factor = 1_u32.checked_shl(before).unwrap_or(u32::MAX);
                base.saturating_mul(factor).min(cap.max(base))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_again_is_denied_for_twice_as_long_up_to_the_cap() {
        let (minutes, cap) = (|count: u64| Duration::from_secs(60 * count), Duration::from_secs(3600));
        let growing = Life::Growing(minutes(10));
        let lives: Vec<Duration> = [0, 1, 2, 3, 40, u32::MAX].map(|before| growing.after(before, cap)).to_vec();
        assert_eq!(lives, [10, 20, 40, 60, 60, 60].map(minutes));
        assert_eq!(growing.after(5, Duration::ZERO), minutes(10), "no cap is no growth");
        assert_eq!(Life::Listing(minutes(5)).after(9, cap), minutes(5));
    }
}
