//! How the gate would be attached, as far as can be said without doing it: attaching natively resets some cards.

use super::{driver_features, ethtool, is_mute, left_behind, not_there, reason, rtnetlink::Link, wish::Wish};
use crate::kernel::{
    KernelError,
    plan::Plan,
    status::{Interface, Mode, Step},
};

/// An interface that the gate is to be on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prospect {
    /// The way that nothing speaks against, and what speaks against better ones.
    pub interface: Interface,
    /// Its driver, if it has one.
    pub driver: Option<String>,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Whether its driver has native XDP; `None` where the kernel does not say (before Linux 6.3).
    pub native: Option<bool>,
}

/// Looks at the interfaces of the calling thread's network namespace that `plan` would have the gate on. Nothing is attached.
///
/// # Errors
/// A named interface is not there ([`KernelError::Missing`]), or they can't be listed.
pub fn prospects(plan: &Plan) -> Result<Vec<Prospect>, KernelError> {
    let wish = Wish::of(plan);
    let links = wish.links(&left_behind(&plan.pin_path))?;
    if let Some(missing) = wish.named.iter().find(|name| !links.values().any(|link| link.name == **name)) {
        return Err(not_there(missing));
    }
    Ok(links.values().map(|link| prospect(&wish, link)).collect())
}

fn prospect(wish: &Wish, link: &Link) -> Prospect {
    let native = driver_features::native_xdp(link.index);
    let mut steps = Vec::new();
    let mode = wish.rungs().iter().copied().find(|mode| {
        let step = wish.skip(link, *mode).or_else(|| refusal(link, *mode, native));
        let stands = step.is_none();
        steps.extend(step);
        stands
    });
    let replies = mode.is_some_and(|mode| mode.is_xdp() && !is_mute(mode, link));
    Prospect {
        interface: Interface {
            name: link.name.clone(),
            mode,
            replies,
            silent: wish.replies && mode.is_some() && !replies,
            steps,
        },
        driver: ethtool::driver(&link.name),
        mtu: link.mtu,
        native,
    }
}

/// Why the driver will refuse, as far as it is known beforehand.
fn refusal(link: &Link, mode: Mode, native: Option<bool>) -> Option<Step> {
    if mode != Mode::Native {
        return None;
    }
    if native == Some(false) {
        return Some(Step { rung: mode, reason: "the driver has no native XDP".to_owned(), remedy: None });
    }
    reason::unfit(link)
}
