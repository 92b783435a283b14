//! The SK_LOOKUP program: who gets a connection to a protected port.

use aya_ebpf::{helpers::bpf_ktime_get_coarse_ns, programs::SkLookupContext};
use screen_common::{
    abi::{
        FIND_ALL, FIND_NONE, LISTENER_IPV4, LISTENER_IPV6, RelayKey, STEER_ALL, STEER_NOBODY, STEER_RELEASED, Settings,
    },
    reason::Reason,
};

use crate::{
    context::{Ends, lookup_ends, lookup_is_tcp},
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
    let protected = settings.protects(ends.local_port);
    if settings.steering == STEER_NOBODY || !protected && !listen::is_servers(settings, ends.local_port) {
        return Choice::FallThrough;
    }
    // SAFETY: no arguments.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    if relay_clients.get_ptr(RelayKey { address: ends.remote, port: u32::from(ends.remote_port) }).is_some() {
        report::count(Reason::Relayed);
        return relayed(ctx, settings, &ends, now_ns);
    }
    if !protected {
        return Choice::FallThrough;
    }
    // The mail server would take a PROXY header for the client's first command.
    let proxy = lists::is_proxy(settings, &ends.remote);
    if settings.steering >= STEER_ALL && !proxy {
        match lists::standing(settings, &ends.remote, now_ns) {
            // The server's own listener; where it does not listen, or hangs, the screener answers for it.
            Standing::Allowed | Standing::Passed | Standing::LetIn => {
                if settings.find_servers == FIND_NONE {
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

/// Chooses for the relay's own connection. While the mail server is away, somebody else may listen where it did.
#[inline(always)]
fn relayed(ctx: &SkLookupContext, settings: &Settings, ends: &Ends, now_ns: u64) -> Choice {
    if settings.find_servers != FIND_ALL {
        return Choice::FallThrough;
    }
    match listen::assign_there(ctx, &ends.local, ends.local_port, now_ns) {
        Found::Taker => Choice::Server,
        // The relay has time, and a server that hangs has the port to itself.
        Found::Hung => Choice::FallThrough,
        Found::Nobody => Choice::Refuse,
    }
}
