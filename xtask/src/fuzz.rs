//! `cargo xtask fuzz`: every fuzz target for a bounded time, from the committed seeds and from what earlier runs found.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    process::{self, say},
    setup, workspace,
};

/// What `cargo xtask fuzz` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this target
    target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

/// The longest that one input may take.
const SECONDS_PER_INPUT: u32 = 10;

/// How much of the log is shown of a target that found something.
const LAST_LINES: usize = 60;

/// Builds the targets, runs them one after the other, and says which of them found something.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let home = workspace::root().join("tests/fuzz");
    let all = targets(&home)?;
    let chosen = match &options.target {
        None => all,
        Some(name) if all.contains(name) => vec![name.clone()],
        Some(name) => bail!("there is no fuzz target {name}; there are: {}", all.join(", ")),
    };
    say(&format!("fuzzing for {} seconds each: {}", options.seconds, chosen.join(", ")));
    setup::ensure(&[setup::Part::Build, setup::Part::Fuzz])?;
    process::run(cargo_fuzz("build").args(options.target.as_slice()))?;
    let mut failed = Vec::new();
    for name in &chosen {
        if !campaign(&home, name, options.seconds)? {
            failed.push(name.as_str());
        }
    }
    say(&format!(
        "{} targets ran for {} seconds each, {} found something",
        chosen.len(),
        options.seconds,
        failed.len()
    ));
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("failed: {}; the inputs are in {}", failed.join(", "), home.join("artifacts").display()));
    Ok(ExitCode::FAILURE)
}

/// The names of all targets, sorted.
fn targets(home: &Path) -> Result<Vec<String>> {
    let folder = home.join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// cargo-fuzz, with a build folder of its own: nightly's artefacts would push the workspace's out.
fn cargo_fuzz(verb: &str) -> Command {
    let mut command = process::cargo();
    command
        .args(["+nightly", "fuzz", verb, "--fuzz-dir", "tests/fuzz", "--target-dir"])
        .arg(workspace::target().join("fuzz"));
    command
}

/// One target's run; says how many inputs it took, or what it found. What it finds worth keeping goes to the build folder: the seeds
/// stay as they are committed.
fn campaign(home: &Path, name: &str, seconds: u32) -> Result<bool> {
    let corpus = workspace::target().join("fuzz-corpus").join(name);
    fs::create_dir_all(&corpus).with_context(|| format!("can't make {}", corpus.display()))?;
    let seeds = home.join("seeds").join(name);
    let mut command = cargo_fuzz("run");
    command.arg(name).arg(&corpus).args(existing(seeds.clone()));
    command.args(["--", &format!("-max_total_time={seconds}"), &format!("-timeout={SECONDS_PER_INPUT}")]);
    command.arg("-print_final_stats=1");
    if let Some(dictionary) = existing(seeds.with_extension("dict")) {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    // A line for every find: to be read only when something went wrong.
    let log = corpus.with_extension("log");
    let file = fs::File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone().context("can't share the log")?).stderr(file);
    let status = command.status().with_context(|| format!("can't start {}", process::shown(&command)))?;
    let text = fs::read(&log).with_context(|| format!("can't read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    if !status.success() {
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n");
        say(&format!("{name}: {status}, log in {}\n{last}", log.display()));
        return Ok(false);
    }
    let inputs = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    say(&format!("{name}: {} inputs in {seconds} seconds, nothing found", inputs.unwrap_or("no count of").trim()));
    Ok(true)
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.exists().then_some(path)
}
