//! `cargo xtask test`: every test there is, with one count at the end.

mod tally;

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result};
use tally::Tally;

use crate::{
    oldest, package,
    process::{self, say},
    setup, workspace,
};

/// What `cargo xtask test` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave out the oldest kernel, the package, the scripted scenarios and the demonstration
    #[arg(long)]
    quick: bool,
}

/// End-to-end tests mostly wait for timers, so that more of them run at a time than there are processors.
const END_TO_END_THREADS: &str = "6";

/// Builds the gate and runs all tests; in CI (`CI` is set) a test that was skipped for want of rights counts as failed.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    say(
        "running every test: unit, property, kernel programs, end to end, oldest kernel, package, scripted scenarios, demonstration",
    );
    setup::ensure(&[
        setup::Part::Build,
        setup::Part::Sandbox,
        setup::Part::MailPrograms,
        setup::Part::Redis,
        setup::Part::Prometheus,
    ])?;
    let mut tally = Tally::default();

    if process::run(process::cargo().args(["build", "--release", "--locked", "-p", "screen-user"])).is_err() {
        tally.fail("the release build");
        return Ok(close(&tally));
    }
    say("== unit and property tests, kernel programs");
    let mut cargo = cargo_test();
    cargo.args(["--workspace", "--exclude", "screen-ebpf", "--exclude", "screen-tests", "--", "--show-output"]);
    watch("unit tests", &mut cargo, &mut tally)?;
    say("== end to end, in network namespaces");
    let mut cargo = cargo_test();
    cargo.args(["-p", "screen-tests", "--", "--show-output", "--test-threads", END_TO_END_THREADS]);
    watch("end-to-end tests", &mut cargo, &mut tally)?;
    if !options.quick {
        let own = std::env::current_exe().context("can't find this program's own file")?;
        say("== the oldest kernel");
        if let Some(obstacle) = oldest::obstacle() {
            tally.skip(&format!("oldest kernel: {obstacle}"));
        } else {
            watch("oldest kernel", Command::new(&own).arg("oldest"), &mut tally)?;
        }
        say("== package, on an emulated Debian 12");
        if let Some(obstacle) = package::obstacle() {
            tally.skip(&format!("package: {obstacle}"));
        } else {
            watch("package", Command::new(&own).args(["package", "--try"]), &mut tally)?;
        }
        say("== scripted scenarios");
        watch("oracle", Command::new(&own).arg("oracle"), &mut tally)?;
        say("== demonstration");
        if process::can_become_root() {
            watch("demonstration", Command::new(&own).arg("demo"), &mut tally)?;
        } else {
            tally.skip("demonstration: it makes network namespaces, which needs root");
        }
    }
    Ok(close(&tally))
}

/// `cargo test` over everything, whatever fails on the way; its test programs run as root where that is to be had without a question.
fn cargo_test() -> Command {
    let mut cargo = process::cargo();
    if !process::is_root() && process::can_become_root() {
        let host = process::output(Command::new("rustc").arg("-vV")).unwrap_or_default();
        if let Some(triple) = host.lines().find_map(|line| line.strip_prefix("host: ")) {
            let variable = format!("CARGO_TARGET_{}_RUNNER", triple.to_uppercase().replace('-', "_"));
            cargo.env(variable, "sudo -E");
        }
    }
    cargo.env("MXSCREEN_MTA", workspace::target().join("mta"));
    cargo.env("MXSCREEN_BIN", workspace::gate()).args(["test", "--locked", "--no-fail-fast"]);
    cargo
}

/// Runs a test program, shows what it prints as it comes, and adds its results.
fn watch(name: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    // One pipe for both: a test says on standard error that it was skipped.
    let (output, input) = std::io::pipe().context("can't make a pipe")?;
    let errors = input.try_clone().context("can't share a pipe")?;
    command.stdin(Stdio::null()).stdout(input).stderr(errors);
    let mut child = command.spawn().with_context(|| format!("can't start {}", process::shown(command)))?;
    // The command holds the pipe's other end, which would keep it open for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut part = Tally::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.with_context(|| format!("can't read what {name} prints"))?;
        let line = String::from_utf8_lossy(&line);
        if part.read(&line) {
            say(&line);
        }
    }
    let status = child.wait().with_context(|| format!("lost {name}"))?;
    if !status.success() && part.failed() == 0 {
        // Not a failed test but one that could not be built or run at all.
        part.fail(&format!("{name} ({status})"));
    } else if part.passed() + part.failed() == 0 {
        part.finish_as_one();
    }
    tally.add(part);
    Ok(())
}

/// Prints what was skipped, what failed and the totals, and says how to end.
fn close(tally: &Tally) -> ExitCode {
    let skip_fails = std::env::var_os("CI").is_some();
    for line in tally.report(skip_fails) {
        say(&line);
    }
    if tally.is_success(skip_fails) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
