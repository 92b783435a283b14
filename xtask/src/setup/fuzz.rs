//! What the fuzz targets need: a nightly compiler, for its sanitizers, and cargo-fuzz.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::rustup_toolchains;
use crate::process::{self, find, say};

/// The release of cargo-fuzz that the recipe was tried with.
const CARGO_FUZZ: &str = "0.13.2";

/// Installs what is missing.
///
/// # Errors
/// When something can't be had; the message says the command.
pub(super) fn ensure() -> Result<()> {
    let rustup =
        find("rustup").context("rustup is missing: install it from https://rustup.rs (stable, 1.95 or newer)")?;
    let nightly = std::fs::read_dir(rustup_toolchains()).is_ok_and(|toolchains| {
        toolchains.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("nightly-"))
    });
    if !nightly {
        say("installing a nightly toolchain, as the fuzzer needs its sanitizers");
        process::run(Command::new(rustup).args(["toolchain", "install", "nightly", "--profile", "minimal"]))?;
    }
    if find("cargo-fuzz").is_none() {
        say(&format!("building cargo-fuzz {CARGO_FUZZ} (about a minute)"));
        process::run(process::cargo().args(["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked"]))?;
    }
    Ok(())
}
