//! Durations as an operator writes them: `"6s"`, `"2h"`, `"30d"`.

use std::time::Duration;

/// Units, longest first: name and milliseconds.
const UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duration: a whole number and a unit are needed (ms, s, m, h, d, w), as in \"6s\" or \"30d\"")]
pub struct DurationError(String);

/// Reads `250ms`, `6s`, `5m`, `2h`, `30d`, `1w`.
///
/// # Errors
/// For anything else, also for a number without a unit and for more than 2^63 milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let wrong = || DurationError(text.to_owned());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).filter(|millis| *millis <= i64::MAX as u64).map(Duration::from_millis).ok_or_else(wrong)
}

/// A duration in the largest unit that holds it without a fraction; what is below a millisecond is left out.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    UNITS
        .into_iter()
        .find(|(_, factor)| millis.is_multiple_of(*factor))
        .map_or_else(|| format!("{millis}ms"), |(name, factor)| format!("{}{name}", millis / factor))
}
