//! Whether the host's clock is kept in time: results are dated by it, and hosts that share compare their dates.

use std::{io, time::Duration};

use super::finding::{Finding, Grade};
use crate::kernel::Discipline;

/// Beyond that, what one host has found seems older or newer than what another one has.
const LARGEST_ERROR: Duration = Duration::from_secs(1);

/// What keeps time on Debian, where nothing else does.
const MEND: &str = "timedatectl set-ntp true";

fn finding(grade: Grade, what: String, mend: Option<&str>) -> Finding {
    Finding { subject: "clock", grade, what, mend: mend.map(str::to_owned) }
}

/// `shared`: other hosts go by what this one says.
pub(super) fn judge(discipline: &io::Result<Discipline>, shared: bool) -> Finding {
    let bad = if shared { Grade::Wrong } else { Grade::Note };
    match discipline {
        Err(error) => finding(Grade::Unknown, format!("the kernel does not say how the clock is kept: {error}"), None),
        Ok(Discipline { synchronized: false, .. }) => {
            finding(bad, "nobody keeps the clock in time".to_owned(), Some(MEND))
        }
        Ok(Discipline { largest_error, .. }) if *largest_error > LARGEST_ERROR => {
            let what = format!("the clock may be off by {:.1} s", largest_error.as_secs_f64());
            finding(bad, what, Some("timedatectl timesync-status"))
        }
        Ok(Discipline { largest_error, .. }) => {
            let millis = largest_error.as_millis();
            finding(Grade::Fine, format!("the clock is kept in time, and off by {millis} ms at the most"), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_nobody_keeps_is_wrong_where_hosts_share() {
        let clock =
            |synchronized, millis| Ok(Discipline { synchronized, largest_error: Duration::from_millis(millis) });
        for (discipline, alone, shared) in [
            (clock(true, 20), Grade::Fine, Grade::Fine),
            (clock(true, 1500), Grade::Note, Grade::Wrong),
            (clock(false, 16_000), Grade::Note, Grade::Wrong),
            (Err(io::Error::from_raw_os_error(1)), Grade::Unknown, Grade::Unknown),
        ] {
            assert_eq!(
                (judge(&discipline, false).grade, judge(&discipline, true).grade),
                (alone, shared),
                "{discipline:?}"
            );
        }
    }
}
