//! The mail servers, each by the name that the configuration has for it.

use std::fmt;

use super::family::Families;
use crate::{forward::pool::Shown, gate::Measures};

pub(super) fn write(families: &mut Families<'_>, measures: &Measures) -> fmt::Result {
    let servers = |value: fn(&Shown) -> u64| {
        measures.backends.servers.iter().map(move |server| ([server.server.as_str()], value(server)))
    };
    let keys = ["backend"];
    families.gauge("backend_up", "Whether a mail server takes clients", keys, servers(|it| it.is_up().into()))?;
    families.gauge("backend_sessions", "Connections to a mail server", keys, servers(|it| it.open.into()))?;
    families.gauge(
        "backend_waiting",
        "Connections that wait for the greeting of a mail server",
        keys,
        servers(|it| it.waiting_for_greeting.into()),
    )?;
    families.counter("backend_served", "Clients that a mail server has greeted", keys, servers(|it| it.served))?;
    families.counter("backend_failures", "Clients that a mail server did not serve", keys, servers(|it| it.failures))
}
