//! The DNSBL zones, each by the name that may be shown. Counts begin anew when a reload changes zones or resolvers.

use std::fmt;

use super::family::Families;
use crate::{
    dns::{Latency, ZoneStats},
    share::Histogram,
};

pub(super) fn write(families: &mut Families<'_>, zones: &[ZoneStats]) -> fmt::Result {
    let of = |value: fn(&ZoneStats) -> u64| zones.iter().map(move |zone| ([zone.zone.as_str()], value(zone)));
    families.counter("dnsbl_queries", "Queries sent or tried", ["zone"], of(|zone| zone.queries))?;
    families.counter(
        "dnsbl_answers",
        "Answers, by whether they list the client",
        ["zone", "result"],
        zones.iter().flat_map(|zone| {
            [("listed", zone.listed), ("not-listed", zone.not_listed)]
                .map(|(result, answers)| ([zone.zone.as_str(), result], answers))
        }),
    )?;
    families.counter(
        "dnsbl_failures",
        "Clients for whom a zone gave no usable answer, and why",
        ["zone", "reason"],
        zones.iter().flat_map(|zone| failures(zone).map(|(reason, count)| ([zone.zone.as_str(), reason], count))),
    )?;
    families.gauge(
        "dnsbl_suspended",
        "Whether a zone is not asked, as it lists everybody",
        ["zone"],
        of(|zone| zone.suspended_since.is_some().into()),
    )?;
    families.histogram(
        "dnsbl_answer_seconds",
        "How long answers of a zone took; time-outs are not in it",
        ["zone"],
        zones.iter().map(|zone| ([zone.zone.as_str()], histogram(&zone.latency))),
    )
}

fn failures(zone: &ZoneStats) -> [(&'static str, u64); 8] {
    [
        ("timed-out", zone.timed_out),
        ("server-failure", zone.server_failures),
        ("refused", zone.refused),
        ("bad-response", zone.bad_responses),
        ("unreachable", zone.unreachable),
        ("error-code", zone.error_codes),
        ("suspended", zone.skipped),
        ("overloaded", zone.overloaded),
    ]
}

fn histogram(latency: &Latency) -> Histogram {
    let bounds = Latency::BOUNDS_MS.into_iter().map(|bound| bound as f64 / 1e3).chain([f64::INFINITY]);
    Histogram { buckets: bounds.zip(latency.buckets).collect(), sum: latency.sum_us as f64 / 1e6 }
}
