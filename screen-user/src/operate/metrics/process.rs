//! What runs, since when, and by which configuration.

use std::fmt;

use super::family::Families;
use crate::gate::Measures;

pub(super) fn write(families: &mut Families<'_>, measures: &Measures) -> fmt::Result {
    let reloads = &measures.reloads;
    families.gauge("build_info", "What runs; always 1", ["version"], [([env!("CARGO_PKG_VERSION")], 1)])?;
    families.one("start_time_seconds", "When the screener began, in Unix time", measures.started)?;
    families.counter(
        "config_reloads",
        "How often the configuration was read again",
        ["result"],
        [(["succeeded"], reloads.succeeded), (["failed"], reloads.failed)],
    )?;
    families.one(
        "config_last_reload_successful",
        "Whether the configuration that was read last is in force",
        reloads.last_succeeded,
    )?;
    families.one(
        "config_in_force_since_seconds",
        "When the configuration in force was taken up, in Unix time",
        reloads.in_force_since,
    )
}
