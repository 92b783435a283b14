//! PROXY protocol headers that go out, version 1 and 2: the mail server learns who the client is.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A version 1 header: one line of text, at most 107 bytes.
#[must_use]
pub fn v1(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let (family, client_ip, server_ip) = match one_family(client.ip(), server.ip()) {
        Family::V4(..) => ("TCP4", client.ip().to_canonical(), server.ip().to_canonical()),
        Family::V6(client, server) => ("TCP6", IpAddr::V6(client), IpAddr::V6(server)),
    };
    format!("PROXY {family} {client_ip} {server_ip} {} {}\r\n", client.port(), server.port()).into_bytes()
}

/// A version 2 header for a relayed connection, without extensions: 28 or 52 bytes.
#[must_use]
pub fn v2(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let mut header = Vec::with_capacity(52);
    header.extend_from_slice(b"\r\n\r\n\0\r\nQUIT\n");
    // Version 2, command PROXY.
    header.push(0x21);
    match one_family(client.ip(), server.ip()) {
        Family::V4(client, server) => {
            header.extend_from_slice(&[0x11, 0, 12]);
            header.extend_from_slice(&client);
            header.extend_from_slice(&server);
        }
        Family::V6(client, server) => {
            header.extend_from_slice(&[0x21, 0, 36]);
            header.extend_from_slice(&client.octets());
            header.extend_from_slice(&server.octets());
        }
    }
    header.extend_from_slice(&client.port().to_be_bytes());
    header.extend_from_slice(&server.port().to_be_bytes());
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
        let header = v2(end("192.0.2.9:4001"), end("192.0.2.25:25"));
        assert_eq!(header, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x09\xc0\x00\x02\x19\x0f\xa1\x00\x19");
        assert_eq!(v2(end("[2001:db8::1]:4001"), end("[2001:db8::2]:25")).len(), 52);
    }

    proptest! {
        #[test]
        fn the_parser_reads_what_is_written(
            client in any::<IpAddr>(), server in any::<IpAddr>(), ports in any::<(u16, u16)>(),
        ) {
            let client = SocketAddr::new(client.to_canonical(), ports.0);
            let server = SocketAddr::new(server.to_canonical(), ports.1);
            let header = v2(client, server);
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
