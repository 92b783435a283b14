//! Unix time, as records, entries and versions are dated by it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds of Unix time; zero on a host that is before it.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Whole seconds of Unix time.
pub(crate) fn unix_now() -> u64 {
    unix_millis() / 1000
}
