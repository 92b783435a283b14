//! `cargo xtask oldest`: the kernel half, and the gate, on the oldest kernel that the documents claim, in an emulated machine.

pub(crate) mod image;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build,
    process::{self, say},
    setup, workspace,
};

/// What every Debian package of that kernel is called, but for a number and the kind of machine.
const KERNEL: &str = "linux-image-6.1.0-";

/// The tests of the kernel programs.
const TEST_PROGRAM: &str = "kernel_programs";

/// The tests that are run there: each program, and what differs between kernels. All of them take a quarter of an hour under emulation.
const TESTS: &[&str] = &[
    "counting::the_count_follows_every_end_of_a_connection",
    "gate::a_denied_syn_is_dropped_in_every_shape_and_passed_when_cut_anywhere",
    "ladder::on_each_rung_the_denied_are_dropped_and_the_limit_holds",
    "refusing::a_refusal_is_a_whole_conversation_that_nobody_keeps_in_mind",
    "relays::",
    "servers::connections_older_than_the_gate",
    "servers::in_place_the_screener_answers_while_the_mail_server_is_away",
    "steering::strangers_meet_the_screener_and_known_good_clients_the_mail_server",
    "succession::maps_of_another_layout_are_carried_over_with_their_contents",
    "unprivileged::",
];

/// How long all of it may take, in seconds; a machine that hangs is ended then.
const LIMIT: u32 = 3000;
/// What timeout(1) ends with when it has ended something.
const TIMED_OUT: i32 = 124;

/// The machine's last words.
pub(crate) const DONE: &str = "the machine is done";

/// What `cargo xtask oldest` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run these tests of the kernel programs there, by parts of their names, in place of the usual ones
    tests: Vec<String>,
}

/// Why this machine can't emulate that kernel, if it can't.
pub(crate) fn obstacle() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the machine to be emulated is an x86_64 one, with this machine's programs".to_owned());
    }
    image::package().err().map(|error| format!("{error:#}"))
}

/// Boots the kernel, and passes on what the tests in it say.
///
/// # Errors
///
/// When something that it takes is not to be had, or the machine ends before it has said all.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Some(obstacle) = obstacle() {
        bail!("{obstacle}");
    }
    setup::ensure(&[setup::Part::Build, setup::Part::Sandbox, setup::Part::Emulation])?;
    build::release()?;
    let folder = workspace::target().join("oldest");
    let kernel = image::kernel(&folder)?;
    let usual = || TESTS.iter().map(|&test| test.to_owned()).collect();
    let tests = if options.tests.is_empty() { usual() } else { options.tests.clone() };
    let image = image::build(&folder, &kernel, &test_program()?, &tests)?;
    say(&format!("booting Linux {}", kernel.version));
    // What the verifier said of a program that it refused, where CI collects such files.
    let log = workspace::target().join("tmp/verifier-oldest.log");
    let done = boot(&kernel, &image, &log, &[])?;
    if std::fs::metadata(&log).is_ok_and(|log| log.len() == 0) {
        std::fs::remove_file(&log).context("can't remove an empty log")?;
    } else if log.exists() {
        say(&format!("the verifier's log is in {}", log.display()));
    }
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the machine and shows what it says; returns whether all went well in it. `log` takes what it writes to its second serial line, `more` are
/// its parts besides memory and processors.
pub(crate) fn boot(kernel: &image::Kernel, image: &Path, log: &Path, more: &[&str]) -> Result<bool> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &LIMIT.to_string(), "qemu-system-x86_64"]);
    // Emulated even where the processor could run it: the same everywhere, and no rights are needed.
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-serial", "stdio", "-serial"]).arg(format!("file:{}", log.display()));
    command.arg("-kernel").arg(&kernel.file).arg("-initrd").arg(image);
    // Where other machines are at work the timer is late, which is no reason to give up; the last two words are for systemd.
    let words = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check systemd.show_status=no systemd.mask=serial-getty@ttyS0.service";
    command.args(["-append", words]).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.spawn().with_context(|| format!("can't start {}", process::shown(&command)))?;
    let mut child = process::Guarded(child);
    let output = child.0.stdout.take().context("the machine has no output")?;
    let mut verdict = None;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("can't read what the machine says")?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if let Some(status) = line.strip_prefix(DONE) {
            verdict = Some(status.trim() == "0");
        } else {
            say(line);
        }
    }
    let status = child.0.wait().context("lost the machine")?;
    if verdict.is_none() && status.code() == Some(TIMED_OUT) {
        bail!("the machine was not done after {LIMIT} s, and was ended");
    }
    verdict.context("the machine ended before it was done")
}

/// The tests of the kernel programs, built.
fn test_program() -> Result<PathBuf> {
    let mut cargo = process::cargo();
    cargo.args(["test", "--locked", "-p", "screen-user", "--test", TEST_PROGRAM, "--no-run"]);
    let built = process::output(cargo.args(["--message-format", "json"]))?;
    built
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|message| message.pointer("/target/name").is_some_and(|name| name == TEST_PROGRAM))
        .and_then(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .context("cargo names no test program")
}
