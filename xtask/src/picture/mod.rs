//! `cargo xtask picture`: the README's pictures, drawn anew.

mod dashboard;
mod demo;
mod terminal;

use std::process::ExitCode;

use anyhow::Result;

/// What `cargo xtask picture` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which; without it, all of them
    which: Option<Which>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// The dashboard, from eight minutes of real traffic
    Dashboard,
    /// What the demonstration prints
    Demo,
}

/// Draws below `docs/images`.
///
/// # Errors
/// What it takes can't be had, or something went wrong on the way.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let wanted = |which| options.which.is_none_or(|one| one == which);
    if wanted(Which::Demo) {
        demo::run()?;
    }
    if wanted(Which::Dashboard) {
        dashboard::run()?;
    }
    Ok(ExitCode::SUCCESS)
}
