//! `cargo xtask setup`: everything that building, checking and testing need, on Debian and Ubuntu.
//!
//! What is there already is found by looking at files alone, so that a set-up machine loses no time.

mod asleep;
mod deb;
pub(crate) mod debian;
mod fuzz;
mod haraka;
mod mta;
mod postfix;
mod uplot;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::process::{self, find, say};

/// The release of bpf-linker that the recipe was tried with.
const BPF_LINKER: &str = "0.13.0";
/// Where the LLVM of [`BPF_TOOLCHAIN`] is.
const LLVM: &str = "/usr/lib/llvm-22";

/// What somebody may want to do, each with its own needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Build the gate.
    Build,
    /// Run the checks of `cargo xtask lint`.
    Lint,
    /// Run the gate in network namespaces, with mail servers and scripted clients.
    Sandbox,
    /// Have mail programs that others use before and behind the gate.
    MailPrograms,
    /// Have hosts share what they know.
    Redis,
    /// Hold metrics and alert rules against Prometheus' own tool.
    Prometheus,
    /// Draw the dashboard's picture.
    Picture,
    /// Run the fuzz targets.
    Fuzz,
    /// Boot another kernel.
    Emulation,
    /// Make the Debian package.
    Packaging,
    /// Have a Debian to try it on.
    Machine,
    /// Measure the kernel half beside other filters.
    Rivals,
    /// Measure the relay beside another proxy.
    Proxy,
}

/// A Debian package, and the file that shows that it (or something as good) is there.
struct Package {
    part: Part,
    names: &'static [&'static str],
    present: fn() -> bool,
}

/// Packages by what they are for. The first name that the distribution knows is taken.
const PACKAGES: &[Package] = &[
    Package { part: Part::Build, names: &["gcc"], present: || find("cc").is_some() },
    Package { part: Part::Build, names: &["libc6-dev"], present: || Path::new("/usr/include/stdlib.h").exists() },
    Package { part: Part::Sandbox, names: &["python3"], present: || find("python3").is_some() },
    Package { part: Part::Sandbox, names: &["iproute2"], present: || find("ip").is_some() },
    Package { part: Part::Sandbox, names: &["ethtool"], present: || find("ethtool").is_some() },
    Package { part: Part::Sandbox, names: &["tmux"], present: || find("tmux").is_some() },
    Package { part: Part::Sandbox, names: &["util-linux"], present: || find("nsenter").is_some() },
    Package { part: Part::Sandbox, names: &["openssl"], present: || find("openssl").is_some() },
    Package { part: Part::Sandbox, names: &["bpftool", "linux-tools-generic"], present: || find("bpftool").is_some() },
    Package { part: Part::MailPrograms, names: &["swaks"], present: || find("swaks").is_some() },
    Package { part: Part::MailPrograms, names: &["libnet-ssleay-perl"], present: has_perl_tls },
    Package { part: Part::MailPrograms, names: &["nmap"], present: || find("nmap").is_some() },
    Package { part: Part::MailPrograms, names: &["npm"], present: || find("npm").is_some() },
    Package { part: Part::Picture, names: &["npm"], present: || find("npm").is_some() },
    Package { part: Part::Picture, names: &["chromium"], present: || find("chromium").is_some() },
    Package { part: Part::Emulation, names: &["qemu-system-x86"], present: || find("qemu-system-x86_64").is_some() },
    Package { part: Part::Emulation, names: &["busybox-static"], present: has_static_busybox },
    Package { part: Part::Packaging, names: &["dpkg-dev"], present: || find("dpkg-shlibdeps").is_some() },
    Package { part: Part::Packaging, names: &["systemd"], present: || find("systemd-analyze").is_some() },
    Package { part: Part::Machine, names: &["debootstrap"], present: || find("debootstrap").is_some() },
    Package { part: Part::Machine, names: &["e2fsprogs"], present: || find("mke2fs").is_some() },
    Package { part: Part::Rivals, names: &["nftables"], present: || find("nft").is_some() },
    Package { part: Part::Rivals, names: &["ipset"], present: || find("ipset").is_some() },
    Package { part: Part::Rivals, names: &["ethtool"], present: || find("ethtool").is_some() },
    Package { part: Part::Fuzz, names: &["g++"], present: || find("c++").is_some() },
];

/// A rustc that ships `core` for BPF, and its linker's library. `rustc-web` is Debian's current compiler beside its stable one.
const BPF_TOOLCHAIN: &[&str] = &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "llvm-22-dev", "libpolly-22-dev"];

/// Everything that a change has to pass; fuzzing, measurements and the picture fetch their own. Says what it found.
pub(crate) fn everything() -> Result<ExitCode> {
    ensure(&[
        Part::Build,
        Part::Lint,
        Part::Sandbox,
        Part::MailPrograms,
        Part::Redis,
        Part::Prometheus,
        Part::Packaging,
    ])?;
    say("everything is there");
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing for these parts; silent and quick when nothing is.
///
/// # Errors
/// When something can't be had; the message says what, and what would help.
pub(crate) fn ensure(parts: &[Part]) -> Result<()> {
    let mut missing = Vec::new();
    for package in PACKAGES.iter().filter(|package| parts.contains(&package.part)) {
        if !(package.present)() {
            missing.push(package.names);
        }
    }
    install(&missing)?;
    if parts.contains(&Part::Build) || parts.contains(&Part::Lint) {
        bpf_toolchain()?;
    }
    if parts.contains(&Part::Lint) {
        cargo_components()?;
    }
    if parts.contains(&Part::Sandbox) {
        postfix::ensure()?;
        bpffs()?;
    }
    if parts.contains(&Part::MailPrograms) {
        mta::ensure()?;
        haraka::ensure()?;
    }
    // It brings redis-cli, and is the sentinel as well.
    if parts.contains(&Part::Redis) && find("redis-server").is_none() {
        asleep::install_asleep("redis-server")?;
    }
    if parts.contains(&Part::Prometheus) && find("promtool").is_none() {
        asleep::install_asleep("prometheus")?;
    }
    if parts.contains(&Part::Proxy) && find("haproxy").is_none() {
        asleep::install_asleep("haproxy")?;
    }
    if parts.contains(&Part::Picture) {
        uplot::ensure()?;
    }
    if parts.contains(&Part::Packaging) {
        deb::ensure()?;
    }
    if parts.contains(&Part::Machine) {
        debian::ensure()?;
    }
    if parts.contains(&Part::Fuzz) {
        fuzz::ensure()?;
    }
    Ok(())
}

/// Whether the busybox that is there needs no libraries; another package of that name has fewer commands.
fn has_static_busybox() -> bool {
    Path::new("/bin/busybox").exists() && Path::new("/usr/share/doc/busybox-static").exists()
}

/// Whether Perl has the TLS that swaks uses. Its folder has the machine's architecture and Perl's version in its name.
fn has_perl_tls() -> bool {
    let inside = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    inside("/usr/lib".into())
        .flat_map(|architecture| inside(architecture.join("perl5")))
        .any(|version| version.join("Net/SSLeay.pm").exists())
}

/// Installs Debian packages, for each entry the first name that apt knows.
fn install(wanted: &[&[&str]]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let first: Vec<&str> = wanted.iter().filter_map(|names| names.first().copied()).collect();
    if find("apt-get").is_none() {
        bail!(
            "missing: {}; without apt-get these can't be installed by this command, please install them by hand",
            first.join(", ")
        );
    }
    say(&format!("installing {} (apt-get update comes first)", first.join(", ")));
    process::run(apt_get()?.args(["-q", "update"]))?;
    let names = wanted
        .iter()
        .map(|names| {
            names
                .iter()
                .copied()
                .find(|name| is_available(name))
                .with_context(|| format!("apt knows none of these packages: {}", names.join(", ")))
        })
        .collect::<Result<Vec<_>>>()?;
    process::run(apt_get()?.args(["-q", "-y", "--no-install-recommends", "install"]).args(&names))
}

/// apt-get as root that asks nothing.
fn apt_get() -> Result<Command> {
    let mut command = process::as_root("env")?;
    command.args([
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-o",
        "Dpkg::Use-Pty=0",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]);
    Ok(command)
}

/// Whether apt has a package of this name to install.
fn is_available(package: &str) -> bool {
    process::output(Command::new("apt-cache").args(["policy", package])).is_ok_and(|text| {
        text.lines().any(|line| line.trim_start().starts_with("Candidate:") && !line.contains("(none)"))
    })
}

/// A toolchain for the BPF target: Debian's own as `bpf`, or a rustup nightly with the library's sources, and bpf-linker.
fn bpf_toolchain() -> Result<()> {
    let rustup =
        find("rustup").context("rustup is missing: install it from https://rustup.rs (stable, 1.95 or newer)")?;
    let linker = find("bpf-linker").is_some();
    // bpf-linker is built against an LLVM, which Debian's toolchain brings; so whoever has nightly alone gets that one as well.
    let complete = linker && (has_bpf_core() || has_nightly_sources()) || has_bpf_core() && has_llvm();
    if !complete {
        if has_package_for_bpf_core()? {
            install(&BPF_TOOLCHAIN.iter().map(std::slice::from_ref).collect::<Vec<_>>())?;
        } else if !has_nightly_sources() {
            say("installing a nightly toolchain with rust-src, as this distribution has no rustc with core for BPF");
            process::run(Command::new(&rustup).args([
                "toolchain",
                "install",
                "nightly",
                "--profile",
                "minimal",
                "-c",
                "rust-src",
            ]))?;
        }
    }
    if has_bpf_core() && !rustup_toolchains().join("bpf").exists() {
        say("making Debian's rustc the rustup toolchain `bpf`");
        process::run(Command::new(&rustup).args(["toolchain", "link", "bpf", "/usr"]))?;
    }
    if !linker {
        say(&format!("building bpf-linker {BPF_LINKER} (about a minute)"));
        let mut cargo = process::cargo();
        cargo.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]);
        if has_llvm() {
            cargo.env("LLVM_PREFIX", LLVM).args(["--no-default-features", "--features", "llvm-22"]);
        }
        process::run(&mut cargo)?;
    }
    Ok(())
}

/// Whether apt has Debian's rustc for BPF. A new machine's lists of packages are old, or not there.
fn has_package_for_bpf_core() -> Result<bool> {
    const PACKAGE: &str = "libstd-rust-web-dev-bpf";
    if find("apt-get").is_some() && !is_available(PACKAGE) && process::can_become_root() {
        process::run(apt_get()?.args(["-q", "update"]))?;
    }
    Ok(is_available(PACKAGE))
}

/// Whether the LLVM is there that bpf-linker is built against.
fn has_llvm() -> bool {
    Path::new(LLVM).join("bin/llvm-config").exists()
}

/// Whether Debian's rustc for BPF is installed.
pub(crate) fn has_bpf_core() -> bool {
    Path::new("/usr/lib/rustlib/bpfel-unknown-none").exists() && Path::new("/usr/bin/rustc").exists()
}

/// Whether a rustup nightly can build `core` itself.
fn has_nightly_sources() -> bool {
    let Ok(toolchains) = std::fs::read_dir(rustup_toolchains()) else { return false };
    toolchains.flatten().any(|entry| {
        entry.file_name().to_string_lossy().starts_with("nightly")
            && entry.path().join("lib/rustlib/src/rust/library").exists()
    })
}

/// Where rustup keeps its toolchains.
fn rustup_toolchains() -> PathBuf {
    std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".rustup")))
        .unwrap_or_default()
        .join("toolchains")
}

/// rustfmt and clippy for the workspace, and a clippy that knows the BPF target.
fn cargo_components() -> Result<()> {
    for (command, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if process::output(process::cargo().args([command, "--version"])).is_err() {
            say(&format!("adding the toolchain's {component}"));
            process::run(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    if has_bpf_core() && !Path::new("/usr/bin/clippy-driver").exists() {
        install(&[&["rust-web-clippy"]])?;
    }
    Ok(())
}

/// A BPF file system to pin in. Without the right to mount one the gate's kernel half is off, and its tests say so.
fn bpffs() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("can't read /proc/self/mounts")?;
    let mounted = mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some("/sys/fs/bpf") && fields.next() == Some("bpf")
    });
    if !mounted && Path::new("/sys/fs/bpf").exists() && process::can_become_root() {
        say("mounting the BPF file system on /sys/fs/bpf");
        process::run(process::as_root("mount")?.args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))?;
    }
    Ok(())
}
