//! `forward.*`: the mail servers, and how they learn who the client is.

use std::net::{IpAddr, SocketAddr};

use crate::config::{
    Backend, ClientAddress, Forward, Layout, Mode,
    document::Value,
    values::{Fault, Values, mismatch},
};

use super::{postfix, socket_address, socket_path};

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
    let (to, weights) = backends(values, layout);
    let client_address = client_address(values, &to, kernel);
    Forward {
        mode: Mode::Relay,
        steer_to: steer_to(values, layout, &to, client_address),
        steer_uid: steer_uid(values),
        to,
        weights,
        most_connections: most_connections(values),
        client_address,
        replay_to: None,
    }
}

/// How many relayed connections a mail server may have.
pub(super) fn most_connections(values: &mut Values<'_>) -> u32 {
    values.number("limits.backend_connections", 0..=u32::MAX)
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

/// The mail servers, and their weights if there are any.
fn backends(values: &mut Values<'_>, layout: Layout) -> (Vec<Backend>, Vec<u16>) {
    let key = "forward.to";
    if !values.is_given(key) {
        if layout == Layout::Front {
            let fault = Fault::new("must be given: in layout \"front\" the mail server listens elsewhere");
            values.fault(key, fault.hint("for example to = [\"127.0.0.1:10025\"]"));
        }
        return (vec![Backend::Local], Vec::new());
    }
    let before = values.problems.len();
    let entries = values.list(key, |value| {
        let Value::Text(text) = value else { return Err(mismatch("a list of addresses", value)) };
        let (place, weight) = text.rsplit_once('*').map_or((text.as_str(), None), |(place, tail)| (place, Some(tail)));
        let weight = weight.map(weight_of).transpose()?;
        Ok((backend(place, layout)?, weight))
    });
    if values.problems.len() > before {
        return (vec![Backend::Local], Vec::new());
    }
    let (to, weights): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
    if to.is_empty() {
        values.fault(key, Fault::new("at least one mail server is needed"));
    }
    if let Some(twice) = to.iter().enumerate().find_map(|(at, one)| to.iter().take(at).find(|other| *other == one)) {
        values.fault(key, Fault::new(format!("{twice} is listed twice")));
    }
    if !weights.is_empty() && weights.iter().all(|weight| *weight == Some(0)) {
        let fault = Fault::new("all mail servers have weight 0: none would take a client");
        values.fault(key, fault.hint("weight 0 is for a server that is to be stopped while others go on"));
    }
    let weighted = weights.iter().any(Option::is_some);
    let weights = if weighted { weights.into_iter().map(|weight| weight.unwrap_or(1)).collect() } else { Vec::new() };
    (to, weights)
}

fn weight_of(text: &str) -> Result<u16, Fault> {
    text.parse().map_err(|_| Fault::new(format!("bad weight {text:?}: 0 to {}", u16::MAX)))
}

fn backend(text: &str, layout: Layout) -> Result<Backend, Fault> {
    match text {
        "local" if layout == Layout::Front => Err(Fault::new(
            "\"local\" would lead back to the screener: in layout \"front\" it owns the address that the client meant",
        )),
        "local" => Ok(Backend::Local),
        path if path.starts_with('/') => socket_path(path).map(Backend::Socket),
        address => socket_address(&Value::Text(address.to_owned()), None).map(Backend::At),
    }
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
        let by_path = to.iter().find(|backend| matches!(backend, Backend::Socket(_)));
        if let (ClientAddress::Kernel, Some(path)) = (way, by_path) {
            let fault = Fault::new(format!("\"kernel\" can't show a client on the Unix socket {path}"));
            values.fault("forward.client_address", fault.hint("use \"proxy-v2\" and have the mail server expect it"));
        } else if way == ClientAddress::Kernel && !to.iter().all(is_here) {
            let fault = Fault::new("\"kernel\" works with mail servers on this host only");
            values.fault("forward.client_address", fault.hint("for servers elsewhere use \"proxy-v2\""));
        }
        if way == ClientAddress::None {
            values.notices.push(
                "forward.client_address = \"none\": the mail server takes every client for this host; where it trusts this host, anybody may relay"
                    .to_owned(),
            );
        }
        return way;
    }
    if kernel && to.iter().all(|backend| is_here(backend) && !matches!(backend, Backend::Socket(_))) {
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
