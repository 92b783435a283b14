//! Builds the kernel half and leaves its object as `gate` in `OUT_DIR`, where `kernel::object` embeds it; beside it `traffic`, which
//! measurements send with.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use aya_build::{Package, Toolchain};

/// What each way of building needs, in one message.
const REMEDY: &str = "run `cargo xtask setup`, which installs all of it";

/// Tells the second run of this program which toolchain the first one found.
const CHOSEN: &str = "MXSCREEN_BPF_TOOLCHAIN";

fn main() -> anyhow::Result<()> {
    if let Some(toolchain) = env::var_os(CHOSEN) {
        return build(if toolchain == LINKED { Toolchain::Custom(LINKED) } else { Toolchain::Nightly });
    }
    let toolchain = toolchain()?;
    // aya-build hands its own environment on, and changing that of a running process is not safe: so this program runs once more.
    let mut again = Command::new(env::current_exe().context("no way back to this program")?);
    again.env("PATH", search_path_with_linker()?);
    // aya-build shows every line of cargo's as a warning; only real ones are to be left.
    again.env("CARGO_TERM_QUIET", "true");
    // The prebuilt `core` of a stable compiler needs leave for the two crates that use inline assembly of this target; with nightly
    // nothing does, and the variable would turn `-Z build-std` off.
    match toolchain {
        Built::Linked => again.env(CHOSEN, LINKED).env("RUSTC_BOOTSTRAP", "aya_ebpf,gate"),
        Built::Nightly => again.env(CHOSEN, "nightly").env_remove("RUSTC_BOOTSTRAP"),
    };
    if !again.status().context("this program does not start a second time")?.success() {
        bail!("the kernel half was not built; if a tool is missing, {REMEDY}");
    }
    Ok(())
}

fn build(toolchain: Toolchain<'_>) -> anyhow::Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package has no parent directory")?;
    println!("cargo:rerun-if-changed={}", workspace.join("screen-common").display());
    let package = workspace.join("screen-ebpf");
    let root_dir = package.to_str().context("the path of screen-ebpf is not UTF-8")?;
    aya_build::build_ebpf([Package { name: "screen-ebpf", root_dir, ..Default::default() }], toolchain)
}

/// The compiler that builds the kernel half.
enum Built {
    /// A rustup toolchain that brings `core` for the BPF target.
    Linked,
    /// Nightly, which builds `core` from `rust-src`.
    Nightly,
}

/// The name that the linked toolchain has.
const LINKED: &str = "bpf";

fn toolchain() -> anyhow::Result<Built> {
    let Some(toolchains) = output(Command::new("rustup").args(["toolchain", "list"])) else {
        bail!("building the kernel half needs rustup; {REMEDY}");
    };
    let mut names = toolchains.lines().filter_map(|line| line.split_whitespace().next());
    if names.clone().any(|name| name == LINKED) {
        return Ok(Built::Linked);
    }
    if names.any(|name| name.starts_with("nightly")) {
        let components =
            output(Command::new("rustup").args(["component", "list", "--installed", "--toolchain", "nightly"]));
        if components.is_some_and(|list| list.lines().any(|line| line.starts_with("rust-src"))) {
            return Ok(Built::Nightly);
        }
    }
    bail!(
        "building the kernel half needs a compiler for BPF: a rustup toolchain named `{LINKED}`, or nightly with the component \
         rust-src; {REMEDY}"
    )
}

/// `PATH`, with the directory that holds bpf-linker added if it is not on it.
fn search_path_with_linker() -> anyhow::Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let has_linker = |directory: &PathBuf| directory.join("bpf-linker").is_file();
    let mut directories: Vec<PathBuf> = env::split_paths(&path).collect();
    if directories.iter().any(has_linker) {
        return Ok(path);
    }
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let own = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let Some(found) = [cargo_home, own].into_iter().flatten().map(|home| home.join("bin")).find(has_linker) else {
        bail!("building the kernel half needs bpf-linker, on the PATH or in ~/.cargo/bin; {REMEDY}");
    };
    directories.push(found);
    env::join_paths(directories).context("a directory of the PATH holds a colon")
}

/// What a command prints, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
