//! `cargo xtask bench kernel`: the kernel half beside nftables, ipset, the stack's own SYN cookies and postscreen.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process::{self, say};

/// Measures what a packet, a list and a call cost: `screen-user/benches/kernel`, which makes its own network namespaces. Receiving
/// threads of the kernel are not seen from within a sandbox, so this runs outside. `only` are the parts whose names begin so.
pub(super) fn measure(rounds: u16, only: Option<&str>) -> Result<()> {
    let program = program("screen-user", "kernel")?;
    say("measuring; what else the machine does changes the numbers, less so their ratios");
    process::run(process::as_root(program)?.arg(rounds.to_string()).args(only))
}

/// Builds a measurement that is a program of its own, `benches/NAME` of a package, and says where it is.
pub(crate) fn program(package: &str, name: &str) -> Result<String> {
    let mut build = process::cargo();
    build.args(["build", "--release", "--locked", "-p", package, "--bench", name]);
    build.args(["--message-format", "json-render-diagnostics"]);
    let messages = process::output(&mut build).context("can't build the measurement")?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message.pointer("/target/kind/0").is_some_and(|kind| kind == "bench"))
        .find_map(|message| message.get("executable").and_then(Value::as_str).map(str::to_owned))
        .context("cargo does not say where the measurement is")
}
