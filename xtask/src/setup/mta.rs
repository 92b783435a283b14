//! Packages that tests need and no machine should get by them: Exim and OpenSMTPD, which send as clients and stand behind the gate, as Debian's
//! packages of mail servers exclude each other, and what reads a mail log. They are unpacked in `target/mta/NAME`, with those of their dependencies that the
//! machine lacks, and not installed.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::apt_get;
use crate::{
    process::{self, find, say},
    workspace,
};

/// A folder, the package in it, and a file that shows that it is there.
const PACKAGES: [(&str, &str, &str); 5] = [
    ("exim4", "exim4-daemon-light", "usr/sbin/exim4"),
    ("opensmtpd", "opensmtpd", "usr/sbin/smtpd"),
    ("pflogsumm", "pflogsumm", "usr/sbin/pflogsumm"),
    ("fail2ban", "fail2ban", "usr/bin/fail2ban-regex"),
    ("logwatch", "logwatch", "usr/share/logwatch/scripts/services/postfix"),
];

/// Unpacks what is not there yet.
///
/// # Errors
/// When a package can't be had or unpacked.
pub(super) fn ensure() -> Result<()> {
    let home = workspace::target().join("mta");
    let missing: Vec<_> =
        PACKAGES.iter().filter(|(folder, _, program)| !home.join(folder).join(program).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    if find("apt-get").is_none() || find("dpkg-deb").is_none() {
        bail!(
            "missing under {}: {}; without apt-get and dpkg-deb they can't be fetched by this command",
            home.display(),
            names.join(", ")
        );
    }
    say(&format!("unpacking {} under {} (apt-get update comes first)", names.join(", "), home.display()));
    process::run(apt_get()?.args(["-q", "update"]))?;
    for (folder, package, _) in missing {
        unpack(package, &home.join(folder))?;
    }
    Ok(())
}

/// Unpacks a package and those of its dependencies that are not installed.
fn unpack(package: &str, folder: &Path) -> Result<()> {
    let partial = folder.with_extension("partial");
    let downloads = folder.with_extension("deb");
    for empty in [&partial, &downloads] {
        if empty.exists() {
            fs::remove_dir_all(empty).with_context(|| format!("can't empty {}", empty.display()))?;
        }
        fs::create_dir_all(empty).with_context(|| format!("can't make {}", empty.display()))?;
    }
    let plan = ["install", "--print-uris", "-q", "-y", "--no-install-recommends", package];
    let plan = process::output(Command::new("apt-get").args(plan))?;
    process::run(Command::new("apt-get").args(["-q", "download"]).args(needed(&plan)).current_dir(&downloads))?;
    for file in fs::read_dir(&downloads).with_context(|| format!("can't read {}", downloads.display()))? {
        process::run(Command::new("dpkg-deb").arg("-x").arg(file?.path()).arg(&partial))?;
    }
    fs::remove_dir_all(&downloads).with_context(|| format!("can't remove {}", downloads.display()))?;
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("can't remove {}", folder.display()))?;
    }
    fs::rename(&partial, folder).with_context(|| format!("can't make {}", folder.display()))
}

/// The packages in `apt-get install --print-uris`, whose lines are `'URI' NAME_VERSION_ARCHITECTURE.deb SIZE HASH`.
fn needed(plan: &str) -> Vec<String> {
    plan.lines()
        .filter(|line| line.starts_with('\''))
        .filter_map(|line| line.split_whitespace().nth(1)?.split('_').next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_found_in_apts_plan() {
        let plan = "Reading package lists...\nThe following NEW packages will be installed:\n  exim4-base libidn12\n\
            'http://deb.debian.org/x/exim4-base_4.96-15%2bdeb12u10_amd64.deb' exim4-base_4.96-15+deb12u10_amd64.deb 11 MD5Sum:0d\n\
            'http://deb.debian.org/x/libidn12_1.41-1_amd64.deb' libidn12_1.41-1_amd64.deb 83832 \n";
        assert_eq!(needed(plan), ["exim4-base", "libidn12"]);
    }
}
