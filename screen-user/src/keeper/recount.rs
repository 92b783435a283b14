//! Counts of connections, held against the kernel's table of sockets: once at the start, and when the operator asks.

use super::message::{MOST_LINES, ToScreener};
use crate::{
    kernel::Installation,
    operate::{
        exit::{Failure, chain},
        log::Log,
    },
};

/// Counts anew, where the kernel can, and forgets what a former gate has left of its relayed connections.
pub(super) fn at_start(installation: &Installation, log: &Log) {
    if let Err(error) = installation.forget_former_relays() {
        log.warn(format!("relayed connections of a former gate are not forgotten: {}", chain(&error)));
    }
    if installation.finds_servers()
        && let Err(failure) = recount(installation, log)
    {
        log.warn(format!("connections were not counted anew: {failure}"));
    }
}

/// Counts anew for whoever has asked.
pub(super) fn on_demand(installation: Option<&Installation>, log: &Log) -> ToScreener {
    let said = match installation {
        Some(installation) => recount(installation, log),
        None => Err(Failure::unavailable("the kernel part does not run, and nothing is counted there")),
    };
    said.map_or_else(|failure| ToScreener::Failed((&failure).into()), ToScreener::Said)
}

/// Logs what was wrong; returns what was found, in sentences. Takes a quarter of a second and more.
fn recount(installation: &Installation, log: &Log) -> Result<Vec<String>, Failure> {
    let found = installation.recount().map_err(|error| Failure::unavailable(chain(&error)))?;
    let mut said = vec![format!("{} connections of {} clients", found.connections, found.clients)];
    for (number, wrong) in found.corrected.iter().enumerate() {
        let sentence =
            format!("{}: {} were counted, {} are there: corrected", wrong.client, wrong.counted, wrong.connections);
        log.warn(format!("connections of {sentence}"));
        if number < MOST_LINES {
            said.push(sentence);
        }
    }
    let left_out = found.corrected.len().saturating_sub(MOST_LINES);
    if left_out > 0 {
        said.push(format!("{left_out} more clients corrected: see the log"));
    }
    if found.unsettled > 0 {
        said.push(format!("{} clients came and went meanwhile: left as they are", found.unsettled));
    }
    Ok(said)
}
