//! `forward.*`: the mail servers, and how they learn who the client is.

use std::net::{IpAddr, SocketAddr};

use crate::config::{
    Backend, ClientAddress, Forward, Layout, Mode,
    document::Value,
    values::{Fault, Values, mismatch},
};

use super::{postfix, socket_address, unavailable};

/// The ways to the mail server.
pub(super) fn forward(values: &mut Values<'_>, layout: Layout, kernel: bool) -> Forward {
    if values.word("forward.mode", &[("relay", Mode::Relay), ("postfix", Mode::Postfix)], Mode::Relay) == Mode::Postfix
    {
        return postfix::forward(values, layout, kernel);
    }
    if values.is_given("forward.replay_to") {
        let fault = Fault::new("in mode \"relay\" sessions are replayed to forward.to");
        values.fault("forward.replay_to", fault.hint("leave it out"));
    }
    let to = backends(values, layout);
    let client_address = client_address(values, &to, kernel);
    let steer_to = steer_to(values, layout, &to, client_address);
    Forward { mode: Mode::Relay, steer_to, steer_uid: steer_uid(values), client_address, replay_to: None, to }
}

/// The listener for known-good clients, where it is not the protected port itself.
pub(super) fn steer_to(
    values: &mut Values<'_>,
    layout: Layout,
    to: &[Backend],
    client_address: ClientAddress,
) -> Option<SocketAddr> {
    let key = "forward.steer_to";
    if !values.is_given(key) {
        // One mail server on this host that takes connections as they are takes them from clients too.
        return match (layout, to) {
            (Layout::Front, [Backend::At(address)]) if client_address == ClientAddress::Kernel => Some(*address),
            _ => None,
        };
    }
    let address = values.read(key, |value| socket_address(value, None))?;
    if layout == Layout::InPlace {
        let fault = Fault::new(
            "in layout \"in-place\" known-good clients go to the protected port, where the mail server listens",
        );
        values.fault(key, fault.hint("leave it out"));
        return None;
    }
    if !is_here(&Backend::At(address)) {
        values.fault(key, Fault::new(format!("{address} is not on this host: the kernel can't steer clients there")));
        return None;
    }
    Some(address)
}

/// Whose listeners are taken for the mail server's.
pub(super) fn steer_uid(values: &mut Values<'_>) -> u32 {
    let Some(name) = values.filled_text("forward.steer_user") else { return 0 };
    values.host.uid(&name).unwrap_or_else(|| {
        values.fault("forward.steer_user", Fault::new(format!("there is no user {name:?}")));
        0
    })
}

fn backends(values: &mut Values<'_>, layout: Layout) -> Vec<Backend> {
    if !values.is_given("forward.to") {
        if layout == Layout::Front {
            let fault = Fault::new("must be given: in layout \"front\" the mail server listens elsewhere");
            values.fault("forward.to", fault.hint("for example to = [\"127.0.0.1:10025\"]"));
        }
        return vec![Backend::Local];
    }
    let before = values.problems.len();
    let to = values.list("forward.to", |value| match value {
        Value::Text(word) if word == "local" && layout == Layout::Front => Err(Fault::new(
            "\"local\" would lead back to the screener: in layout \"front\" it owns the address that the client meant",
        )),
        Value::Text(word) if word == "local" => Ok(Backend::Local),
        Value::Text(path) if path.starts_with('/') => Err(unavailable("the path of a socket")),
        Value::Text(_) => socket_address(value, None).map(Backend::At),
        _ => Err(mismatch("a list of addresses", value)),
    });
    if to.is_empty() && values.problems.len() == before {
        values.fault("forward.to", Fault::new("at least one mail server is needed"));
    }
    to
}

pub(super) fn client_address(values: &mut Values<'_>, to: &[Backend], kernel: bool) -> ClientAddress {
    let words = [
        ("kernel", ClientAddress::Kernel),
        ("proxy-v2", ClientAddress::ProxyV2),
        ("proxy-v1", ClientAddress::ProxyV1),
        ("none", ClientAddress::None),
    ];
    if values.is_given("forward.client_address") {
        let way = values.word("forward.client_address", &words, ClientAddress::None);
        if way == ClientAddress::Kernel && !kernel {
            values
                .fault("forward.client_address", Fault::new("\"kernel\" needs the kernel, and kernel.mode is \"off\""));
        }
        if way == ClientAddress::Kernel && !to.iter().all(is_here) {
            let fault = Fault::new("\"kernel\" works with mail servers on this host only");
            values.fault("forward.client_address", fault.hint("for servers elsewhere use \"proxy-v2\""));
        }
        return way;
    }
    if kernel && to.iter().all(is_here) {
        return ClientAddress::Kernel;
    }
    if !kernel {
        values.notices.push(
            "forward.client_address: without the kernel the mail server is told the client's address by a PROXY v2 header, which it must expect; \
             \"none\" sends no header"
                .to_owned(),
        );
    }
    ClientAddress::ProxyV2
}

/// Whether a mail server is on this host.
fn is_here(backend: &Backend) -> bool {
    let Backend::At(address) = backend else { return true };
    let address = address.ip().to_canonical();
    address.is_loopback() || address.is_unspecified() || has_interface(address)
}

fn has_interface(address: IpAddr) -> bool {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return false };
    interfaces.filter_map(|interface| interface.address).any(|own| {
        let v4 = own.as_sockaddr_in().map(|own| IpAddr::V4(own.ip()));
        let v6 = own.as_sockaddr_in6().map(|own| IpAddr::V6(own.ip()));
        v4.or(v6) == Some(address)
    })
}
