//! Why the gate is not attached in a better way, in words, and what would mend it.

use std::{collections::BTreeSet, io};

use aya::programs::loaded_programs;

use super::{
    ethtool,
    rtnetlink::{self, Link},
};
use crate::kernel::status::{Mode, Step};

/// Native XDP wants each packet in one page of 4 KiB, with room before and behind it: no driver takes a larger MTU than this for a
/// program that does not read packets in pieces.
const LARGEST_NATIVE_MTU: u32 = 3_500;

/// Why `mode` was refused with `error`; `complaint` is what the kernel or the driver said beyond that.
pub(super) fn refused(link: &Link, mode: Mode, error: &io::Error, complaint: Option<String>) -> Step {
    let number = error.raw_os_error();
    let name = &link.name;
    if matches!(number, Some(libc::EPERM | libc::EACCES)) {
        return Step {
            rung: mode,
            reason: format!("the system does not allow it ({error})"),
            remedy: Some(
                "give the gate CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON in the network namespace's own user namespace"
                    .to_owned(),
            ),
        };
    }
    if matches!(mode, Mode::Tcx) && number == Some(libc::EINVAL) {
        return Step {
            rung: mode,
            reason: "the kernel has no tcx, which came with Linux 6.6".to_owned(),
            remedy: None,
        };
    }
    let said = complaint.unwrap_or_else(|| error.to_string());
    if !matches!(mode, Mode::Native) {
        return Step { rung: mode, reason: said, remedy: None };
    }
    let lower = said.to_lowercase();
    let merging = ethtool::merging(name);
    let remedy = if lower.contains("mtu") || lower.contains("headroom") || link.mtu > LARGEST_NATIVE_MTU {
        Some(smaller_mtu(name))
    } else if !merging.is_empty() {
        Some(format!(
            "ethtool -K {name}{}",
            merging.iter().map(|feature| format!(" {feature} off")).collect::<String>()
        ))
    } else {
        None
    };
    let driver = ethtool::driver(name).map_or_else(|| "no driver".to_owned(), |driver| format!("driver {driver}"));
    let merging = if merging.is_empty() { String::new() } else { format!(", {} on", merging.join(" and ")) };
    let said = if number == Some(libc::EOPNOTSUPP) && remedy.is_none() {
        format!("the driver has no native XDP: {said}")
    } else {
        said
    };
    Step { rung: mode, reason: format!("{said} ({driver}, MTU {}{merging})", link.mtu), remedy }
}

/// Why native XDP is bound to be refused.
pub(super) fn unfit(link: &Link) -> Option<Step> {
    (link.mtu > LARGEST_NATIVE_MTU).then(|| Step {
        rung: Mode::Native,
        reason: format!("an MTU of {} is too large for it", link.mtu),
        remedy: Some(smaller_mtu(&link.name)),
    })
}

fn smaller_mtu(interface: &str) -> String {
    // A veth's limit is its other end's, which may stand in another namespace.
    let (whose, interface) = if is_veth(interface) { (" (both ends of the pair)", "IFACE") } else { ("", interface) };
    format!("ip link set dev {interface} mtu {LARGEST_NATIVE_MTU}{whose}")
}

/// Why `mode` is not tried: XDP is taken by somebody else's programs.
pub(super) fn occupied(link: &Link, mode: Mode, foreign: &BTreeSet<u32>) -> Step {
    let names: Vec<String> = foreign.iter().map(|id| named(*id)).collect();
    let kind = if names.iter().any(|name| name.contains("xdp_dispatcher")) {
        "a dispatcher of XDP programs is attached there"
    } else {
        "another XDP program is attached there"
    };
    Step {
        rung: mode,
        reason: format!("{kind} and is left alone: {}", names.join(", ")),
        remedy: Some(format!(
            "if nothing needs it, ip link set dev {name} xdp off; where a link holds it, bpftool link detach (bpftool net show \
             dev {name} tells)",
            name = link.name
        )),
    }
}

/// Why XDP is not tried: the gate's entry for XDP reads Ethernet frames.
pub(super) fn headless(mode: Mode) -> Step {
    Step { rung: mode, reason: "its packets have no Ethernet headers".to_owned(), remedy: None }
}

/// Why a veth gets no native XDP where the kernel is to answer refused clients.
pub(super) fn mute(mode: Mode) -> Step {
    Step {
        rung: mode,
        reason: "a natively attached veth sends no replies unless its other end runs native XDP too, and kernel.deny_reply or \
                 kernel.limit_reply is \"reject\""
            .to_owned(),
        remedy: Some("native XDP on the other end, or kernel.xdp = \"native\" if silence is answer enough".to_owned()),
    }
}

/// Whether what XDP sends back over `link`, natively attached, gets nowhere: a veth delivers it only to an end that polls, as one with
/// native XDP does.
pub(super) fn is_mute(link: &Link) -> bool {
    is_veth(&link.name) && !rtnetlink::other_end(link).is_some_and(|other| other.native)
}

/// Whether `interface` is one end of a pair of virtual interfaces.
fn is_veth(interface: &str) -> bool {
    ethtool::driver(interface).is_some_and(|driver| driver == "veth")
}

/// A program by its name and number; names are for those who may see all programs.
fn named(id: u32) -> String {
    let name = loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty());
    match name {
        Some(name) => format!("{name} (program {id})"),
        None => format!("program {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(mtu: u32) -> Link {
        Link {
            index: 1,
            name: "no-such-thing".into(),
            mtu,
            ethernet: true,
            programs: BTreeSet::new(),
            native: false,
            other: None,
        }
    }

    #[test]
    fn a_refusal_names_its_cause_and_the_command_that_mends_it() {
        let error = io::Error::from_raw_os_error;
        let step = refused(&link(9_000), Mode::Native, &error(libc::EOPNOTSUPP), Some("MTU is too large".into()));
        assert!(step.reason.contains("MTU is too large") && step.reason.contains("MTU 9000"), "{}", step.reason);
        assert_eq!(step.remedy.as_deref(), Some("ip link set dev no-such-thing mtu 3500"));
        let step = refused(&link(1_500), Mode::Native, &error(libc::EOPNOTSUPP), None);
        assert!(step.reason.contains("no native XDP") && step.remedy.is_none(), "{}", step.reason);
        let step = refused(&link(1_500), Mode::Generic, &error(libc::EPERM), None);
        assert!(step.remedy.unwrap().contains("CAP_NET_ADMIN"));
        let step = refused(&link(1_500), Mode::Tcx, &error(libc::EINVAL), None);
        assert!(step.reason.contains("6.6"), "{}", step.reason);
    }

    #[test]
    fn an_occupant_is_named() {
        let step = occupied(&link(1_500), Mode::Native, &BTreeSet::from([u32::MAX]));
        assert!(step.reason.contains("program 4294967295") && step.remedy.is_some(), "{}", step.reason);
    }
}
