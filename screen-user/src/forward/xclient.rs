//! XCLIENT: the mail server is told who the client is, where it trusts the gate to say so. Postfix's own extension of SMTP.

use std::net::{IpAddr, SocketAddr};

use crate::screen::event::Endpoints;

/// The command that introduces a client to the mail server with this reply to EHLO; `None` where that does not offer it, or does not
/// take addresses.
pub(super) fn command(reply: &[u8], endpoints: &Endpoints) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(reply).ok()?;
    let mut offers = text.lines().filter_map(|line| line.strip_prefix("250")?.get(1..));
    let offered: Vec<&str> = offers.find_map(|line| line.strip_prefix("XCLIENT "))?.split_ascii_whitespace().collect();
    let taken = |(name, value): (&str, String)| offered.contains(&name).then(|| format!(" {name}={value}"));
    let client = taken(("ADDR", address(endpoints.client)))?;
    let others = [
        ("PORT", endpoints.client.port().to_string()),
        ("DESTADDR", address(endpoints.server)),
        ("DESTPORT", endpoints.server.port().to_string()),
    ];
    Some(format!("XCLIENT{client}{}", others.into_iter().filter_map(taken).collect::<String>()).into_bytes())
}

fn address(end: SocketAddr) -> String {
    match end.ip().to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("IPV6:{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, server: &str) -> Endpoints {
        Endpoints { client: client.parse().unwrap(), server: server.parse().unwrap() }
    }

    #[test]
    fn only_what_is_offered_is_said() {
        let v4 = ends("192.0.2.9:4001", "192.0.2.25:25");
        let v6 = ends("[2001:db8::9]:4001", "[2001:db8::25]:25");
        for (offer, client, said) in [
            (
                "XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT",
                &v4,
                Some("XCLIENT ADDR=192.0.2.9 PORT=4001 DESTADDR=192.0.2.25 DESTPORT=25"),
            ),
            ("XCLIENT ADDR", &v6, Some("XCLIENT ADDR=IPV6:2001:db8::9")),
            ("XCLIENT NAME PORT", &v4, None),
            ("XCLIENT", &v4, None),
            ("XFORWARD ADDR", &v4, None),
        ] {
            let reply = format!("250-mx.example.test\r\n250-{offer}\r\n250 DSN\r\n");
            assert_eq!(command(reply.as_bytes(), client).as_deref(), said.map(str::as_bytes), "{offer}");
        }
    }
}
