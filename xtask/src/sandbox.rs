//! A machine in a box: private process, mount, host name and IPC namespaces, in which everything is made that must not outlive the run.
//!
//! The outer process starts this program again as the first process of a new PID namespace. When either of them ends, however it ends, the kernel
//! kills what is left inside and with it go the mounts, the named network namespaces, the pins and the sockets.

use std::{
    io::Read as _,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::process;

/// Set for the inner process.
const INSIDE: &str = "MXSCREEN_XTASK_SANDBOX";

/// Whether this is the inner process.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this very command again inside a new sandbox, as root, and gives its exit status.
///
/// # Errors
/// When root's rights or namespaces are not to be had.
pub(crate) fn run_inside() -> Result<ExitCode> {
    let own = std::env::current_exe().context("can't find this program's own file")?;
    if !process::is_root() {
        // sudo drops the environment; what the inner process needs of it goes along by name.
        let mut command = process::as_root("env")?;
        for name in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR", "CI", "NO_COLOR", "COLUMNS"] {
            if let Some(value) = std::env::var_os(name) {
                let mut pair = std::ffi::OsString::from(format!("{name}="));
                pair.push(value);
                command.arg(pair);
            }
        }
        let status = command.arg(own).args(std::env::args_os().skip(1)).status().context("can't start sudo")?;
        return Ok(exit_code(status));
    }
    let flags =
        CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    unshare(flags).context("can't make namespaces (in a container: it needs CAP_SYS_ADMIN)")?;
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .context("can't make the mounts private")?;
    // The inner process takes the end of this pipe for the end of its parent.
    let mut child = Command::new(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .stdin(Stdio::piped())
        .spawn()
        .context("can't start this program in its sandbox")?;
    let lifeline = child.stdin.take();
    let status = child.wait().context("lost the sandbox")?;
    drop(lifeline);
    Ok(exit_code(status))
}

/// First thing in the inner process: `/proc` of its own, an empty `/run`, and the watch on its parent.
pub(crate) fn settle() -> Result<()> {
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        std::process::exit(130);
    });
    let nothing: Option<&str> = None;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), nothing).context("can't mount /proc")?;
    tmpfs(Path::new("/run"), "mode=755")?;
    std::fs::create_dir("/run/netns").context("can't make /run/netns")
}

/// A BPF file system of its own at the usual place: what is pinned there is gone with the sandbox.
pub(crate) fn bpffs() -> Result<()> {
    let nothing: Option<&str> = None;
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), nothing)
        .context("can't mount a BPF file system on /sys/fs/bpf")
}

/// An empty file system in memory over a folder.
pub(crate) fn tmpfs(target: &Path, options: &str) -> Result<()> {
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some(options))
        .with_context(|| format!("can't mount a tmpfs on {}", target.display()))
}

/// The exit status to end with after a child that ended so.
fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
