//! `cargo xtask bench forward`: what the way to the mail server costs, beside HAProxy and postscreen.

mod bulk;
mod comparison;
mod first_contact;
mod haproxy;
mod pump;
mod sessions;
mod visit;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result};

use self::comparison::Comparison;
use super::{Options, ground, postscreen, table::Figure};
use crate::{process::say, sandbox};

/// The parts, in the order in which they are measured.
const BULK: &str = "bulk";
const SESSIONS: &str = "sessions";
const FIRST_CONTACT: &str = "first contact";

/// The numbers of one turn of a way, by case.
type Turn = Vec<(String, Vec<Figure>)>;

/// Measures all parts and prints medians; ratios are by the first way of each part.
pub(super) fn run(options: &Options) -> Result<()> {
    ground::make()?;
    sandbox::bpffs()?;
    say(&format!(
        "mxscreen {} beside {} and Postfix {}",
        env!("CARGO_PKG_VERSION"),
        haproxy::version()?,
        postscreen::version()?
    ));
    let mut tables = Vec::new();
    if options.wants(BULK) {
        tables.push(in_turns(BULK, options.rounds, &bulk::WAYS, bulk::measure)?);
    }
    if options.wants(SESSIONS) {
        tables.push(in_turns(SESSIONS, options.rounds, &sessions::WAYS, sessions::measure)?);
    }
    if options.wants(FIRST_CONTACT) {
        tables.push(in_turns(FIRST_CONTACT, options.rounds, &first_contact::WAYS, first_contact::measure)?);
    }
    for table in tables {
        say("");
        table.lines().iter().for_each(|line| say(line));
    }
    Ok(())
}

/// Measures each way once a round, with its files in a folder of its own.
fn in_turns<W: Copy>(
    part: &str,
    rounds: u16,
    ways: &[(&'static str, W)],
    measure: impl Fn(W, &Path) -> Result<Turn>,
) -> Result<Comparison> {
    let mut table = Comparison::of(ways.iter().map(|(name, _)| *name));
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..ways.len()).collect();
        // Whoever goes first may find a cooler machine: the turns change.
        order.rotate_left(usize::from(round) % ways.len());
        for (index, (name, way)) in order.into_iter().filter_map(|index| Some((index, *ways.get(index)?))) {
            let folder = tempfile::tempdir_in("/run").context("can't make a folder")?;
            // Postfix wants to reach its directories as another user.
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).context("chmod")?;
            let turn = measure(way, folder.path()).with_context(|| format!("{part}, {name}, round {}", round + 1))?;
            for (case, figures) in turn {
                let shown = figures.iter().map(ToString::to_string).collect::<Vec<_>>();
                say(&format!("{case}, round {}, {name}: {}", round + 1, shown.join(", ")));
                table.add(&case, index, &figures);
            }
        }
    }
    Ok(table)
}
