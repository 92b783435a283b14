//! `forward.*`: the mail servers, and how they learn who the client is.

use std::net::IpAddr;

use crate::config::{
    Backend, ClientAddress, Forward, Layout,
    document::Value,
    values::{Fault, Values, mismatch},
};

use super::{socket_address, unavailable};

/// The ways to the mail server.
pub(super) fn forward(values: &mut Values, layout: Layout, kernel: bool) -> Forward {
    if !values.word("forward.mode", &[("relay", true), ("postfix", false)], true) {
        values.fault("forward.mode", unavailable("\"postfix\"").hint("\"relay\" works with every mail server"));
    }
    if values.is_given("forward.steer_to") {
        values.fault("forward.steer_to", unavailable("a listener of its own for steered clients"));
    }
    let to = backends(values, layout);
    Forward { client_address: client_address(values, &to, kernel), to }
}

fn backends(values: &mut Values, layout: Layout) -> Vec<Backend> {
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

fn client_address(values: &mut Values, to: &[Backend], kernel: bool) -> ClientAddress {
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
        if way == ClientAddress::Kernel && !to.iter().all(|backend| is_here(*backend)) {
            let fault = Fault::new("\"kernel\" works with mail servers on this host only");
            values.fault("forward.client_address", fault.hint("for servers elsewhere use \"proxy-v2\""));
        }
        return way;
    }
    if kernel && to.iter().all(|backend| is_here(*backend)) {
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
fn is_here(backend: Backend) -> bool {
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
