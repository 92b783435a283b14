//! How the gate would be attached to this host's interfaces, looked at while none runs.

use super::finding::{Finding, Grade};
use crate::kernel::{KernelError, Mode, Prospect};

const fn finding(grade: Grade, what: String, mend: Option<String>) -> Finding {
    Finding { subject: "interfaces", grade, what, mend }
}

pub(super) fn judge(prospects: &Result<Vec<Prospect>, KernelError>) -> Vec<Finding> {
    match prospects {
        Err(error) => {
            let (what, mend) = error.apart();
            vec![finding(Grade::Wrong, what, mend)]
        }
        Ok(prospects) if prospects.is_empty() => {
            let what = "no interface has a global address: the gate is attached nowhere, the screener decides";
            vec![finding(Grade::Note, what.to_owned(), Some("ip -br address".to_owned()))]
        }
        Ok(prospects) => prospects.iter().map(one).collect(),
    }
}

/// The way that is likely, and the first thing that stands in the way of a better one.
fn one(prospect: &Prospect) -> Finding {
    let Prospect { interface, driver, mtu, native } = prospect;
    let driver = driver.as_deref().unwrap_or("no driver");
    let untold = if interface.mode == Some(Mode::Native) && native.is_none() { ", if the driver has it" } else { "" };
    let way = interface.mode_name();
    let what = format!("{}: likely {way}{untold} ({driver}, MTU {mtu})", interface.name);
    match interface.steps.first() {
        None => finding(Grade::Fine, what, None),
        Some(step) => {
            finding(Grade::Note, format!("{what}, and not {}: {}", step.rung, step.reason), step.remedy.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Interface, Step};

    fn prospect(mode: Mode, native: Option<bool>, steps: Vec<Step>) -> Prospect {
        let interface = Interface { name: "eth0".into(), mode: Some(mode), replies: true, silent: false, steps };
        Prospect { interface, driver: Some("virtio_net".into()), mtu: 1_500, native }
    }

    #[test]
    fn the_way_is_told_and_what_mends_it() {
        let of = |prospect| judge(&Ok(vec![prospect])).remove(0);
        let sure = of(prospect(Mode::Native, Some(true), Vec::new()));
        assert_eq!((sure.grade, sure.what.as_str()), (Grade::Fine, "eth0: likely native (virtio_net, MTU 1500)"));
        let unsure = of(prospect(Mode::Native, None, Vec::new()));
        assert!(unsure.what.contains("if the driver has it"), "{unsure:?}");
        let step = Step { rung: Mode::Native, reason: "it is taken".into(), remedy: Some("free it".into()) };
        let lower = of(prospect(Mode::Tcx, Some(true), vec![step]));
        assert_eq!((lower.grade, lower.mend.as_deref()), (Grade::Note, Some("free it")));
        assert!(lower.what.ends_with("and not native: it is taken"), "{lower:?}");
    }

    #[test]
    fn an_interface_that_is_not_there_is_wrong() {
        let missing = KernelError::Missing { what: "there is no interface eth9".into(), remedy: "ip link".into() };
        assert_eq!(judge(&Err(missing))[0].grade, Grade::Wrong);
        assert_eq!(judge(&Ok(Vec::new()))[0].grade, Grade::Note);
    }
}
