//! How many descriptors the gate may have: a client that waits takes one, one that is relayed two.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use serde_json::Value;

use super::finding::{Finding, Grade};
use crate::screen::policy::Limits;

/// Listeners, files and maps, and what is left over.
const OTHERS: u64 = 200;

/// What is allowed, and what it is to be enough for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptors {
    /// What the queues take when they are full.
    needed: u64,
    /// What the process may have; `None` where it could not be read.
    allowed: Option<u64>,
    /// The screener that runs; without one it is what a gate started from here may have.
    screener: Option<u64>,
}

impl Descriptors {
    pub(super) fn read(limits: &Limits, status: Option<&Value>) -> Self {
        let screener = status.and_then(|status| status["screener"].as_u64());
        let allowed = match screener {
            Some(process) => {
                let limits = fs::read_to_string(format!("/proc/{process}/limits"));
                limits.ok().and_then(|limits| open_files(&limits))
            }
            None => getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, most)| most),
        };
        let queues = u64::from(limits.pre_queue).saturating_add(limits.post_queue.into());
        Self { needed: queues.saturating_mul(2).saturating_add(OTHERS), allowed, screener }
    }
}

/// The limit in force, of proc_pid_limits(5).
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

pub(super) fn judge(descriptors: &Descriptors) -> Finding {
    let Descriptors { needed, allowed, screener } = *descriptors;
    let finding = |grade, what, mend| Finding { subject: "limits", grade, what, mend };
    let whose = if screener.is_some() { "the screener" } else { "a gate that is started here" };
    match (allowed, screener) {
        (None, _) => finding(Grade::Unknown, format!("the limit of descriptors of {whose} can't be read"), None),
        (Some(allowed), _) if allowed >= needed => {
            finding(Grade::Fine, format!("{whose} may have {allowed} descriptors; full queues take {needed}"), None)
        }
        (Some(allowed), Some(process)) => {
            let what = format!("{whose} may have {allowed} descriptors, and full queues take {needed}");
            let mend = format!("prlimit --pid {process} --nofile={needed} # and LimitNOFILE={needed} in the unit");
            finding(Grade::Wrong, what, Some(mend))
        }
        // The unit has a limit of its own.
        (Some(allowed), None) => {
            let what = format!("{whose} may have {allowed} descriptors, and full queues take {needed}");
            finding(Grade::Note, what, Some(format!("ulimit -n {needed} # by the unit: LimitNOFILE={needed}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_queues_have_to_find_room() {
        let of = |allowed, screener| judge(&Descriptors { needed: 1_000, allowed, screener }).grade;
        assert_eq!(of(Some(1_000), None), Grade::Fine);
        assert_eq!(of(Some(999), None), Grade::Note);
        assert_eq!(of(Some(1_000), Some(7)), Grade::Fine);
        assert_eq!(of(Some(999), Some(7)), Grade::Wrong);
        assert_eq!(of(None, Some(7)), Grade::Unknown);
    }

    #[test]
    fn the_limit_of_a_process_is_read() {
        let own = fs::read_to_string("/proc/self/limits").unwrap();
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(open_files(&own), Some(soft));
        assert_eq!(open_files("Max open files            unlimited"), None);
        assert_eq!(open_files(""), None);
    }
}
