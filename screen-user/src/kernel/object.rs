//! The kernel half's object: loaded, checked by the kernel, and attached.

use std::fs::File;

use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{
        CgroupAttachMode, CgroupSock, CgroupSockAddr, Iter, SchedClassifier, SkLookup, SockOps, Xdp, links::FdLink,
    },
};
use screen_common::abi::program;

use super::{KernelError, pins::Pins};

/// The object that `build.rs` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gate"));

/// The name hooks, which attach to the cgroup root alike.
const NAME_HOOKS: [&str; 4] = [program::PEERNAME4, program::PEERNAME6, program::SOCKNAME4, program::SOCKNAME6];

/// The programs that note who binds the mail server's port, likewise.
const OWNER_HOOKS: [&str; 2] = [program::OWNER4, program::OWNER6];

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
    for name in OWNER_HOOKS {
        load_program::<CgroupSock>(&mut ebpf, name, CgroupSock::load)?;
    }
    Ok(ebpf)
}

/// Loads the program that walks over sockets, which not every kernel takes.
pub(super) fn load_walk(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let btf = Btf::from_sys_fs()
        .map_err(|error| KernelError::system("read the kernel's types", std::io::Error::other(error)))?;
    load_program::<Iter>(ebpf, program::WALK, |walk| walk.load("tcp", &btf))
}

/// Walks over the sockets of this thread's network namespace.
pub(super) fn walk(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let name = program::WALK;
    let walk: &mut Iter = program_mut(ebpf, name)?;
    let id = walk.attach().map_err(KernelError::program(name))?;
    let link = walk.take_link(id).map_err(KernelError::program(name))?;
    let mut sockets = link.into_file().map_err(|source| KernelError::Link { program: name, source })?;
    // The program writes nothing; reading is what moves it on.
    std::io::copy(&mut sockets, &mut std::io::sink())
        .map_err(|error| KernelError::system("walk over the sockets", error))?;
    Ok(())
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

/// The program `name`.
pub(super) fn program_mut<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, KernelError>
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
    for name in OWNER_HOOKS {
        let hook: &mut CgroupSock = program_mut(ebpf, name)?;
        let id = hook.attach(root, mode).map_err(KernelError::program(name))?;
        let link = hook.take_link(id).map_err(KernelError::program(name))?;
        pins.keep(FdLink::try_from(link).map_err(|source| KernelError::Link { program: name, source })?, name)?;
    }
    Ok(())
}
