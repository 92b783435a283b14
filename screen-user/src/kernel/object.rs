//! The kernel half's object: loaded, checked by the kernel, and attached.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    os::fd::AsFd as _,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{
        CgroupAttachMode, CgroupSock, CgroupSockAddr, Iter, ProgramError, SchedClassifier, SkLookup, SockOps, Xdp,
        links::FdLink,
    },
};
use screen_common::abi::program;

use super::{KernelError, former::KEPT, pins::Pins};

/// The object that `build.rs` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gate"));

/// The name hooks, which attach to the cgroup root alike.
const NAME_HOOKS: [&str; 4] = [program::PEERNAME4, program::PEERNAME6, program::SOCKNAME4, program::SOCKNAME6];

/// The programs that note who binds the mail server's port, likewise.
const OWNER_HOOKS: [&str; 2] = [program::OWNER4, program::OWNER6];

/// Makes the maps, but for those that `kept` has pinned. Without `debug` the verifier will remove all that writes messages.
pub(super) fn make_maps(debug: bool, kept: Option<&Pins>) -> Result<Ebpf, KernelError> {
    let level: u8 = if debug { aya_log::Level::Debug as u8 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader.override_global(aya_log::LEVEL, &level, true);
    if let Some(pins) = kept {
        for name in KEPT {
            loader.map_pin_path(name, pins.map(name));
        }
    }
    Ok(loader.load(OBJECT)?)
}

/// Loads the programs; nothing is attached yet. The gate's entry for TC is loaded when an interface needs it ([`gate_tc`]): the verifier takes
/// seconds for it, in which a gate that starts again would be missed.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    load_program::<Xdp>(ebpf, program::GATE, Xdp::load)?;
    load_program::<SkLookup>(ebpf, program::STEER, SkLookup::load)?;
    load_program::<SockOps>(ebpf, program::COUNT, SockOps::load)?;
    for name in NAME_HOOKS {
        load_program::<CgroupSockAddr>(ebpf, name, CgroupSockAddr::load)?;
    }
    for name in OWNER_HOOKS {
        load_program::<CgroupSock>(ebpf, name, CgroupSock::load)?;
    }
    Ok(())
}

/// The gate's entry for TC, loaded at its first use.
pub(super) fn gate_tc(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, KernelError> {
    let name = program::GATE_TC;
    let gate: &mut SchedClassifier = program_mut(ebpf, name)?;
    match uninterrupted(|| gate.load()) {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(gate),
        Err(error) => Err(KernelError::program(name)(error)),
    }
}

/// Loads the program that walks over sockets, which not every kernel takes.
pub(super) fn load_walk(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let btf = Btf::from_sys_fs()
        .map_err(|error| KernelError::system("read the kernel's types", std::io::Error::other(error)))?;
    load_program::<Iter>(ebpf, program::WALK, |walk| walk.load("tcp", &btf))
}

/// Walks over the sockets of this thread's network namespace; returns what the program writes.
pub(super) fn walk(ebpf: &mut Ebpf) -> Result<Vec<u8>, KernelError> {
    let name = program::WALK;
    let walk: &mut Iter = program_mut(ebpf, name)?;
    let id = walk.attach().map_err(KernelError::program(name))?;
    let link = walk.take_link(id).map_err(KernelError::program(name))?;
    let mut sockets = link.into_file().map_err(|source| KernelError::Link { program: name, source })?;
    // Reading is what moves the program on.
    let mut written = Vec::new();
    sockets.read_to_end(&mut written).map_err(|error| KernelError::system("walk over the sockets", error))?;
    Ok(written)
}

fn load_program<'a, P>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
    mut load: impl FnMut(&mut P) -> Result<(), ProgramError>,
) -> Result<(), KernelError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError> + 'a,
    P: 'a,
{
    let program: &mut P = program_mut(ebpf, name)?;
    uninterrupted(|| load(program)).map_err(KernelError::program(name))
}

/// Loads a program, again where the verifier has broken off because a signal came (`EAGAIN`), which says nothing of the program.
fn uninterrupted(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    const TRIES: usize = 20;
    let interrupted = |error: &ProgramError| matches!(error, ProgramError::LoadError { io_error, .. } if io_error.kind() == ErrorKind::WouldBlock);
    let mut outcome = load();
    for _ in 1..TRIES {
        if !outcome.as_ref().is_err_and(interrupted) {
            break;
        }
        outcome = load();
    }
    outcome
}

/// The program `name`.
pub(super) fn program_mut<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program =
        ebpf.program_mut(name).ok_or_else(|| KernelError::Plan(format!("the object has no program {name}")))?;
    <&mut P>::try_from(program).map_err(KernelError::program(name))
}

/// Attaches the program that chooses listeners, to this thread's network namespace.
pub(super) fn attach_steer(ebpf: &mut Ebpf, pins: &Pins, namespace: &File) -> Result<(), KernelError> {
    let name = program::STEER;
    let steer: &mut SkLookup = program_mut(ebpf, name)?;
    if pins.succeed(name, steer.fd().map_err(KernelError::program(name))?.as_fd())? {
        return Ok(());
    }
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
    if !pins.succeed(name, count.fd().map_err(KernelError::program(name))?.as_fd())? {
        let id = count.attach(root, mode).map_err(KernelError::program(name))?;
        let link = count.take_link(id).map_err(KernelError::program(name))?;
        pins.keep(FdLink::try_from(link).map_err(|source| KernelError::Link { program: name, source })?, name)?;
    }
    for name in NAME_HOOKS {
        let hook: &mut CgroupSockAddr = program_mut(ebpf, name)?;
        if pins.succeed(name, hook.fd().map_err(KernelError::program(name))?.as_fd())? {
            continue;
        }
        let id = hook.attach(root, mode).map_err(KernelError::program(name))?;
        let link = hook.take_link(id).map_err(KernelError::program(name))?;
        pins.keep(FdLink::try_from(link).map_err(|source| KernelError::Link { program: name, source })?, name)?;
    }
    for name in OWNER_HOOKS {
        let hook: &mut CgroupSock = program_mut(ebpf, name)?;
        if pins.succeed(name, hook.fd().map_err(KernelError::program(name))?.as_fd())? {
            continue;
        }
        let id = hook.attach(root, mode).map_err(KernelError::program(name))?;
        let link = hook.take_link(id).map_err(KernelError::program(name))?;
        pins.keep(FdLink::try_from(link).map_err(|source| KernelError::Link { program: name, source })?, name)?;
    }
    Ok(())
}
