//! What is known of clients: the cache, and the lists.

use std::fmt;

use super::family::Families;
use crate::gate::{ListMeasures, Measures};

pub(super) fn write(families: &mut Families<'_>, measures: &Measures) -> fmt::Result {
    let Measures { screen, store, lists, .. } = measures;
    families.one("cache_records", "Clients that are remembered", screen.records as u64)?;
    families.one("cache_pool_credits", "Networks whose clients are spared the deep tests", screen.credits as u64)?;
    families.one("cache_loading", "Whether records of the last run are still taken up", measures.loading)?;
    families.one("cache_pending", "Changes that wait to be written", store.pending as u64)?;
    families.count("cache_written", "Changes written to the file", store.written)?;
    families.count("cache_lost", "Changes that found the queue full, and are in memory only", store.lost)?;
    families.one("cache_failing", "Whether the file can't be written at the moment", store.failing.is_some())?;
    write_lists(families, lists)
}

fn write_lists(families: &mut Families<'_>, lists: &ListMeasures) -> fmt::Result {
    families.gauge(
        "list_entries",
        "Entries of run-time lists and networks of the access list",
        ["list"],
        [
            (["denied-at-run-time"], lists.denied_at_run_time as u64),
            (["allowed-at-run-time"], lists.allowed_at_run_time as u64),
            (["denied-by-access-list"], lists.denied_by_access_list as u64),
            (["permitted-by-access-list"], lists.permitted_by_access_list as u64),
        ],
    )?;
    families.gauge(
        "blocklist_networks",
        "Networks on an imported block list",
        ["list"],
        lists.imported.iter().map(|(name, networks, ..)| ([name], *networks as u64)),
    )?;
    families.gauge(
        "blocklist_imported_seconds",
        "When a block list was imported, in Unix time",
        ["list"],
        lists.imported.iter().map(|(name, _, imported, _)| ([name], *imported)),
    )?;
    families.gauge(
        "blocklist_ends_seconds",
        "When a block list ends, in Unix time; lists that stay are left out",
        ["list"],
        lists.imported.iter().filter_map(|(name, .., until)| Some(([name], (*until)?))),
    )
}
