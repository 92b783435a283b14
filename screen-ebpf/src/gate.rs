//! The gate's decision: deny, then limit, on the SYN. Everything else passes. One code for XDP and for TC.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_log_ebpf::debug;
use screen_common::{
    abi::{REPLY_DENIED, REPLY_LIMITED, Settings, TEXT_LIMITED},
    cookie::may_follow,
    decide::Admission,
    packet::{Answer, Decoded, Opening, decode},
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
    /// A SYN that is to be answered with the text of this number, where the program can; else it is dropped.
    Refuse(Opening, u32),
    /// What may belong to a refusal under way, where the program makes them; else it passes.
    Answer(Answer),
}

/// Why a SYN is turned away, and with which text.
struct Refusal {
    reason: Reason,
    text: u32,
    aloud: bool,
}

/// Judges a packet.
#[inline(always)]
pub(crate) fn judge(ctx: &impl PacketContext) -> Verdict {
    let Some(settings) = maps::settings() else { return Verdict::Pass };
    let concerned = |number| settings.replies != 0 && may_follow(number);
    match decode(&ctx.frame(), |port| settings.protects(port), concerned) {
        Decoded::Answer(answer) => Verdict::Answer(answer),
        Decoded::Opening(opening) => {
            let refusal = judge_opening(settings, &opening);
            let reason = refusal.as_ref().map_or(Reason::Admitted, |refusal| refusal.reason);
            // Unless it was asked for at load time, the verifier removes this: the level is a constant to it.
            debug!(
                ctx,
                "SYN from {:i} port {} to port {}: reason {}",
                opening.source.address,
                opening.source_port,
                opening.destination_port,
                reason as u32
            );
            match refusal {
                None => Verdict::Pass,
                Some(_) if settings.dry_run != 0 => {
                    report::count(Reason::Spared);
                    Verdict::Pass
                }
                Some(refusal) if refusal.aloud => Verdict::Refuse(opening, refusal.text),
                Some(_) => Verdict::Drop,
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

/// Decides on a SYN, counts it, and returns why it is turned away, if it is.
#[inline(always)]
fn judge_opening(settings: &Settings, opening: &Opening) -> Option<Refusal> {
    // SAFETY: no arguments. The coarse clock, because the fine one costs more than all the rest.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    if lists::is_proxy(settings, &opening.source) {
        report::count(Reason::Admitted);
        return None;
    }
    let parties = Parties {
        client: &opening.source,
        client_port: opening.source_port,
        server: &opening.destination,
        server_port: opening.destination_port,
    };
    if let Some(deny) = lists::denied(&opening.source, now_ns)
        && !lists::allowed(&opening.source, now_ns)
    {
        let made = report::report(settings, Reason::Denied, deny.list, &parties, now_ns);
        report::note_refused(&opening.source, Some(deny.list), now_ns, made);
        let aloud = settings.replies & REPLY_DENIED != 0;
        return Some(Refusal { reason: Reason::Denied, text: deny.text, aloud });
    }
    let client = settings.client(&opening.source);
    match clients::admit(settings, &client, opening, now_ns) {
        Admission::Admit => {
            report::count(Reason::Admitted);
            None
        }
        Admission::Limited => {
            clients::note_limited(&client);
            let made = report::report(settings, Reason::Limited, 0, &parties, now_ns);
            report::note_refused(&opening.source, None, now_ns, made);
            let aloud = settings.replies & REPLY_LIMITED != 0;
            Some(Refusal { reason: Reason::Limited, text: TEXT_LIMITED, aloud })
        }
        Admission::Unproven => {
            report::report(settings, Reason::Unproven, 0, &parties, now_ns);
            // Not aloud: a real client sends the same SYN again and is let in.
            Some(Refusal { reason: Reason::Unproven, text: 0, aloud: false })
        }
    }
}
