//! What is asked for: on which interfaces the gate is to be, in which way, and whether it is to reply.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    reason,
    rtnetlink::{self, Link},
};
use crate::{
    config::{KernelReply, XdpMode},
    kernel::{
        KernelError,
        plan::Plan,
        status::{Mode, Step},
    },
};

/// What a plan asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    /// The interfaces that are named; none: those with a global address.
    pub(super) named: Vec<String>,
    pub(super) mode: XdpMode,
    /// Whether anybody is to hear that it is turned away.
    pub(super) replies: bool,
}

impl Wish {
    pub(super) fn of(plan: &Plan) -> Self {
        let replies = [plan.deny_reply, plan.limit_reply].contains(&KernelReply::Reject);
        Self { named: plan.interfaces.clone(), mode: plan.xdp, replies }
    }

    /// The interfaces that the gate should be on, by index, without the programs `own` among theirs.
    pub(super) fn links(&self, own: &BTreeSet<u32>) -> Result<BTreeMap<u32, Link>, KernelError> {
        let failed = |error| KernelError::system("list the interfaces", error);
        let links = rtnetlink::links().map_err(failed)?;
        let addressed =
            if self.named.is_empty() { rtnetlink::with_global_address().map_err(failed)? } else { BTreeSet::new() };
        let wanted = |link: &Link| {
            if self.named.is_empty() { addressed.contains(&link.index) } else { self.named.contains(&link.name) }
        };
        let without_own = |mut link: Link| {
            link.programs.retain(|program| !own.contains(program));
            (link.index, link)
        };
        Ok(links.into_iter().filter(wanted).map(without_own).collect())
    }

    /// The ways to attach, the best one first.
    pub(super) const fn rungs(&self) -> &'static [Mode] {
        match self.mode {
            XdpMode::Auto => &[Mode::Native, Mode::Generic, Mode::Tcx, Mode::Clsact],
            XdpMode::Native => &[Mode::Native],
            XdpMode::Generic => &[Mode::Generic],
            XdpMode::Tc => &[Mode::Tcx, Mode::Clsact],
            XdpMode::Clsact => &[Mode::Clsact],
        }
    }

    /// Why a rung need not be tried.
    pub(super) fn skip(&self, link: &Link, mode: Mode) -> Option<Step> {
        if !link.ethernet {
            return Some(reason::headless(mode));
        }
        if mode.is_xdp() && !link.programs.is_empty() {
            return Some(reason::occupied(link, mode, &link.programs));
        }
        let avoided = self.mode == XdpMode::Auto && self.replies && is_mute(mode, link);
        avoided.then(|| reason::mute(mode))
    }
}

/// Whether XDP can't transmit over `link` when it is attached so.
pub(super) fn is_mute(mode: Mode, link: &Link) -> bool {
    mode == Mode::Native && reason::is_mute(link)
}
