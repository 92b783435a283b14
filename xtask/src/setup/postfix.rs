//! Debian's Postfix, as the mail server of the tests and the demonstration.
//!
//! The host's own mail is left alone: an installed Postfix is used as it is, with private folders in place of its own, and one that is
//! installed here is neither started nor enabled.

use std::path::Path;

use anyhow::{Result, bail};

use super::install;
use crate::process::{self, find, say};

/// A policy that keeps Debian's packages from starting services, in force while it exists.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs Postfix unless some mail server is there.
///
/// # Errors
/// When another mail server holds the place: Debian's packages of them exclude each other.
pub(super) fn ensure() -> Result<()> {
    if find("postfix").is_some() {
        return Ok(());
    }
    if find("sendmail").is_some() {
        bail!(
            "another mail server is installed, and Debian's Postfix, which the tests and the demonstration need, would replace it; \
             use another machine or a container"
        );
    }
    let own_policy = !Path::new(POLICY).exists();
    if own_policy {
        process::run(
            process::as_root("sh")?
                .args(["-c", &format!("printf '#!/bin/sh\\nexit 101\\n' > {POLICY} && chmod 755 {POLICY}")]),
        )?;
    }
    let installed = install(&[&["postfix"]]);
    if own_policy {
        process::run(process::as_root("rm")?.arg(POLICY))?;
    }
    installed?;
    say("keeping the new Postfix from starting with this machine");
    process::run(process::as_root("update-rc.d")?.args(["postfix", "disable"]))
}
