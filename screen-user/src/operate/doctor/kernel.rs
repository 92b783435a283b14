//! Whether this kernel takes the gate's programs, looked at while none runs.

use std::fs;

use super::finding::{Finding, Grade};
use crate::kernel::Demand;

const fn finding(grade: Grade, what: String, mend: Option<String>) -> Finding {
    Finding { subject: "kernel", grade, what, mend }
}

pub(super) fn judge(demands: &[Demand]) -> Vec<Finding> {
    let compiled = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok();
    demands.iter().map(demand).chain([compiler(compiled.as_deref())]).collect()
}

fn demand(demand: &Demand) -> Finding {
    match &demand.met {
        Ok(what) => finding(Grade::Fine, what.clone(), None),
        Err(error) => {
            let (what, mend) = error.apart();
            // What this process may not do, the gate may.
            let grade = match (error.exit_code(), demand.needed) {
                (77, _) => Grade::Unknown,
                (_, true) => Grade::Wrong,
                (_, false) => Grade::Note,
            };
            finding(grade, what, mend)
        }
    }
}

/// `setting`: `net.core.bpf_jit_enable`.
fn compiler(setting: Option<&str>) -> Finding {
    const KEY: &str = "net.core.bpf_jit_enable";
    match setting.map(str::trim) {
        // Only the first network namespace has it.
        None => finding(Grade::Fine, format!("{KEY} is the first network namespace's"), None),
        Some("0") => finding(
            Grade::Wrong,
            format!("{KEY} is 0: each packet is judged by interpreting the programs"),
            Some(format!("sysctl -w {KEY}=1")),
        ),
        Some(_) => finding(Grade::Fine, "the programs are compiled".to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::KernelError;

    fn of(error: KernelError, needed: bool) -> (Grade, Option<String>) {
        let found = demand(&Demand { met: Err(error), needed });
        (found.grade, found.mend)
    }

    #[test]
    fn what_is_missing_is_wrong_where_it_is_needed() {
        let missing = || KernelError::Missing { what: "no file system".into(), remedy: "mount it".into() };
        assert_eq!(of(missing(), true), (Grade::Wrong, Some("mount it".to_owned())));
        assert_eq!(of(missing(), false).0, Grade::Note);
        let privilege = KernelError::Privilege { capability: "CAP_BPF".into(), wanted_for: "this" };
        assert_eq!(of(privilege, true), (Grade::Unknown, Some("sudo mxscreen doctor".to_owned())));
        assert_eq!(demand(&Demand { met: Ok("it is there".into()), needed: true }).grade, Grade::Fine);
    }

    #[test]
    fn programs_are_to_be_compiled() {
        assert_eq!(compiler(Some("1\n")).grade, Grade::Fine);
        assert_eq!(compiler(None).grade, Grade::Fine);
        let slow = compiler(Some("0\n"));
        assert_eq!((slow.grade, slow.mend.as_deref()), (Grade::Wrong, Some("sysctl -w net.core.bpf_jit_enable=1")));
    }
}
