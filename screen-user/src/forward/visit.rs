//! A client on its way to a mail server: where it fits, and where it has been.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use crate::{
    config::{Backend, ClientAddress},
    screen::event::Endpoints,
};

/// What a mail server listens on: it may do so in one family and not in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Listener {
    Tcp { ipv6: bool, port: u16 },
    Unix,
}

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Over TCP.
    Address(SocketAddr),
    /// By a Unix socket.
    Path(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// What matters of a client when a mail server is chosen. Equal visits can go to the same servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visit {
    /// Of any client of the family.
    client: IpAddr,
    server: SocketAddr,
    tried: Vec<Backend>,
}

impl Visit {
    pub(super) fn new(endpoints: &Endpoints) -> Self {
        let server = SocketAddr::new(any_of(endpoints.server.ip()), endpoints.server.port());
        Self { client: any_of(endpoints.client.ip()), server, tried: Vec::new() }
    }

    /// The server did not serve the client, which is not to come back.
    pub(super) fn leave(&mut self, backend: &Backend) {
        self.tried.push(backend.clone());
    }

    /// Where the client would meet a server, unless it has been there or does not fit.
    pub(super) fn listener(&self, backend: &Backend, client_address: ClientAddress) -> Option<Listener> {
        if self.tried.contains(backend) {
            return None;
        }
        Some(match target(backend, client_address, self.client, self.server).ok()? {
            Target::Address(address) => Listener::Tcp { ipv6: address.is_ipv6(), port: address.port() },
            Target::Path(_) => Listener::Unix,
        })
    }
}

fn any_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Where to connect to. An IPv6 client can't be shown on an IPv4 socket: it goes to the same port of the IPv6 loopback address.
///
/// # Errors
/// There is no such address.
pub(super) fn target(
    backend: &Backend,
    client_address: ClientAddress,
    client: IpAddr,
    server: SocketAddr,
) -> io::Result<Target> {
    let address = match backend {
        Backend::Local => server,
        Backend::At(address) => *address,
        Backend::Socket(path) => return Ok(Target::Path(path.clone())),
    };
    match (client_address, client, address.ip()) {
        (ClientAddress::Kernel, IpAddr::V6(_), IpAddr::V4(ip)) if ip.is_loopback() => {
            Ok(Target::Address(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port())))
        }
        (ClientAddress::Kernel, IpAddr::V6(_), IpAddr::V4(_)) => {
            Err(io::Error::other("an IPv6 client can't be shown to a mail server that listens on IPv4 alone"))
        }
        _ => Ok(Target::Address(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_client_fits_where_it_can_be_shown() {
        let [v4, v6]: [IpAddr; 2] = ["192.0.2.1", "2001:db8::1"].map(|client| client.parse().unwrap());
        let at = |server: &str| Backend::At(server.parse().unwrap());
        let server = "[2001:db8::25]:25".parse().unwrap();
        for (backend, way, client, expected) in [
            (at("127.0.0.1:10025"), ClientAddress::Kernel, v4, Some("127.0.0.1:10025")),
            (at("127.0.0.1:10025"), ClientAddress::Kernel, v6, Some("[::1]:10025")),
            (at("127.0.0.1:10025"), ClientAddress::ProxyV2, v6, Some("127.0.0.1:10025")),
            (at("198.51.100.2:25"), ClientAddress::Kernel, v6, None),
            (at("198.51.100.2:25"), ClientAddress::None, v6, Some("198.51.100.2:25")),
            (Backend::Local, ClientAddress::Kernel, v6, Some("[2001:db8::25]:25")),
            (Backend::Socket("/run/smtpd".into()), ClientAddress::ProxyV2, v6, Some("/run/smtpd")),
        ] {
            let found = target(&backend, way, client, server).ok().map(|target| target.to_string());
            assert_eq!(found.as_deref(), expected, "{backend:?} {way:?} {client}");
        }
    }

    #[test]
    fn clients_of_one_kind_make_equal_visits() {
        let visit = |client: &str, server: &str| {
            let endpoints = Endpoints { client: client.parse().unwrap(), server: server.parse().unwrap() };
            Visit::new(&endpoints)
        };
        let first = visit("192.0.2.1:4000", "198.51.100.2:25");
        assert_eq!(first, visit("192.0.2.9:4001", "198.51.100.3:25"));
        assert_ne!(first, visit("192.0.2.9:4001", "198.51.100.3:587"));
        assert_ne!(first, visit("[2001:db8::1]:4000", "[2001:db8::25]:25"));
        let mut second = first.clone();
        second.leave(&Backend::Local);
        assert_ne!(first, second);
        let listener = |visit: &Visit| visit.listener(&Backend::Local, ClientAddress::Kernel);
        assert_eq!((listener(&first), listener(&second)), (Some(Listener::Tcp { ipv6: false, port: 25 }), None));
    }
}
