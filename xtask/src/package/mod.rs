//! `cargo xtask package`: the gate as a Debian package, and its life on a Debian 12.

mod machine;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build, oldest,
    process::{self, say},
    setup, workspace,
};

/// What cargo-deb finds beside the program: documents that the program prints itself, by their names.
const PRINTED: [(&str, &[&str]); 5] = [
    ("mxscreen.8", &["man"]),
    ("mxscreen.toml.5", &["man", "mxscreen.toml"]),
    ("mxscreen.bash", &["completions", "bash"]),
    ("_mxscreen", &["completions", "zsh"]),
    ("mxscreen.fish", &["completions", "fish"]),
];

/// The oldest glibc that the package is for: Debian 12's.
const GLIBC: (u32, u32) = (2, 36);

/// What `cargo xtask package` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Install, start, upgrade and remove it on an emulated Debian 12
    #[arg(long = "try")]
    try_it: bool,
}

/// Why it can't be tried on this machine, if it can't.
pub(crate) fn obstacle() -> Option<String> {
    if !process::can_become_root() {
        return Some("installing a Debian to try it on needs root".to_owned());
    }
    oldest::obstacle()
}

/// Makes the package, says where it is, and tries it.
///
/// # Errors
/// Something that it takes is not to be had.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    setup::ensure(&[setup::Part::Packaging])?;
    build::release()?;
    let version = env!("CARGO_PKG_VERSION");
    if !options.try_it {
        return made(version).map(|_| ExitCode::SUCCESS);
    }
    if let Some(obstacle) = obstacle() {
        bail!("{obstacle}");
    }
    check_unit()?;
    // First, as cargo-deb throws away what it has made before.
    let next = make(&format!("{version}+next"), &workspace::target().join("machine"))?;
    let package = made(version)?;
    Ok(if machine::play(&package, &next)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes the package and says where it is.
fn made(version: &str) -> Result<PathBuf> {
    let package = make(version, &workspace::target().join("debian"))?;
    say(&format!("made {}", package.display()));
    Ok(package)
}

/// Packs what is built, as this version, into a folder; returns the package's file.
fn make(version: &str, folder: &Path) -> Result<PathBuf> {
    let gate = workspace::gate();
    let needed = glibc_needed(&gate)?;
    if needed > GLIBC {
        bail!(
            "{} needs glibc {}.{}, and Debian 12 has {}.{}: build it there, as continuous integration does",
            gate.display(),
            needed.0,
            needed.1,
            GLIBC.0,
            GLIBC.1
        );
    }
    let printed = workspace::target().join("release/package");
    fs::create_dir_all(&printed).context("can't make the folder of documents")?;
    for (name, words) in PRINTED {
        let text = process::output(Command::new(&gate).args(words))?;
        fs::write(printed.join(name), text).with_context(|| format!("can't write {name}"))?;
    }
    let mut cargo = process::cargo();
    cargo.args([
        "deb",
        "--quiet",
        "--no-build",
        "--strip",
        "--locked",
        "--package",
        "screen-user",
        "--deb-version",
        version,
    ]);
    fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    let said = process::output(cargo.arg("--output").arg(folder))?;
    let package = said.lines().rfind(|line| line.ends_with(".deb")).context("cargo-deb names no package")?;
    Ok(PathBuf::from(package.trim()))
}

/// The latest glibc whose functions a program asks for.
fn glibc_needed(program: &Path) -> Result<(u32, u32)> {
    let symbols = process::output(Command::new("objdump").arg("-T").arg(program))?;
    latest_glibc(&symbols).context("the program names no version of glibc")
}

/// The latest in what `objdump -T` prints, where `(GLIBC_2.34)` stands behind a function.
fn latest_glibc(symbols: &str) -> Option<(u32, u32)> {
    let versions = symbols.split_whitespace().filter_map(|word| {
        let version = word.trim_matches(['(', ')']).strip_prefix("GLIBC_2.")?;
        Some((2, version.split('.').next()?.parse().ok()?))
    });
    versions.max()
}

/// Has systemd judge the unit: no more than 2.0 of its 10 points of exposure.
fn check_unit() -> Result<()> {
    let unit = workspace::root().join("packaging/systemd/mxscreen.service");
    let mut judge = Command::new("systemd-analyze");
    judge.args(["security", "--offline=yes", "--threshold=20", "--no-pager"]).arg(&unit);
    let judged = process::output(&mut judge).context("systemd finds the unit too much exposed")?;
    say(judged.lines().last().unwrap_or_default().trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::latest_glibc;

    #[test]
    fn versions_are_compared_as_numbers() {
        let symbols = "0000 DF *UND* 0000 (GLIBC_2.2.5) write\n0000 DF *UND* 0000 (GLIBC_2.34) pthread_create\n\
            0000 DF *UND* 0000 (GLIBC_2.4) __stack_chk_fail\n0000 DF *UND* 0000 (GCC_3.0) _Unwind_Resume\n";
        assert_eq!(latest_glibc(symbols), Some((2, 34)));
        assert_eq!(latest_glibc(""), None);
    }
}
