//! Clients: who was decided about, where, how and why; what is open; and the queues.

use std::fmt;

use super::family::Families;
use crate::{
    gate::{KernelMeasures, Measures},
    kernel::Reason,
};

const KERNEL: &str = "kernel";
const SCREENER: &str = "screener";

pub(super) fn write(families: &mut Families<'_>, measures: &Measures) -> fmt::Result {
    families.counter(
        "decisions",
        "Decisions by the place that made them: SYNs and look-ups in the kernel, sessions in the screener",
        ["place", "verdict", "reason"],
        decisions(measures),
    )?;
    families.counter(
        "tests",
        "Tests that sessions took, by result and by what was to be done about a failure",
        ["test", "result", "action"],
        measures.tests.iter().map(|(labels, count)| (labels.each_ref(), *count)),
    )?;
    families.one("dry_run", "Whether nobody is turned away", measures.dry_run)?;
    families.counter(
        "would_have_blocked",
        "Clients that a dry run has spared, by the place that would have turned them away",
        ["place", "reason"],
        spared(measures),
    )?;
    families.histogram(
        "session_duration_seconds",
        "From accept until the screener was done with the client, by verdict",
        ["verdict"],
        measures.took.iter().map(|(verdict, took)| ([verdict], took.clone())),
    )?;
    open(families, measures)?;
    queues(families, measures)
}

fn decisions(measures: &Measures) -> impl Iterator<Item = ([&str; 3], u64)> {
    let screener = measures.sessions.iter().map(|([verdict, reason], count)| ([SCREENER, verdict, reason], *count));
    screener.chain(measures.kernel.iter().flat_map(kernel_decisions))
}

fn kernel_decisions(kernel: &KernelMeasures) -> impl Iterator<Item = ([&str; 3], u64)> {
    kernel.totals.iter().filter_map(|(reason, total)| {
        let verdict = match reason {
            Reason::Denied => "rejected",
            Reason::Limited => "deferred",
            Reason::PassOld | Reason::Allowed => "forwarded",
            // No decision about a client, or none that lasts.
            Reason::Admitted
            | Reason::Unproven
            | Reason::Malformed
            | Reason::ToScreener
            | Reason::ScreenerDown
            | Reason::Relayed
            | Reason::ClientsFull
            | Reason::Challenged
            | Reason::Refused
            | Reason::LetIn
            | Reason::Spared => return None,
        };
        Some(([KERNEL, verdict, reason.name()], total.packets))
    })
}

fn spared(measures: &Measures) -> impl Iterator<Item = ([&str; 2], u64)> {
    let screener = measures.spared.iter().map(|(reason, sessions)| ([SCREENER, reason.as_str()], *sessions));
    let totals = measures.kernel.iter().flat_map(|kernel| &kernel.totals);
    let kernel = totals.filter(|(reason, _)| matches!(reason, Reason::LetIn | Reason::Spared));
    screener.chain(kernel.map(|(reason, total)| ([KERNEL, reason.name()], total.packets)))
}

fn open(families: &mut Families<'_>, measures: &Measures) -> fmt::Result {
    families.count("connections_accepted", "Connections that the screener has accepted", measures.accepted)?;
    families.one("connections_open", "Connections that the screener holds, relayed ones included", measures.open)?;
    families.one("connections_relayed", "Connections that the screener relays", measures.relayed)?;
    families.counter(
        "relayed_bytes",
        "Bytes that were relayed, by who sent them",
        ["from"],
        [["clients"], ["servers"]].into_iter().zip(measures.relayed_bytes),
    )?;
    families.one("clients", "Clients with a session", measures.screen.clients as u64)?;
    families.one("stress", "Whether time limits are shortened", measures.screen.stress)
}

fn queues(families: &mut Families<'_>, measures: &Measures) -> fmt::Result {
    let screen = &measures.screen;
    let queues: [(&str, u64, u64); 5] = [
        ("screening", screen.checking.saturating_sub(screen.forwarding).into(), measures.limits.pre_queue.into()),
        ("forwarding", screen.forwarding.into(), measures.limits.post_queue.into()),
        ("mail-server", measures.backends.waiting_for_a_place as u64, 0),
        ("proxy-header", measures.proxy_waits.0.into(), measures.proxy_waits.1.into()),
        ("tls", measures.tls_sessions.0.into(), measures.tls_sessions.1.into()),
    ];
    families.gauge(
        "queue_sessions",
        "Sessions in a queue",
        ["queue"],
        queues.map(|(queue, sessions, _)| ([queue], sessions)),
    )?;
    families.gauge(
        "queue_limit",
        "Most sessions in a queue; queues without a limit are left out",
        ["queue"],
        queues.into_iter().filter(|(.., limit)| *limit > 0).map(|(queue, _, limit)| ([queue], limit)),
    )
}
