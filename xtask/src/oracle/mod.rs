//! `cargo xtask oracle`: recorded screening scenarios, replayed against the gate.
//!
//! Every group of scenarios has a configuration in neutral terms. Each group gets a gate of its own, configured by [`settings`], behind
//! it a stub of a mail server, and one probe plays all groups' clients at the same time. Differences from the record that are meant are
//! listed with their reasons in a file; an unlisted difference is a failure, and so is a listed one that no longer occurs.

mod differences;
mod groups;
mod network;
mod ports;
mod probe;
mod settings;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use crate::{
    process::{self, say},
    sandbox, setup, workspace,
};

/// What `cargo xtask oracle` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Folder of scenario files [default: the project's own]
    #[arg(long, value_name = "DIR")]
    scenarios: Option<PathBuf>,
    /// Folder of recorded transcripts [default: the project's own]
    #[arg(long, value_name = "DIR")]
    golden: Option<PathBuf>,
    /// DNS data that the scenarios rely on [default: the project's own]
    #[arg(long, value_name = "FILE")]
    dns: Option<PathBuf>,
    /// Scenarios played at a time
    #[arg(long, value_name = "N", default_value_t = 16)]
    jobs: u16,
    /// Keep configurations, logs and transcripts in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The groups to play [default: all]
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
}

/// Plays the groups and closes with `N passed, N failed`.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if !sandbox::is_inside() {
        say("replaying recorded scenarios against the gate");
        setup::ensure(&[setup::Part::Sandbox])?;
        if !workspace::gate().exists() {
            crate::build::release()?;
        }
        if process::can_become_root() {
            return sandbox::run_inside();
        }
        say("without root there are no network namespaces: playing on the loopback net, IPv4 only");
    } else {
        sandbox::settle()?;
    }
    let files = workspace::root().join("tests/oracle");
    let scenarios = options.scenarios.clone().unwrap_or_else(|| files.join("scenarios"));
    let golden = options.golden.clone().unwrap_or_else(|| files.join("golden"));
    let dns = options.dns.clone().unwrap_or_else(|| files.join("dns.json"));
    let groups = groups::load(&scenarios, &options.groups)?;
    let listed = differences::load(&workspace::root().join("tests/oracle-differences.txt"))?;

    let network =
        if sandbox::is_inside() { network::Network::namespaces(&files)? } else { network::Network::loopback() };
    // In the sandbox /run vanishes with it, whatever happens.
    let place = if sandbox::is_inside() { tempfile::tempdir_in("/run") } else { tempfile::tempdir() };
    let work = place.context("can't make a folder for the gates' files")?;
    let play = |groups: &[groups::Group], work: &Path| {
        probe::play(&probe::Plan {
            tools: &files,
            scenarios: &scenarios,
            golden: &golden,
            dns: &dns,
            jobs: options.jobs,
            groups,
            network: &network,
            work,
        })
    };
    let outcome = play(&groups, work.path());
    if let Some(keep) = &options.keep {
        process::run(std::process::Command::new("cp").arg("-a").arg(work.path().join(".")).arg(keep))
            .with_context(|| format!("can't keep the files in {}", keep.display()))?;
    }
    let mut played = outcome?;
    let doubtful = ports::ambiguous(&work.path().join("played"), &played);
    if !doubtful.is_empty() {
        let names = doubtful.iter().filter_map(|name| name.split_once('/').map(|(group, _)| group.to_owned()));
        let groups = groups::load(&scenarios, &names.collect::<Vec<_>>())?;
        say(&format!(
            "playing again, as two connections had the same port: {}",
            doubtful.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        ));
        let again = work.path().join("again");
        std::fs::create_dir(&again).context("can't make a folder for the second run")?;
        let second = play(&groups, &again)?;
        for one in second.into_iter().filter(|one| doubtful.contains(&one.name)) {
            if let Some(first) = played.iter_mut().find(|first| first.name == one.name) {
                first.outcome = one.outcome;
            }
        }
    }
    let verdict = differences::judge(&played, &listed);
    for line in &verdict.lines {
        say(line);
    }
    say(&format!("{} passed, {} failed", verdict.passed, verdict.failed));
    Ok(if verdict.failed == 0 && verdict.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
