//! The link to other hosts. Its families have no samples where there is no link.

use std::fmt;

use super::family::Families;
use crate::gate::RedisMeasures;

pub(super) fn write(families: &mut Families<'_>, redis: Option<&RedisMeasures>) -> fmt::Result {
    let of = |value: fn(&RedisMeasures) -> u64| redis.map(|redis| ([""; 0], value(redis)));
    families.gauge("redis_connected", "Whether other hosts can be heard", [], of(|it| it.status.connected.into()))?;
    families.gauge("redis_synced", "Whether what they know is known here", [], of(|it| it.status.synced.into()))?;
    families.gauge(
        "redis_waiting",
        "Registers that have changed here and are yet to be told",
        [],
        of(|it| it.status.waiting as u64),
    )?;
    families.gauge(
        "redis_unconfirmed",
        "Registers that were told and not heard back",
        [],
        of(|it| it.status.unconfirmed as u64),
    )?;
    families.counter("redis_told", "Changes told to others", [], of(|it| it.status.told))?;
    families.counter("redis_heard", "Changes heard of others", [], of(|it| it.status.heard))?;
    families.counter("redis_reconciled", "How often everything was looked at", [], of(|it| it.status.reconciled))?;
    let took =
        |value: fn(&RedisMeasures) -> &crate::share::Histogram| redis.map(|redis| ([""; 0], value(redis).clone()));
    families.histogram(
        "redis_lag_seconds",
        "From when another host learnt something until it was in force here, by both clocks",
        [],
        took(|it| &it.lag),
    )?;
    families.histogram(
        "redis_echo_seconds",
        "From when this host learnt something until it heard that back",
        [],
        took(|it| &it.echo),
    )?;
    families.histogram(
        "redis_lookup_seconds",
        "How long answered look-ups of new clients took",
        [],
        took(|it| &it.look_ups),
    )?;
    families.counter("redis_lookups", "Look-ups of new clients, by what came of them", ["result"], look_ups(redis))
}

fn look_ups(redis: Option<&RedisMeasures>) -> impl Iterator<Item = ([&'static str; 1], u64)> {
    redis.into_iter().flat_map(|redis| {
        let look_ups = &redis.status.lookups;
        [
            (["answered"], look_ups.answered),
            (["timed-out"], look_ups.timed_out),
            (["failed"], look_ups.failed),
            (["skipped"], look_ups.skipped),
        ]
    })
}
