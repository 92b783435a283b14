//! The rungs of the ladder: how the gate's programs are attached to an interface and taken off again.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, TcAttachType, Xdp, XdpMode,
        links::FdLink,
        tc::{NlOptions, TcAttachOptions, TcError, qdisc_add_clsact, qdisc_detach_program},
        xdp::XdpError,
    },
};
use nix::net::if_::if_indextoname;
use screen_common::abi::program;

use super::rtnetlink::{self, Link, XdpFlag};
use crate::kernel::{
    KernelError,
    object::{gate_tc, program_mut},
    pins::Pins,
    status::Mode,
};

/// How the pins' names begin, by what they are; the interface's index and name follow.
pub(in crate::kernel) const XDP_PREFIX: &str = "xdp-";
const TCX_PREFIX: &str = "tcx-";
/// A filter is no link and can't be pinned: this is a pin of its program, which tells that there is one.
const CLSACT_PREFIX: &str = "clsact-";

/// Why a rung does not hold.
pub(super) enum Refusal {
    /// The kernel does not take it there, for this reason and, in its words or the driver's, for that.
    Refused(io::Error, Option<String>),
    /// Something else went wrong.
    Failed(KernelError),
}

impl From<KernelError> for Refusal {
    fn from(error: KernelError) -> Self {
        Self::Failed(error)
    }
}

/// Whether `pin` is the pin of a gate on an interface.
pub(in crate::kernel) fn is_gate(pin: &str) -> bool {
    [XDP_PREFIX, TCX_PREFIX, CLSACT_PREFIX].iter().any(|prefix| pin.starts_with(prefix))
}

/// Attaches the gate in the way that `mode` says and pins it; returns the pin's name.
pub(super) fn attach(ebpf: &mut Ebpf, pins: &Pins, link: &Link, mode: Mode) -> Result<String, Refusal> {
    match mode {
        Mode::Native => attach_xdp(ebpf, pins, link, XdpMode::Driver, XdpFlag::Native),
        Mode::Generic => attach_xdp(ebpf, pins, link, XdpMode::Skb, XdpFlag::Generic),
        Mode::Tcx => attach_tcx(ebpf, pins, link),
        Mode::Clsact => attach_clsact(ebpf, pins, link),
    }
}

fn attach_xdp(ebpf: &mut Ebpf, pins: &Pins, link: &Link, mode: XdpMode, flag: XdpFlag) -> Result<String, Refusal> {
    let gate: &mut Xdp = program_mut(ebpf, program::GATE)?;
    let pin = pin_name(XDP_PREFIX, link);
    let former = pins.link(&pin).exists();
    if former && link.native == matches!(flag, XdpFlag::Native) {
        let program = gate.fd().map_err(KernelError::program(program::GATE))?;
        if pins.succeed(&pin, program.as_fd())? {
            return Ok(pin);
        }
    } else if former {
        // A program can't change from the driver to behind it.
        pins.release(|name| name == pin);
    }
    let id = match gate.attach_to_if_index(link.index, mode) {
        Ok(id) => id,
        Err(error) => {
            let descriptor: Option<BorrowedFd<'_>> = gate.fd().ok().map(|fd| fd.as_fd());
            let complaint = descriptor.and_then(|program| rtnetlink::complaint(link.index, program, flag));
            return Err(Refusal::Refused(system_error(error), complaint));
        }
    };
    let attached = gate.take_link(id).map_err(KernelError::program(program::GATE))?;
    let attached = FdLink::try_from(attached).map_err(|source| KernelError::Link { program: program::GATE, source })?;
    keep(pins, attached, XDP_PREFIX, link)
}

/// Before all others, as behind one that takes packets for itself the gate would not be asked.
fn attach_tcx(ebpf: &mut Ebpf, pins: &Pins, link: &Link) -> Result<String, Refusal> {
    let gate = gate_tc(ebpf)?;
    let pin = pin_name(TCX_PREFIX, link);
    let program = gate.fd().map_err(KernelError::program(program::GATE_TC))?;
    if pins.succeed(&pin, program.as_fd())? {
        return Ok(pin);
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = gate.attach_with_options(&link.name, TcAttachType::Ingress, order).map_err(refused)?;
    let attached = gate.take_link(id).map_err(KernelError::program(program::GATE_TC))?;
    let attached =
        FdLink::try_from(attached).map_err(|source| KernelError::Link { program: program::GATE_TC, source })?;
    keep(pins, attached, TCX_PREFIX, link)
}

fn attach_clsact(ebpf: &mut Ebpf, pins: &Pins, link: &Link) -> Result<String, Refusal> {
    // There may be one, with other filters in it. It stays when the gate goes: by then it may hold other people's.
    if let Err(error) = qdisc_add_clsact(&link.name) {
        let refusal = refused(error.into());
        if !matches!(&refusal, Refusal::Refused(error, _) if error.raw_os_error() == Some(libc::EEXIST)) {
            return Err(refusal);
        }
    }
    let gate = gate_tc(ebpf)?;
    let pin = pin_name(CLSACT_PREFIX, link);
    let path = pins.link(&pin);
    // A former gate's: a filter can't be given another program.
    pins.release(|name| name == pin);
    // First the note that there is a filter, then the filter: a gate that is killed in between leaves none without a note.
    gate.pin(&path).map_err(|error| KernelError::system(format!("pin {}", path.display()), io::Error::other(error)))?;
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let id = match gate.attach_with_options(&link.name, TcAttachType::Ingress, options) {
        Ok(id) => id,
        Err(error) => {
            pins.release(|name| name == pin);
            return Err(refused(error));
        }
    };
    // It is to outlive this process, and `detach_filter` finds it by its name.
    std::mem::forget(gate.take_link(id).map_err(KernelError::program(program::GATE_TC))?);
    Ok(pin)
}

/// Where `pin` is the note of a filter, takes the filter off its interface, and says so.
pub(in crate::kernel) fn detach_filter(pin: &str) -> bool {
    let Some(rest) = pin.strip_prefix(CLSACT_PREFIX) else { return false };
    let index = rest.split('-').next().and_then(|index| index.parse().ok());
    // An interface that is gone has taken its filters with it.
    if let Some(name) = index.and_then(|index: u32| if_indextoname(index).ok()).and_then(|name| name.into_string().ok())
        && let Err(error) = qdisc_detach_program(&name, TcAttachType::Ingress, program::GATE_TC)
    {
        tracing::debug!("no filter was taken off {name}: {error}");
    }
    true
}

fn keep(pins: &Pins, attached: FdLink, prefix: &str, link: &Link) -> Result<String, Refusal> {
    let pin = pin_name(prefix, link);
    // What is left of an interface that had this index before.
    pins.release(|name| name == pin);
    pins.keep(attached, &pin)?;
    Ok(pin)
}

fn pin_name(prefix: &str, link: &Link) -> String {
    // Names in a BPF file system hold no dots.
    format!("{prefix}{}-{}", link.index, link.name.replace(['.', '/'], "_"))
}

/// A refusal in TC, where netlink's words are part of the error.
fn refused(error: ProgramError) -> Refusal {
    let said = match &error {
        ProgramError::TcError(error) => Some(error.to_string()),
        _ => None,
    };
    Refusal::Refused(system_error(error), said)
}

fn system_error(error: ProgramError) -> io::Error {
    let number = match &error {
        ProgramError::SyscallError(call) => call.io_error.raw_os_error(),
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
        ProgramError::TcError(TcError::NetlinkError(error)) => error.raw_os_error(),
        ProgramError::TcError(TcError::IoError(error)) => error.raw_os_error(),
        _ => None,
    };
    number.map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
}
