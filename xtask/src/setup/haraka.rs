//! Haraka, a mail server from npm, which the tests put behind the gate: in `target/mta/haraka`, not installed.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    process::{self, say},
    workspace,
};

const PACKAGE: &str = "Haraka@3.1.1";
/// What it depends on is taken as it was on this day, so that the tests run the same program everywhere, on Debian's Node.js 18 too.
const DAY: &str = "2026-01-15";

/// Fetches it, where it is not there yet.
///
/// # Errors
/// When npm can't.
pub(super) fn ensure() -> Result<()> {
    let folder = workspace::target().join("mta/haraka");
    if folder.join("node_modules/Haraka/bin/haraka").exists() {
        return Ok(());
    }
    say(&format!("fetching {PACKAGE} under {} by npm", folder.display()));
    let partial = folder.with_extension("partial");
    for old in [&partial, &folder] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("can't remove {}", old.display()))?;
        }
    }
    fs::create_dir_all(&partial).with_context(|| format!("can't make {}", partial.display()))?;
    // Nothing of it is compiled, and no script of a package is run.
    let options = ["--ignore-scripts", "--omit=dev", "--omit=optional", "--no-audit", "--no-fund"];
    let mut npm = Command::new("npm");
    npm.args(["install", "--before", DAY]).args(options).arg("--prefix").arg(&partial).arg(PACKAGE);
    process::run(&mut npm)?;
    fs::rename(&partial, &folder).with_context(|| format!("can't make {}", folder.display()))
}
