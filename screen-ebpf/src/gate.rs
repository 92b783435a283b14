//! The gate's decision: deny, then limit, on the SYN. Everything else passes. One code for XDP and for TC.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_log_ebpf::debug;
use screen_common::{
    abi::Settings,
    decide::Admission,
    packet::{Decoded, Opening, decode},
    reason::Reason,
};

use crate::{
    clients, lists, maps,
    packet::PacketContext,
    report::{self, Parties},
};

/// What becomes of a packet.
pub(crate) enum Verdict {
    Pass,
    Drop,
}

/// Judges a packet.
#[inline(always)]
pub(crate) fn judge(ctx: &impl PacketContext) -> Verdict {
    let Some(settings) = maps::settings() else { return Verdict::Pass };
    match decode(&ctx.frame(), |port| settings.protects(port)) {
        Decoded::Opening(opening) => {
            let reason = judge_opening(settings, &opening);
            // Unless it was asked for at load time, the verifier removes this: the level is a constant to it.
            debug!(
                ctx,
                "SYN from {:i} port {} to port {}: reason {}",
                opening.source.address,
                opening.source_port,
                opening.destination_port,
                reason as u32
            );
            match reason {
                Reason::Admitted => Verdict::Pass,
                _ if settings.dry_run != 0 => Verdict::Pass,
                _ => Verdict::Drop,
            }
        }
        Decoded::NotOurs => Verdict::Pass,
        // The stack knows better what is wrong with it, and a gate that drops what it can't read drops mail.
        Decoded::Malformed => {
            report::count(Reason::Malformed);
            Verdict::Pass
        }
    }
}

/// Decides on a SYN, counts it, and returns the reason: [`Reason::Admitted`] if it may pass.
#[inline(always)]
fn judge_opening(settings: &Settings, opening: &Opening) -> Reason {
    // SAFETY: no arguments. The coarse clock, because the fine one costs more than all the rest.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    if lists::is_proxy(settings, &opening.source) {
        report::count(Reason::Admitted);
        return Reason::Admitted;
    }
    let parties = Parties {
        client: &opening.source,
        client_port: opening.source_port,
        server: &opening.destination,
        server_port: opening.destination_port,
    };
    if let Some(list) = lists::denied(&opening.source, now_ns)
        && !lists::allowed(&opening.source, now_ns)
    {
        report::note_refused(&opening.source, Some(list), now_ns);
        report::report(settings, Reason::Denied, list, &parties, now_ns);
        return Reason::Denied;
    }
    let client = settings.client(&opening.source);
    match clients::admit(settings, &client, opening, now_ns) {
        Admission::Admit => {
            report::count(Reason::Admitted);
            Reason::Admitted
        }
        Admission::Limited => {
            clients::note_limited(&client);
            report::note_refused(&opening.source, None, now_ns);
            report::report(settings, Reason::Limited, 0, &parties, now_ns);
            Reason::Limited
        }
        Admission::Unproven => {
            report::report(settings, Reason::Unproven, 0, &parties, now_ns);
            Reason::Unproven
        }
    }
}
