//! The gate on the host's interfaces: the best way that each one takes, and what stood in the way of better ones.
//!
//! Interfaces come and go. [`Interfaces::refresh`] makes what is attached agree with what is there, and [`LinkChanges`] tells when to
//! call it.

mod driver_features;
mod ethtool;
mod prospect;
mod reason;
mod rtnetlink;
mod rung;
mod wish;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
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
    wish::{Wish, is_mute},
};
use super::{
    KernelError,
    object::program_mut,
    pins::{self, Pins},
    plan::Plan,
    status::{Interface, Mode, Step},
    syscall,
};
use crate::config::XdpMode;

pub use self::prospect::{Prospect, prospects};
pub(super) use self::rung::{detach_filter, is_gate};

/// A network that is being set up changes a lot at once.
const SETTLING: Duration = Duration::from_millis(50);

/// The interfaces that the gate is on, or should be.
#[derive(Debug)]
pub(super) struct Interfaces {
    wish: Wish,
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
        Self { wish: Wish::of(plan), present: BTreeMap::new(), mute, released: false }
    }

    /// Takes over from `plan` which interfaces are named and whether the gate is to send replies; what follows is for the next
    /// [`Interfaces::refresh`].
    pub(super) fn reconfigure(&mut self, plan: &Plan) {
        let Wish { named, replies, .. } = Wish::of(plan);
        self.wish.named = named;
        if self.wish.replies != replies {
            self.wish.replies = replies;
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
        if self.wish.mode == XdpMode::Auto {
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
        let there = self.wish.links(&own)?;
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
                        gated.interface.silent = self.wish.replies && !replies;
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
                rung: self.wish.rungs().first().copied().unwrap_or(Mode::Native),
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
        self.wish.named.iter().filter(move |name| !there(name))
    }

    /// Goes down the ladder until a rung holds.
    fn attach(&mut self, ebpf: &mut Ebpf, pins: &Pins, link: Link) -> Result<Gated, KernelError> {
        let mut steps = Vec::new();
        for &mode in self.wish.rungs() {
            if let Some(step) = self.wish.skip(&link, mode) {
                steps.push(step);
                continue;
            }
            let is_mute = is_mute(mode, &link);
            let replies = mode.is_xdp() && !is_mute;
            self.tell_mute(link.index, is_mute)?;
            match rung::attach(ebpf, pins, &link, mode) {
                Ok(pin) => {
                    let silent = self.wish.replies && !replies;
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

fn take_off(pins: &Pins, gated: &Gated) {
    if let Some(pin) = &gated.pin {
        pins.release(|name| name == pin);
    }
}

/// The numbers that the kernel knows the gate's XDP programs by: this one, and those that a former gate left.
fn own_ids(ebpf: &mut Ebpf, pins: &Pins) -> Result<BTreeSet<u32>, KernelError> {
    let gate: &mut Xdp = program_mut(ebpf, program::GATE)?;
    let own = gate.info().map_err(KernelError::program(program::GATE))?.id();
    let left = left_behind(pins.path());
    Ok(left.into_iter().chain([own]).collect())
}

/// The numbers of the XDP programs that a gate with these pins has attached.
fn left_behind(pin_path: &Path) -> BTreeSet<u32> {
    let links = pins::pinned_links(pin_path).filter(|(name, _)| is_gate(name));
    links.filter_map(|(_, path)| syscall::link_program(&path).ok()).collect()
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
