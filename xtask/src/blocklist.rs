//! `cargo xtask blocklist`: what `mxscreen blocklist` does, from a source tree.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{build, workspace};

/// Words that are handed on as they are.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// `import FILE --list NAME`, `export`, `list` or `remove`, and their options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
    words: Vec<OsString>,
}

/// Runs `mxscreen blocklist`, built first if it is not there, and ends with its status.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let gate = workspace::gate();
    if !gate.exists() {
        build::release()?;
    }
    let status = Command::new(&gate)
        .arg("blocklist")
        .args(&options.words)
        .status()
        .with_context(|| format!("run {}", gate.display()))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
