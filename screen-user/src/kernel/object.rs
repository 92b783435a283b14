//! The kernel half's object: loaded, checked by the kernel, and attached.

use std::fs::File;

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        CgroupAttachMode, CgroupSockAddr, SchedClassifier, SkLookup, SockOps, Xdp, XdpMode as Attach, links::FdLink,
    },
};
use screen_common::abi::program;

use super::{
    KernelError,
    pins::Pins,
    status::{Interface, Mode},
};
use crate::config::XdpMode;

/// How the names of XDP links begin; the interface's index and name follow.
pub(super) const XDP_PREFIX: &str = "xdp-";

/// The object that `build.rs` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gate"));

/// The name hooks, which attach to the cgroup root alike.
const NAME_HOOKS: [&str; 4] = [program::PEERNAME4, program::PEERNAME6, program::SOCKNAME4, program::SOCKNAME6];

/// Makes the maps and loads the programs; nothing is attached yet. Without `debug` the verifier removes all that writes messages.
pub(super) fn load(debug: bool) -> Result<Ebpf, KernelError> {
    let level: u8 = if debug { aya_log::Level::Debug as u8 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader.override_global(aya_log::LEVEL, &level, true);
    let mut ebpf = loader.load(OBJECT)?;
    load_program::<Xdp>(&mut ebpf, program::GATE, Xdp::load)?;
    load_program::<SchedClassifier>(&mut ebpf, program::GATE_TC, SchedClassifier::load)?;
    load_program::<SkLookup>(&mut ebpf, program::STEER, SkLookup::load)?;
    load_program::<SockOps>(&mut ebpf, program::COUNT, SockOps::load)?;
    for name in NAME_HOOKS {
        load_program::<CgroupSockAddr>(&mut ebpf, name, CgroupSockAddr::load)?;
    }
    Ok(ebpf)
}

fn load_program<'a, P>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
    load: impl FnOnce(&mut P) -> Result<(), aya::programs::ProgramError>,
) -> Result<(), KernelError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError> + 'a,
    P: 'a,
{
    load(program_mut(ebpf, name)?).map_err(KernelError::program(name))
}

fn program_mut<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program =
        ebpf.program_mut(name).ok_or_else(|| KernelError::Plan(format!("the object has no program {name}")))?;
    <&mut P>::try_from(program).map_err(KernelError::program(name))
}

/// Attaches the program that chooses listeners, to this thread's network namespace.
pub(super) fn attach_steer(ebpf: &mut Ebpf, pins: &Pins, namespace: &File) -> Result<(), KernelError> {
    let name = program::STEER;
    let steer: &mut SkLookup = program_mut(ebpf, name)?;
    let id = steer.attach(namespace).map_err(KernelError::program(name))?;
    let link = steer.take_link(id).map_err(KernelError::program(name))?;
    pins.keep(link.into(), name)
}

/// Attaches the program that counts and the name hooks, to the root of the cgroup2 hierarchy.
pub(super) fn attach_to_cgroup(ebpf: &mut Ebpf, pins: &Pins, root: &File) -> Result<(), KernelError> {
    // A link stands beside other programs whatever its mode; the mode that asks for it is refused for links.
    let mode = CgroupAttachMode::Single;
    let name = program::COUNT;
    let count: &mut SockOps = program_mut(ebpf, name)?;
    let id = count.attach(root, mode).map_err(KernelError::program(name))?;
    let link = count.take_link(id).map_err(KernelError::program(name))?;
    pins.keep(FdLink::try_from(link).map_err(|source| KernelError::Link { program: name, source })?, name)?;
    for name in NAME_HOOKS {
        let hook: &mut CgroupSockAddr = program_mut(ebpf, name)?;
        let id = hook.attach(root, mode).map_err(KernelError::program(name))?;
        let link = hook.take_link(id).map_err(KernelError::program(name))?;
        pins.keep(FdLink::try_from(link).map_err(|source| KernelError::Link { program: name, source })?, name)?;
    }
    Ok(())
}

/// Attaches the gate to an interface in the best way that `wanted` allows. An interface that takes it in no way is reported, not
/// an error, unless one way was asked for by name: the screener decides what XDP does not.
pub(super) fn attach_gate(
    ebpf: &mut Ebpf,
    pins: &Pins,
    (interface, index): (String, u32),
    wanted: XdpMode,
) -> Result<Interface, KernelError> {
    let ways: &[(Mode, Attach)] = match wanted {
        XdpMode::Auto => &[(Mode::Native, Attach::Driver), (Mode::Generic, Attach::Skb)],
        XdpMode::Native => &[(Mode::Native, Attach::Driver)],
        XdpMode::Generic => &[(Mode::Generic, Attach::Skb)],
    };
    let name = program::GATE;
    let gate: &mut Xdp = program_mut(ebpf, name)?;
    let mut reasons = Vec::new();
    for (mode, flags) in ways {
        let id = match gate.attach_to_if_index(index, *flags) {
            Ok(id) => id,
            Err(source) if wanted != XdpMode::Auto => return Err(KernelError::Program { program: name, source }),
            Err(error) => {
                reasons.push(format!("{mode}: {}", with_causes(&error)));
                continue;
            }
        };
        let link = gate.take_link(id).map_err(KernelError::program(name))?;
        let link = FdLink::try_from(link).map_err(|source| KernelError::Link { program: name, source })?;
        pins.keep(link, &format!("{XDP_PREFIX}{index}-{}", interface.replace(['.', '/'], "_")))?;
        return Ok(Interface { name: interface, mode: Some(*mode), reason: join(&reasons) });
    }
    Ok(Interface { name: interface, mode: None, reason: join(&reasons) })
}

fn join(reasons: &[String]) -> Option<String> {
    if reasons.is_empty() { None } else { Some(reasons.join("; ")) }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
