//! cargo-deb, which makes the Debian package.

use anyhow::Result;

use crate::process::{self, find, say};

/// The release of cargo-deb that the package was tried with.
const CARGO_DEB: &str = "3.8.0";

/// Builds it, unless it is there.
///
/// # Errors
/// It can't be had; the message says the command.
pub(super) fn ensure() -> Result<()> {
    if find("cargo-deb").is_some() {
        return Ok(());
    }
    say(&format!("building cargo-deb {CARGO_DEB} (about a minute)"));
    process::run(process::cargo().args(["install", "cargo-deb", "--version", CARGO_DEB, "--locked"]))
}
