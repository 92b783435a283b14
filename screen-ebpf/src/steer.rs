//! The SK_LOOKUP program: who gets a connection to a protected port.

use aya_ebpf::{helpers::bpf_ktime_get_coarse_ns, programs::SkLookupContext};
use screen_common::{
    abi::{LISTENER_IPV4, LISTENER_IPV6, RelayKey, STEER_ALL, STEER_NOBODY, STEER_RELEASED},
    reason::Reason,
};

use crate::{
    context::{lookup_ends, lookup_is_tcp},
    listen::{self, Found},
    lists::{self, Standing},
    maps::{self, listeners, relay_clients},
    report,
};

/// Who gets the connection.
pub(crate) enum Choice {
    /// Whoever listens: the mail server.
    FallThrough,
    /// The mail server's listener, which is assigned.
    Server,
    /// The screener's listener, which is assigned.
    Screener,
    /// Nobody.
    Refuse,
}

/// Chooses for one look-up. Only the choice is made here; the connection is counted and reported once it is made.
#[inline(always)]
pub(crate) fn choose(ctx: &SkLookupContext) -> Choice {
    let Some(settings) = maps::settings() else { return Choice::FallThrough };
    if !lookup_is_tcp(ctx.lookup) {
        return Choice::FallThrough;
    }
    let ends = lookup_ends(ctx.lookup);
    if settings.steering == STEER_NOBODY || !settings.protects(ends.local_port) {
        return Choice::FallThrough;
    }
    if relay_clients.get_ptr(RelayKey { address: ends.remote, port: u32::from(ends.remote_port) }).is_some() {
        report::count(Reason::Relayed);
        return Choice::FallThrough;
    }
    // The mail server would take a PROXY header for the client's first command.
    let proxy = lists::is_proxy(settings, &ends.remote);
    // SAFETY: no arguments.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    if settings.steering >= STEER_ALL && !proxy {
        match lists::standing(settings, &ends.remote, now_ns) {
            // The server's own listener; where it does not listen, or hangs, the screener answers for it.
            Standing::Allowed | Standing::Passed => {
                if settings.find_servers == 0 {
                    return Choice::FallThrough;
                }
                if let Found::Taker = listen::assign(ctx, settings, &ends.local, ends.local_port, now_ns) {
                    return Choice::Server;
                }
            }
            Standing::Stranger => {}
        }
    }
    if settings.steering == STEER_RELEASED {
        return Choice::FallThrough;
    }
    // In front the screener owns the port, and strangers need no steering as long as it listens.
    let slot = if ends.remote.ipv4().is_some() { LISTENER_IPV4 } else { LISTENER_IPV6 };
    if listeners.redirect_sk_lookup(ctx, slot, 0).is_ok() {
        report::count(Reason::ToScreener);
        return Choice::Screener;
    }
    // The kernel empties the slot when the socket is closed.
    report::count(Reason::ScreenerDown);
    if settings.pass_when_down != 0 && !proxy {
        if settings.steer_port != 0
            && let Found::Taker = listen::assign(ctx, settings, &ends.local, ends.local_port, now_ns)
        {
            return Choice::Server;
        }
        return Choice::FallThrough;
    }
    Choice::Refuse
}
