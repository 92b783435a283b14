//! PROXY protocol headers that go out, version 1 and 2: the mail server learns who the client is.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::net::tls_facts::TlsFacts;

/// A version 1 header: one line of text, at most 107 bytes.
#[must_use]
pub fn v1(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let (family, client_ip, server_ip) = match one_family(client.ip(), server.ip()) {
        Family::V4(..) => ("TCP4", client.ip().to_canonical(), server.ip().to_canonical()),
        Family::V6(client, server) => ("TCP6", IpAddr::V6(client), IpAddr::V6(server)),
    };
    format!("PROXY {family} {client_ip} {server_ip} {} {}\r\n", client.port(), server.port()).into_bytes()
}

/// The type of the extension that says how the connection is protected.
const TYPE_SSL: u8 = 0x20;
const SUBTYPE_SSL_VERSION: u8 = 0x21;
const SUBTYPE_SSL_CIPHER: u8 = 0x23;
/// The client connected over TLS, without a certificate of its own.
const CLIENT_SSL: u8 = 1;
/// What stands for "no certificate of the client was verified": anything but zero.
const NOT_VERIFIED: [u8; 4] = [0, 0, 0, 1];

fn ssl(facts: &TlsFacts) -> Vec<u8> {
    let version = extension(SUBTYPE_SSL_VERSION, facts.version.as_bytes());
    let cipher = extension(SUBTYPE_SSL_CIPHER, facts.cipher.as_bytes());
    extension(TYPE_SSL, &[&[CLIENT_SSL], &NOT_VERIFIED[..], &version, &cipher].concat())
}

/// Type, length, value. What the gate has to say is short; the length has two bytes.
fn extension(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    let value = value.get(..usize::from(length)).unwrap_or(value);
    [&[kind], &length.to_be_bytes()[..], value].concat()
}

/// A version 2 header for a relayed connection: 28 or 52 bytes, and what there is to say of TLS.
#[must_use]
pub fn v2(client: SocketAddr, server: SocketAddr, tls: Option<&TlsFacts>) -> Vec<u8> {
    let extensions = tls.map(ssl).unwrap_or_default();
    let length =
        |addresses: u16| u16::try_from(extensions.len()).map_or(addresses, |more| addresses + more).to_be_bytes();
    let mut header = Vec::with_capacity(52 + extensions.len());
    header.extend_from_slice(b"\r\n\r\n\0\r\nQUIT\n");
    // Version 2, command PROXY.
    header.push(0x21);
    match one_family(client.ip(), server.ip()) {
        Family::V4(client, server) => {
            header.push(0x11);
            header.extend_from_slice(&length(12));
            header.extend_from_slice(&client);
            header.extend_from_slice(&server);
        }
        Family::V6(client, server) => {
            header.push(0x21);
            header.extend_from_slice(&length(36));
            header.extend_from_slice(&client.octets());
            header.extend_from_slice(&server.octets());
        }
    }
    header.extend_from_slice(&client.port().to_be_bytes());
    header.extend_from_slice(&server.port().to_be_bytes());
    header.extend_from_slice(&extensions);
    header
}

/// Two addresses of one family, as a header demands.
enum Family {
    V4([u8; 4], [u8; 4]),
    V6(Ipv6Addr, Ipv6Addr),
}

/// A pair of both families becomes IPv6, the IPv4 one mapped; a mapped pair becomes IPv4.
fn one_family(client: IpAddr, server: IpAddr) -> Family {
    match (client.to_canonical(), server.to_canonical()) {
        (IpAddr::V4(client), IpAddr::V4(server)) => Family::V4(client.octets(), server.octets()),
        (client, server) => Family::V6(mapped(client), mapped(server)),
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;
    use crate::net::proxy::{Parsed, parse};

    fn end(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn version_1_is_a_line() {
        for (client, server, line) in [
            ("192.0.2.9:4001", "192.0.2.25:25", "PROXY TCP4 192.0.2.9 192.0.2.25 4001 25\r\n"),
            ("[2001:db8::1]:4001", "[2001:db8::2]:25", "PROXY TCP6 2001:db8::1 2001:db8::2 4001 25\r\n"),
            ("192.0.2.9:4001", "[2001:db8::2]:25", "PROXY TCP6 ::ffff:192.0.2.9 2001:db8::2 4001 25\r\n"),
            ("[::ffff:192.0.2.9]:4001", "192.0.2.25:25", "PROXY TCP4 192.0.2.9 192.0.2.25 4001 25\r\n"),
        ] {
            assert_eq!(v1(end(client), end(server)).escape_ascii().to_string(), line.escape_default().to_string());
        }
    }

    #[test]
    fn version_2_is_laid_out_as_specified() {
        let header = v2(end("192.0.2.9:4001"), end("192.0.2.25:25"), None);
        assert_eq!(header, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x09\xc0\x00\x02\x19\x0f\xa1\x00\x19");
        assert_eq!(v2(end("[2001:db8::1]:4001"), end("[2001:db8::2]:25"), None).len(), 52);
    }

    #[test]
    fn version_2_tells_of_tls() {
        let facts = TlsFacts { version: "TLSv1.3", cipher: "TLS_AES_256_GCM_SHA384".into() };
        let header = v2(end("192.0.2.9:4001"), end("192.0.2.25:25"), Some(&facts));
        assert_eq!(
            header.get(12..),
            Some(
                &b"\x21\x11\x00\x37\xc0\x00\x02\x09\xc0\x00\x02\x19\x0f\xa1\x00\x19\
                \x20\x00\x28\x01\x00\x00\x00\x01\x21\x00\x07TLSv1.3\x23\x00\x16TLS_AES_256_GCM_SHA384"[..]
            )
        );
        let source = Some((end("192.0.2.9:4001"), end("192.0.2.25:25")));
        assert_eq!(parse(&header), Parsed::Header { consumed: header.len(), source });
    }

    proptest! {
        #[test]
        fn the_parser_reads_what_is_written(
            client in any::<IpAddr>(), server in any::<IpAddr>(), ports in any::<(u16, u16)>(),
        ) {
            let client = SocketAddr::new(client.to_canonical(), ports.0);
            let server = SocketAddr::new(server.to_canonical(), ports.1);
            let header = v2(client, server, None);
            let consumed = header.len();
            prop_assert_eq!(parse(&header), Parsed::Header { consumed, source: Some((client, server)) });

            // The reader refuses 0.0.0.0/8 in version 1 text, and nobody connects from there.
            let nowhere = |end: SocketAddr| matches!(end.ip(), IpAddr::V4(address) if address.octets()[0] == 0);
            if !nowhere(client) && !nowhere(server) {
                let header = v1(client, server);
                let consumed = header.len();
                prop_assert_eq!(parse(&header), Parsed::Header { consumed, source: Some((client, server)) });
            }
        }
    }
}
