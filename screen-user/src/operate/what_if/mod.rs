//! `mxscreen what-if`: the sessions of the journal, judged by another configuration.

mod judge;
mod report;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;

use self::{judge::Judge, report::Report};
use super::{
    cli,
    command::{json, print},
    exit::Failure,
};
use crate::{
    config::{self, Config, Host},
    journal::{self, Reader},
    unix_time::unix_now,
};

/// Sessions between two looks at the clock.
const STRIDE: u64 = 4096;

/// `mxscreen what-if`.
#[derive(Debug, Args)]
pub struct WhatIfArgs {
    /// The configuration to try
    #[arg(value_name = "NEW.toml")]
    pub new: PathBuf,
    /// The present configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/mxscreen/mxscreen.toml")]
    pub config: PathBuf,
    /// The folder of the journal; without it, the one in the present configuration's state directory
    #[arg(long, value_name = "DIR")]
    pub journal: Option<PathBuf>,
    /// Only sessions that began so long ago, at most, e.g. 7d
    #[arg(long, value_name = "DURATION", value_parser = cli::duration)]
    pub since: Option<Duration>,
    /// Networks to show, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub top: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Replays the journal.
///
/// # Errors
/// One of the configurations is wrong, or the journal can't be read.
pub fn run(arguments: &WhatIfArgs) -> Result<(), Failure> {
    let (present, new) = (load(&arguments.config)?, load(&arguments.new)?);
    let folder = match &arguments.journal {
        Some(folder) => folder.clone(),
        None => journal::within(&present.state_directory),
    };
    let unreadable = |error: io::Error| {
        let message = format!("{}: {error}", folder.display());
        match error.kind() {
            io::ErrorKind::PermissionDenied => Failure::no_permission(message),
            _ => Failure::unavailable(format!("{message}: is there a journal? (--journal names another folder)")),
        }
    };
    let oldest = arguments.since.map_or(0, |since| unix_now().saturating_sub(since.as_secs()));
    let mut reader = Reader::begin(&folder).map_err(unreadable)?;
    let mut progress = Progress::begin();
    let mut report = Report::default();
    let (mut before, mut after) = Judge::of_both(present, new);
    while let Some(entry) = reader.next_entry().map_err(unreadable)? {
        progress.show(&reader);
        if entry.time >= oldest {
            let was = before.judge(&entry).unwrap_or_else(|_| Judge::what_happened(&entry));
            report.add(&entry, was, after.judge(&entry));
        }
    }
    progress.end();
    report.skipped = reader.skipped;
    if arguments.json { json(&report.json(arguments.top)) } else { print(&report.text(arguments.top)) }
}

fn load(path: &Path) -> Result<Config, Failure> {
    Ok(config::load(&Host::here(), path, &[]).map_err(Failure::usage)?.config)
}

/// How far it is, for whoever waits at a terminal.
struct Progress {
    entries: u64,
    shown: Instant,
    is_wanted: bool,
    was_shown: bool,
}

impl Progress {
    fn begin() -> Self {
        Self { entries: 0, shown: Instant::now(), is_wanted: io::stderr().is_terminal(), was_shown: false }
    }

    fn show(&mut self, reader: &Reader) {
        self.entries += 1;
        if self.is_wanted
            && self.entries.is_multiple_of(STRIDE)
            && self.shown.elapsed() >= Duration::from_secs(1)
            && let Some(percent) = (reader.read * 100).checked_div(reader.bytes)
        {
            (self.shown, self.was_shown) = (Instant::now(), true);
            // Nothing is lost with it.
            let _ = write!(io::stderr(), "\r{} sessions, {percent} % of the journal ", self.entries);
        }
    }

    fn end(&self) {
        if self.was_shown {
            let _ = writeln!(io::stderr());
        }
    }
}
