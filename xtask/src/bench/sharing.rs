//! `cargo xtask bench sharing`: what it costs, and what it gives, that hosts share what they know through Redis.

use anyhow::Result;

use super::kernel::program;
use crate::process::{self, say};

/// Measures hosts with a Redis behind them: `tests/benches/sharing`, which makes its own network namespaces. `only` are the parts whose
/// names begin so.
pub(super) fn measure(rounds: u16, only: Option<&str>) -> Result<()> {
    let program = program("screen-tests", "sharing")?;
    say("measuring; what else the machine does changes the numbers, less so their ratios");
    process::run(process::as_root(program)?.arg(rounds.to_string()).args(only))
}
