//! The gate on the host's interfaces: the best way that each one takes, and what stood in the way of better ones.
//!
//! Interfaces come and go. [`Interfaces::refresh`] makes what is attached agree with what is there, and [`LinkChanges`] tells when to
//! call it.

mod ethtool;
mod reason;
mod rtnetlink;
mod rung;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
    programs::Xdp,
};
use screen_common::abi::{map, program};
use tokio::io::unix::AsyncFd;

use self::{
    rtnetlink::{Changes, Link},
    rung::Refusal,
};
use super::{
    KernelError,
    object::program_mut,
    pins::Pins,
    plan::Plan,
    status::{Interface, Mode, Step},
    syscall,
};
use crate::config::{KernelReply, XdpMode};

pub(super) use self::rung::{detach_filter, is_gate};

/// A network that is being set up changes a lot at once.
const SETTLING: Duration = Duration::from_millis(50);

/// The interfaces that the gate is on, or should be.
#[derive(Debug)]
pub(super) struct Interfaces {
    /// Those that are named; none: those with a global address.
    named: Vec<String>,
    wanted: XdpMode,
    /// Whether the gate is to send replies.
    replies: bool,
    /// By index.
    present: BTreeMap<u32, Gated>,
    /// The indices of those that the gate can't transmit on, for the programs to know.
    mute: HashMap<MapData, u32, u32>,
    /// Set when the port has been given back: from then on nothing is attached any more.
    released: bool,
}

/// An interface that is there.
#[derive(Debug)]
struct Gated {
    /// As it was when the gate was attached.
    link: Link,
    interface: Interface,
    /// Where the link is pinned, if the gate is attached.
    pin: Option<String>,
    /// Whether another way may be the best one by now.
    outdated: bool,
}

impl Interfaces {
    pub(super) fn new(plan: &Plan, mute: HashMap<MapData, u32, u32>) -> Self {
        Self {
            named: plan.interfaces.clone(),
            wanted: plan.xdp,
            replies: replies(plan),
            present: BTreeMap::new(),
            mute,
            released: false,
        }
    }

    /// Takes over from `plan` which interfaces are named and whether the gate is to send replies; what follows is for the next
    /// [`Interfaces::refresh`].
    pub(super) fn reconfigure(&mut self, plan: &Plan) {
        self.named.clone_from(&plan.interfaces);
        if self.replies != replies(plan) {
            self.replies = !self.replies;
            // Only there does the best way depend on it.
            let depends = |gated: &&mut Gated| reason::is_mute(&gated.link);
            self.present.values_mut().filter(depends).for_each(|gated| gated.outdated = true);
        }
    }

    /// Attaches the gate where it should be.
    ///
    /// # Errors
    ///
    /// A named interface is not there, or the way that was asked for by name is not to be had: [`KernelError::Missing`], and
    /// the caller takes off what is attached by then. Or the host's links can't be listed.
    pub(super) fn start(&mut self, ebpf: &mut Ebpf, pins: &Pins) -> Result<(), KernelError> {
        self.refresh(ebpf, pins)?;
        // What a former gate was attached to and this one is not.
        let ours: BTreeSet<&String> = self.present.values().filter_map(|gated| gated.pin.as_ref()).collect();
        pins.release(|name| is_gate(name) && !ours.contains(&name.to_owned()));
        if let Some(missing) = self.missing().next() {
            return Err(not_there(missing));
        }
        if self.wanted == XdpMode::Auto {
            return Ok(());
        }
        match self.present.values().find(|gated| gated.interface.mode.is_none()) {
            None => Ok(()),
            Some(Gated { interface, .. }) => {
                let step = interface.steps.first();
                let (mode, reason) = step.map_or(("", ""), |step| (step.rung.name(), step.reason.as_str()));
                let remedy =
                    step.and_then(|step| step.remedy.as_deref()).unwrap_or("\"auto\" takes the best way that works");
                Err(KernelError::Missing {
                    what: format!("{}: kernel.xdp asks for {mode}, which is not to be had: {reason}", interface.name),
                    remedy: remedy.to_owned(),
                })
            }
        }
    }

    /// Makes what is attached agree with what is there, in the calling thread's network namespace, which must be the one of the
    /// start; returns what has changed, in words. An interface that takes the gate in no way is no error: the screener decides there.
    ///
    /// # Errors
    ///
    /// The links can't be listed, or a link can't be pinned.
    pub(super) fn refresh(&mut self, ebpf: &mut Ebpf, pins: &Pins) -> Result<Vec<String>, KernelError> {
        let mut changes = Vec::new();
        if self.released {
            return Ok(changes);
        }
        let own = own_ids(ebpf, pins)?;
        let there = self.wanted_links(&own)?;
        let gone = |index: &u32| !there.contains_key(index);
        for index in self.present.keys().copied().filter(gone).collect::<Vec<_>>() {
            if let Some(gated) = self.present.remove(&index) {
                take_off(pins, &gated);
                self.tell_mute(index, false)?;
                changes.push(format!(
                    "{}: the gate is off, as the interface is gone or has no address left",
                    gated.interface.name
                ));
            }
        }
        for (index, link) in there {
            if let Some(gated) = self.present.get_mut(&index) {
                if !gated.outdated
                    && gated.holds(pins)
                    && (gated.link.same_conditions(&link) || gated.interface.steps.is_empty())
                {
                    gated.interface.name.clone_from(&link.name);
                    if let Some(mode) = gated.interface.mode {
                        let is_mute = is_mute(mode, &link);
                        let replies = mode.is_xdp() && !is_mute;
                        let changed = replies != gated.interface.replies;
                        gated.interface.replies = replies;
                        gated.interface.silent = self.replies && !replies;
                        if changed {
                            changes.push(gated.interface.to_string());
                        }
                        self.tell_mute(index, is_mute)?;
                    }
                    if let Some(gated) = self.present.get_mut(&index) {
                        gated.link = link;
                    }
                    continue;
                }
                // Its link is dead, or what stood in the way of something better may be gone.
                take_off(pins, gated);
            }
            let before = self.present.remove(&index).map(|gated| gated.interface);
            let gated = self.attach(ebpf, pins, link)?;
            if before.as_ref() != Some(&gated.interface) {
                changes.push(gated.interface.to_string());
            }
            self.present.insert(index, gated);
        }
        Ok(changes)
    }

    /// From now on nothing is attached any more.
    pub(super) fn release(&mut self) {
        self.released = true;
        self.present.clear();
    }

    /// Every interface that the gate is on or should be, those included that are named and not there.
    pub(super) fn list(&self) -> Vec<Interface> {
        let missing = self.missing().map(|name| Interface {
            name: name.clone(),
            mode: None,
            replies: false,
            silent: false,
            steps: vec![Step {
                rung: rungs(self.wanted).first().copied().unwrap_or(Mode::Native),
                reason: "there is no such interface at the moment".to_owned(),
                remedy: None,
            }],
        });
        self.present.values().map(|gated| gated.interface.clone()).chain(missing).collect()
    }

    /// What the gate does not do on which interface.
    pub(super) fn notes(&self) -> Vec<String> {
        let interfaces = self.list();
        if interfaces.is_empty() {
            return vec![
                "no interface has a global address; the gate is attached nowhere, the screener decides".to_owned(),
            ];
        }
        let note = |interface: &Interface| match interface.mode {
            None => Some(format!("{}: the gate is not attached; the screener decides there", interface.name)),
            Some(mode) if interface.silent => {
                Some(format!("{}: refused clients get silence, as the gate can't reply there ({mode})", interface.name))
            }
            Some(_) => None,
        };
        interfaces.iter().filter_map(note).collect()
    }

    /// The named interfaces that are not there.
    fn missing(&self) -> impl Iterator<Item = &String> {
        let there = |name: &&String| self.present.values().any(|gated| gated.interface.name == **name);
        self.named.iter().filter(move |name| !there(name))
    }

    /// The interfaces that the gate should be on, by index, without the gate itself among their programs.
    fn wanted_links(&self, own: &BTreeSet<u32>) -> Result<BTreeMap<u32, Link>, KernelError> {
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

    /// Goes down the ladder until a rung holds.
    fn attach(&mut self, ebpf: &mut Ebpf, pins: &Pins, link: Link) -> Result<Gated, KernelError> {
        let mut steps = Vec::new();
        for &mode in rungs(self.wanted) {
            if let Some(step) = self.skip(&link, mode) {
                steps.push(step);
                continue;
            }
            let is_mute = is_mute(mode, &link);
            let replies = mode.is_xdp() && !is_mute;
            self.tell_mute(link.index, is_mute)?;
            match rung::attach(ebpf, pins, &link, mode) {
                Ok(pin) => {
                    let silent = self.replies && !replies;
                    let interface = Interface { name: link.name.clone(), mode: Some(mode), replies, silent, steps };
                    return Ok(Gated { link, interface, pin: Some(pin), outdated: false });
                }
                Err(Refusal::Refused(error, complaint)) => {
                    tracing::debug!("{}: {mode}: {error}", link.name);
                    steps.push(reason::refused(&link, mode, &error, complaint));
                }
                Err(Refusal::Failed(error)) => return Err(error),
            }
        }
        let interface = Interface { name: link.name.clone(), mode: None, replies: false, silent: false, steps };
        Ok(Gated { link, interface, pin: None, outdated: false })
    }

    /// Tells the programs whether they may reply over the interface with this index.
    fn tell_mute(&mut self, index: u32, is_mute: bool) -> Result<(), KernelError> {
        let told = if is_mute { self.mute.insert(index, 1, 0) } else { self.mute.remove(&index) };
        match told {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if !is_mute && error.io_error.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            Err(error) => Err(KernelError::map(map::MUTE)(error)),
        }
    }

    /// Why a rung need not be tried.
    fn skip(&self, link: &Link, mode: Mode) -> Option<Step> {
        if !link.ethernet {
            return Some(reason::headless(mode));
        }
        if mode.is_xdp() && !link.programs.is_empty() {
            return Some(reason::occupied(link, mode, &link.programs));
        }
        let avoided = self.wanted == XdpMode::Auto && self.replies && is_mute(mode, link);
        avoided.then(|| reason::mute(mode))
    }
}

impl Gated {
    /// Whether the gate is where it was attached; where it never was there is nothing to lose.
    fn holds(&self, pins: &Pins) -> bool {
        match &self.pin {
            None => true,
            // A filter is no link.
            Some(_) if self.interface.mode == Some(Mode::Clsact) => {
                rtnetlink::has_filter(self.link.index, program::GATE_TC).is_ok_and(|there| there)
            }
            Some(pin) => syscall::link_interface(&pins.link(pin)).is_ok_and(|index| index == self.link.index),
        }
    }
}

impl Link {
    /// Whether nothing has changed of what decides in which way the gate can be attached.
    fn same_conditions(&self, other: &Self) -> bool {
        (self.mtu, self.ethernet, &self.programs) == (other.mtu, other.ethernet, &other.programs)
    }
}

/// Looks whether all these interfaces are there.
pub(super) fn require(named: &[String]) -> Result<(), KernelError> {
    let there = rtnetlink::links().map_err(|error| KernelError::system("list the interfaces", error))?;
    let is_there = |name: &&String| there.iter().any(|link| link.name == **name);
    named.iter().find(|name| !is_there(name)).map_or(Ok(()), |missing| Err(not_there(missing)))
}

fn not_there(name: &str) -> KernelError {
    KernelError::Missing {
        what: format!("there is no interface {name}"),
        remedy: "`ip link` shows those there are; see kernel.interfaces".to_owned(),
    }
}

/// Whether anybody is to hear that it is turned away.
fn replies(plan: &Plan) -> bool {
    [plan.deny_reply, plan.limit_reply].contains(&KernelReply::Reject)
}

/// The ways to attach, the best one first.
fn rungs(wanted: XdpMode) -> &'static [Mode] {
    match wanted {
        XdpMode::Auto => &[Mode::Native, Mode::Generic, Mode::Tcx, Mode::Clsact],
        XdpMode::Native => &[Mode::Native],
        XdpMode::Generic => &[Mode::Generic],
        XdpMode::Tc => &[Mode::Tcx, Mode::Clsact],
        XdpMode::Clsact => &[Mode::Clsact],
    }
}

/// Whether XDP can't transmit over `link` when it is attached so.
fn is_mute(mode: Mode, link: &Link) -> bool {
    mode == Mode::Native && reason::is_mute(link)
}

fn take_off(pins: &Pins, gated: &Gated) {
    if let Some(pin) = &gated.pin {
        pins.release(|name| name == pin);
    }
}

/// The numbers that the kernel knows the gate's XDP programs by: this one, and those that a former gate left.
fn own_ids(ebpf: &mut Ebpf, pins: &Pins) -> Result<BTreeSet<u32>, KernelError> {
    let gate: &mut Xdp = program_mut(ebpf, program::GATE)?;
    let own = gate.info().map_err(KernelError::program(program::GATE))?.id();
    let left = pins.link_names().into_iter().filter(|name| is_gate(name));
    let left = left.filter_map(|name| syscall::link_program(&pins.link(&name)).ok());
    Ok(left.chain([own]).collect())
}

/// Tells when interfaces may have changed.
#[derive(Debug)]
pub struct LinkChanges(AsyncFd<Changes>);

impl LinkChanges {
    /// Listens for changes in the calling thread's network namespace; must be called within a tokio runtime.
    pub(super) fn new() -> Result<Self, KernelError> {
        let failed = |error| KernelError::system("listen for changes of interfaces", error);
        let changes = Changes::new().map_err(failed)?;
        // SAFETY: the socket is open as long as its holder lives, and is the same each time.
        let changes = unsafe { AsyncFd::register(changes) };
        changes.map(Self).map_err(|error| failed(error.into()))
    }

    /// Waits for a change, and a moment for those that come with it.
    ///
    /// # Errors
    ///
    /// The runtime is ending.
    pub async fn next(&mut self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        tokio::time::sleep(SETTLING).await;
        // In this order: what comes in between is told once more, not lost.
        ready.clear_ready();
        ready.get_inner().drain();
        Ok(())
    }
}
