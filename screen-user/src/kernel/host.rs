//! What the host must provide: privileges, file systems, interfaces.

use std::{
    fs::{self, File},
    io,
    net::Ipv4Addr,
    os::fd::AsRawFd as _,
    path::Path,
};

use aya::util::KernelVersion;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::statfs,
};

use super::KernelError;

/// The number of each capability (capabilities(7)), and what it is needed for.
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
const CAP_SYS_ADMIN: u32 = 21;
const BPF_FS_MAGIC: libc::c_long = 0xcafe_4a11;
const BPF_FS: &str = "/sys/fs/bpf";

/// Which of the capabilities that the kernel half needs this thread lacks.
pub(super) fn missing_capabilities() -> Result<Vec<&'static str>, KernelError> {
    let path = "/proc/thread-self/status";
    let status = fs::read_to_string(path).map_err(|error| KernelError::system(format!("read {path}"), error))?;
    Ok(lacking(&status))
}

/// Fails if a capability is missing.
pub(super) fn check_privileges() -> Result<(), KernelError> {
    let missing = missing_capabilities()?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(KernelError::Privilege { capability: missing.join(", "), wanted_for: "to load and attach the kernel programs" })
}

/// Fails on a kernel that lacks what the programs use, or on which nobody has tried them: `cargo xtask oldest` does on this one.
pub(super) fn require_kernel() -> Result<(), KernelError> {
    // One that does not say its version may be any; loading the programs will tell.
    if KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(6, 1, 0)) {
        return Err(KernelError::Missing {
            what: "this kernel is too old for the kernel half".to_owned(),
            remedy: "Linux 6.1 or later is needed".to_owned(),
        });
    }
    Ok(())
}

fn lacking(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .unwrap_or(0);
    let has = |number: u32| effective & (1 << number) != 0;
    CAPABILITIES
        .into_iter()
        // CAP_SYS_ADMIN stands for the two that were split off from it.
        .filter(|(number, _)| !(has(*number) || *number > CAP_SYS_ADMIN && has(CAP_SYS_ADMIN)))
        .map(|(_, name)| name)
        .collect()
}

/// Makes sure that `path` is below a BPF file system, mounting the usual one if need be; returns what there is to say of it.
pub(super) fn require_bpf_fs(path: &Path) -> Result<Option<String>, KernelError> {
    if is_bpf_fs(path) {
        return Ok(None);
    }
    if path.starts_with(BPF_FS) && Path::new(BPF_FS).is_dir() {
        let mounted = mount(Some("bpf"), BPF_FS, Some("bpf"), MsFlags::empty(), None::<&str>);
        if mounted.is_ok() && is_bpf_fs(path) {
            return Ok(Some(format!(
                "no BPF file system was mounted at {BPF_FS}, and the gate mounted one: in a mount namespace of its own (as under \
                 `ip netns exec`) nobody else sees the pins, and they end with the gate"
            )));
        }
    }
    Err(no_bpf_fs(path))
}

/// Whether [`require_bpf_fs`] would find a BPF file system, or mount one; in words.
pub(super) fn find_bpf_fs(path: &Path) -> Result<String, KernelError> {
    if is_bpf_fs(path) {
        return Ok(format!("{} is on a BPF file system", path.display()));
    }
    if path.starts_with(BPF_FS) && Path::new(BPF_FS).is_dir() {
        return Ok(format!("no BPF file system is mounted at {BPF_FS} yet; the gate will mount one"));
    }
    Err(no_bpf_fs(path))
}

fn no_bpf_fs(path: &Path) -> KernelError {
    KernelError::Missing {
        what: format!("{} is not on a BPF file system", path.display()),
        remedy: format!("mount -t bpf bpf {BPF_FS}"),
    }
}

fn is_bpf_fs(path: &Path) -> bool {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    existing.and_then(|ancestor| statfs(ancestor).ok()).is_some_and(|stat| stat.filesystem_type().0 == BPF_FS_MAGIC)
}

/// This thread's network namespace.
pub(super) fn network_namespace() -> Result<File, KernelError> {
    let path = "/proc/thread-self/ns/net";
    File::open(path).map_err(|error| KernelError::system(format!("open {path}"), error))
}

/// The number that the cgroup programs know this thread's network namespace by.
pub(super) fn netns_cookie() -> Result<u64, KernelError> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .map_err(|error| KernelError::system("make a socket", error))?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option writes at most `length` bytes to `cookie`, which has that many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        return Ok(cookie);
    }
    Err(KernelError::Missing {
        what: format!("the kernel does not tell network namespaces apart ({})", io::Error::last_os_error()),
        remedy: "Linux 6.1 or later is needed".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_named() {
        assert_eq!(lacking("CapInh:\t0\nCapEff:\t0000000000000000\n"), ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
        assert_eq!(lacking("CapEff:\t000001ffffffffff\n"), [""; 0]);
        assert_eq!(lacking("CapEff:\t0000000000200000\n"), ["CAP_NET_ADMIN"]);
        assert_eq!(lacking("CapEff:\t000000c000001000\n"), [""; 0]);
    }
}
