//! What the screener gives up before it hears the first byte from the network: files, capabilities, and all system calls but those
//! that it lives by.
//!
//! Everything it needs it holds as a descriptor by then. Each step counts for threads that are made later, so that it must be taken
//! before there are any.

use std::{collections::BTreeMap, io};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, RestrictionStatus, Ruleset, RulesetAttr as _,
    RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// The newest form of landlock that is asked for; an older kernel gives what it has.
const NEWEST: ABI = ABI::V6;

/// Why a step could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Capabilities.
    #[error("capabilities can't be given up: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// `no_new_privs`.
    #[error("new privileges can't be ruled out: {0}")]
    NewPrivileges(#[from] nix::errno::Errno),
    /// Files.
    #[error("files can't be given up: {0}")]
    Files(#[from] landlock::RulesetError),
    /// System calls.
    #[error("system calls can't be given up: {0}")]
    Calls(#[from] seccompiler::Error),
    /// The filter of system calls.
    #[error("the filter of system calls is wrong: {0}")]
    Filter(#[from] seccompiler::BackendError),
    /// The machine.
    #[error("system calls can't be given up: {0}")]
    Machine(io::Error),
}

/// Gives everything up, for the calling thread and those that it makes. Returns what could not be given up, as the kernel does not know
/// how.
///
/// # Errors
/// A step failed; the screener must not go on then.
pub fn enter() -> Result<Vec<String>, SandboxError> {
    nix::sys::prctl::set_no_new_privs()?;
    drop_capabilities()?;
    let missing = give_up_files()?;
    seccompiler::apply_filter(&filter()?)?;
    Ok(missing)
}

/// An account without privileges has none to lose; root, or a service with ambient capabilities, has.
fn drop_capabilities() -> Result<(), caps::errors::CapsError> {
    use caps::{CapSet, Capability, has_cap};

    if has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::clear(None, CapSet::Effective)?;
    caps::clear(None, CapSet::Permitted)
}

/// No rule allows anything: no file can be opened, made or removed, whoever owns it.
fn give_up_files() -> Result<Vec<String>, landlock::RulesetError> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .restrict_self()?;
    Ok(match status {
        RestrictionStatus { ruleset: RulesetStatus::NotEnforced, .. } => {
            vec!["this kernel has no landlock: system calls alone keep the screener from files".to_owned()]
        }
        _ => Vec::new(),
    })
}

/// What is not in the list fails with EPERM: a call that was forgotten must not cost a session.
fn filter() -> Result<BpfProgram, SandboxError> {
    let machine = std::env::consts::ARCH
        .try_into()
        .map_err(|error: seccompiler::BackendError| SandboxError::Machine(io::Error::other(error.to_string())))?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    #[cfg(target_arch = "x86_64")]
    rules.extend([libc::SYS_epoll_wait, libc::SYS_poll].map(|call| (call, Vec::new())));
    rules.insert(libc::SYS_bpf, one_of(MAP_COMMANDS)?);
    rules.insert(libc::SYS_socket, one_of(FAMILIES)?);
    // The keeper may have the same account: neither signals nor limits for another process.
    rules.insert(libc::SYS_tgkill, one_of(&[std::process::id().into()])?);
    rules.insert(libc::SYS_prlimit64, one_of(&[0])?);
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, machine)?;
    Ok(filter.try_into()?)
}

/// A rule for each value that the first argument may have.
fn one_of(values: &[u64]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    values
        .iter()
        .map(|&value| {
            let first = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
            SeccompRule::new(vec![first])
        })
        .collect()
}

/// Of `bpf(2)`, what reads and writes maps that it holds: nothing is made, loaded, attached or looked up by name or number. The numbers are
/// those of the kernel's `bpf.h`.
const MAP_COMMANDS: &[u64] = &[
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    15, // BPF_OBJ_GET_INFO_BY_FD
    24, // BPF_MAP_LOOKUP_BATCH
    25, // BPF_MAP_LOOKUP_AND_DELETE_BATCH
    26, // BPF_MAP_UPDATE_BATCH
    27, // BPF_MAP_DELETE_BATCH
];

/// Sockets to mail servers and resolvers, to the system log, and to ask for this host's addresses.
const FAMILIES: &[u64] = &[libc::AF_INET as u64, libc::AF_INET6 as u64, libc::AF_UNIX as u64, libc::AF_NETLINK as u64];

/// What memory, threads, timers, sockets and open files need.
const ALLOWED: &[i64] = &[
    // Descriptors that are open.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Sockets.
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    // Threads, and their end.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // The time, chance, and who we are.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_prctl,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_capget,
];
