//! `cargo xtask build`: the gate, kernel half included, as one file.

use std::process::ExitCode;

use anyhow::Result;

use crate::{process, setup, workspace};

/// Installs what building needs and builds `target/release/mxscreen`.
pub(crate) fn release() -> Result<ExitCode> {
    process::say("building target/release/mxscreen");
    setup::ensure(&[setup::Part::Build])?;
    process::run(process::cargo().args(["build", "--release", "--locked", "-p", "screen-user"]))?;
    process::say(&format!("built {}", workspace::gate().display()));
    Ok(ExitCode::SUCCESS)
}
