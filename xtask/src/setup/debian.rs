//! A Debian 12 of its own in `target/machine/root`, as small as one with systemd can be: what a package is tried on.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    process::{self, say},
    workspace,
};

/// What is in it besides the essential packages: systemd as its first program, and what the story asks the kernel with.
const PACKAGES: &str = "--include=systemd-sysv,iproute2,bpftool,logrotate";
/// Debian 12.
const RELEASE: &str = "bookworm";
/// Where it comes from.
const ARCHIVE: &str = "http://deb.debian.org/debian";

/// Where it is.
pub(crate) fn root() -> PathBuf {
    workspace::target().join("machine/root")
}

/// Installs it, unless it is there.
///
/// # Errors
/// Its packages can't be had, or this is neither root nor may become it.
pub(super) fn ensure() -> Result<()> {
    let root = root();
    if root.exists() {
        return Ok(());
    }
    say(&format!("installing Debian's {RELEASE} in {} (some minutes)", root.display()));
    let partial = root.with_extension("partial");
    process::run(process::as_root("rm")?.arg("-rf").arg(&partial))?;
    fs::create_dir_all(partial.parent().context("the folder stands in a folder")?).context("can't make its folder")?;
    let mut debootstrap = process::as_root("debootstrap")?;
    process::run(debootstrap.args(["--variant=minbase", PACKAGES, RELEASE]).arg(&partial).arg(ARCHIVE))?;
    process::run(process::as_root("mv")?.arg(&partial).arg(&root))
}
