//! uPlot, by which the dashboard's picture is drawn: in `target/picture`, not installed.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    process::{self, say},
    workspace,
};

const PACKAGE: &str = "uplot@1.6.32";

/// Fetches it, where it is not there yet.
///
/// # Errors
/// When npm can't.
pub(super) fn ensure() -> Result<()> {
    let folder = workspace::target().join("picture");
    let files = ["uPlot.iife.min.js", "uPlot.min.css"];
    if files.iter().all(|file| folder.join(file).exists()) {
        return Ok(());
    }
    say(&format!("fetching {PACKAGE} under {} by npm", folder.display()));
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg(PACKAGE);
    process::run(&mut npm)?;
    for file in files {
        let from = folder.join("node_modules/uplot/dist").join(file);
        fs::copy(&from, folder.join(file)).with_context(|| format!("can't copy {}", from.display()))?;
    }
    Ok(())
}
