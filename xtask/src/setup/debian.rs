//! A Debian 12 of its own in `target/machine/root`, as small as one with systemd can be: what a package is tried on.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    process::{self, say},
    workspace,
};

/// What is in it besides the essential packages: systemd as its first program, what the stories ask the kernel with, a mail server, and one for names.
const PACKAGES: &str = "systemd-sysv,iproute2,bpftool,logrotate,postfix,dnsmasq-base";
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
    // What is in the one that is there.
    let listed = root.with_extension("packages");
    if root.exists() && fs::read_to_string(&listed).is_ok_and(|packages| packages == PACKAGES) {
        return Ok(());
    }
    say(&format!("installing Debian's {RELEASE} in {} (some minutes)", root.display()));
    let partial = root.with_extension("partial");
    process::run(process::as_root("rm")?.arg("-rf").args([&partial, &root]))?;
    fs::create_dir_all(partial.parent().context("the folder stands in a folder")?).context("can't make its folder")?;
    let mut debootstrap = process::as_root("debootstrap")?;
    debootstrap.arg("--variant=minbase").arg(format!("--include={PACKAGES}"));
    process::run(debootstrap.arg(RELEASE).arg(&partial).arg(ARCHIVE))?;
    // It is started by the story that it belongs to.
    process::run(
        process::as_root("rm")?.arg(partial.join("etc/systemd/system/multi-user.target.wants/postfix.service")),
    )?;
    process::run(process::as_root("mv")?.arg(&partial).arg(&root))?;
    fs::write(&listed, PACKAGES).context("can't write what is in it")
}
