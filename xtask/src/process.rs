//! Running other programs.

use std::{
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Says what comes next, at once, even into a pipe.
pub(crate) fn say(text: &str) {
    println!("{text}");
    // A closed standard output is met again by the next print, which ends the program.
    let _ = std::io::stdout().flush();
}

/// Cargo, with the workspace as its working directory.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(workspace::root());
    // A cargo that is started by `cargo run` must choose its toolchain by itself, or `+TOOLCHAIN` has no effect on rustc.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTDOC");
    // What `cargo run` says about xtask itself; build scripts that watch these variables would take them for a change.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a program to its end; an unsuccessful one is an error that shows its command line.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("can't start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs a program to its end and gives what it wrote; an unsuccessful one is an error with its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("can't start {}", shown(command)))?;
    if !output.status.success() {
        bail!("{} ended with {}: {}", shown(command), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command line as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A program's full path, looked for where a root shell would; an ordinary user's PATH lacks the `sbin` folders.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .map(|home| home.join("bin"));
    std::env::split_paths(&path)
        .chain(home)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A command that runs as root: as it is for root, through sudo for others.
///
/// # Errors
/// When this is not root and there is no sudo, or sudo would ask for a password that nobody can type.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if !can_become_root() {
        bail!("{} needs root: run this as root, or install and set up sudo", program.as_ref().to_string_lossy());
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    Ok(command)
}

/// Whether root's rights are to be had: by being root, by sudo without a password, or by sudo and somebody at the terminal.
pub(crate) fn can_become_root() -> bool {
    if is_root() {
        return true;
    }
    if find("sudo").is_none() {
        return false;
    }
    let silent = Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    silent.is_ok_and(|status| status.success()) || std::io::IsTerminal::is_terminal(&std::io::stdin())
}

/// A started program that ends, at the latest, together with this value.
pub(crate) struct Guarded(pub(crate) Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended by itself, then there is nothing left to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
