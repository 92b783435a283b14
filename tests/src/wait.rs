//! Waiting for something to become true, with a deadline instead of a fixed sleep.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Long enough for anything that is meant to happen, on a busy machine too.
pub const SOON: Duration = Duration::from_secs(45);

/// Asks `condition` again and again until it gives a value.
///
/// # Panics
///
/// When `limit` has passed without one; the message names `what`.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
