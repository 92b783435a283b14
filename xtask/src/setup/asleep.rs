//! Debian packages that would start a service, installed without that: neither now nor with the machine.

use std::path::Path;

use anyhow::Result;

use super::install;
use crate::process::{self, say};

/// A policy that keeps Debian's packages from starting services, in force while it exists.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs a package whose service has its name, and leaves the service disabled.
///
/// # Errors
/// When something can't be had; the message says the command.
pub(super) fn install_asleep(package: &'static str) -> Result<()> {
    let own_policy = !Path::new(POLICY).exists();
    if own_policy {
        process::run(
            process::as_root("sh")?
                .args(["-c", &format!("printf '#!/bin/sh\\nexit 101\\n' > {POLICY} && chmod 755 {POLICY}")]),
        )?;
    }
    let installed = install(&[&[package]]);
    if own_policy {
        process::run(process::as_root("rm")?.arg(POLICY))?;
    }
    installed?;
    say(&format!("keeping the new {package} from starting with this machine"));
    process::run(process::as_root("update-rc.d")?.args([package, "disable"]))
}
