//! The demonstration's picture: what it prints, as a terminal shows it.

use std::{env, fs, process::Command};

use anyhow::{Context as _, Result};

use super::terminal;
use crate::{
    process::{self, say},
    workspace,
};

/// Plays the demonstration, and draws `docs/images/demo.svg`.
///
/// # Errors
/// It did not end well, or the file can't be written.
pub(super) fn run() -> Result<()> {
    say("a demonstration, for its picture");
    let this = env::current_exe().context("can't find this program")?;
    let said = process::output(Command::new(this).arg("demo")).context("the demonstration failed")?;
    // What is said of building comes before.
    let (_, play) = said.split_once("mxscreen demonstration: ").context("the demonstration does not begin")?;
    let image = workspace::root().join("docs/images/demo.svg");
    let drawing = terminal::drawn(&format!("# cargo xtask demo\nmxscreen demonstration: {play}"));
    fs::write(&image, drawing).with_context(|| format!("can't write {}", image.display()))?;
    say(&format!("drawn: {}", image.display()));
    Ok(())
}
