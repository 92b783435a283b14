//! PROXY protocol headers that come in, version 1 and 2 (spec 1.4): who the client behind a proxy is.
//!
//! [`parse`] looks at the bytes received so far. Unlike postscreen it waits for the rest of a header that comes in pieces, and it
//! takes a version 2 header of up to [`MOST_V2`] bytes, as extensions can be long.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// The longest version 1 header, its LF included: as much as postscreen looks at; well-formed ones have at most 107 bytes.
pub const MOST_V1: usize = 536;

/// The longest version 2 header, extensions included.
pub const MOST_V2: usize = 4096;

/// How a version 1 header begins.
const V1_START: &[u8; 6] = b"PROXY ";

/// How a version 2 header begins.
const V2_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The fixed part of a version 2 header: signature, version and command, family, length.
const V2_FIXED: usize = 16;

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header.
    NeedMore,
    /// A whole header; what follows it is the client's.
    Header {
        /// Its length in bytes.
        consumed: usize,
        /// The client and the address that it meant, canonical. `None`: the proxy speaks for itself (LOCAL), and the connection's own
        /// addresses count.
        source: Option<(SocketAddr, SocketAddr)>,
    },
    /// No header, and more bytes would not make it one.
    Bad(Reason),
}

/// Why a header was not accepted. `Display` is the text of the log line `haproxy read: REASON`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The connection ended before the first byte.
    Eof,
    /// The header did not come in time.
    TimeLimit,
    /// Version 1: no LF.
    MissingTerminator,
    /// Version 1: neither `TCP4` nor `TCP6`.
    ProtocolType,
    /// Version 1: the client's address.
    ClientAddress,
    /// Version 1: the server's address.
    ServerAddress,
    /// Version 1: the client's port.
    ClientPort,
    /// Version 1: the server's port.
    ServerPort,
    /// Neither version, and shorter than the fixed part of version 2.
    ShortHeader,
    /// Neither version.
    UnrecognizedHeader,
    /// The signature of version 2, with another version number.
    UnrecognizedVersion,
    /// Version 2: shorter than its length field says, or longer than [`MOST_V2`].
    ShortV2Header,
    /// Version 2: neither TCP over IPv4 nor over IPv6.
    UnsupportedProtocol,
    /// Version 2: too short for its family's addresses.
    ShortAddressField,
    /// Version 2: neither PROXY nor LOCAL.
    BadCommand,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eof => "EOF",
            Self::TimeLimit => "time limit exceeded",
            Self::MissingTerminator => "missing protocol header terminator",
            Self::ProtocolType => "bad or missing protocol type",
            Self::ClientAddress => "bad or missing client address",
            Self::ServerAddress => "bad or missing server address",
            Self::ClientPort => "bad or missing client port",
            Self::ServerPort => "bad or missing server port",
            Self::ShortHeader => "short protocol header",
            Self::UnrecognizedHeader => "unrecognized protocol header",
            Self::UnrecognizedVersion => "unrecognized protocol version",
            Self::ShortV2Header => "short version 2 protocol header",
            Self::UnsupportedProtocol => "unsupported network protocol",
            Self::ShortAddressField => "short address field",
            Self::BadCommand => "bad command in proxy header",
        })
    }
}

/// What `bytes`, all that was received so far, are. Whatever the pieces they came in, the header found is the same; only
/// [`Reason::ShortHeader`] and [`Reason::UnrecognizedHeader`] depend on how much has come.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    if bytes.starts_with(V1_START) {
        return parse_v1(bytes);
    }
    if bytes.starts_with(V2_START) {
        return parse_v2(bytes);
    }
    if V1_START.starts_with(bytes) || V2_START.starts_with(bytes) {
        return Parsed::NeedMore;
    }
    Parsed::Bad(if bytes.len() < V2_FIXED { Reason::ShortHeader } else { Reason::UnrecognizedHeader })
}

/// Why `bytes` are no header if the client ends the connection after them.
#[must_use]
pub fn unfinished(bytes: &[u8]) -> Reason {
    if bytes.is_empty() {
        return Reason::Eof;
    }
    match parse(bytes) {
        Parsed::Bad(reason) => reason,
        Parsed::NeedMore | Parsed::Header { .. } => {
            if bytes.starts_with(V1_START) {
                Reason::MissingTerminator
            } else if bytes.len() < V2_FIXED {
                Reason::ShortHeader
            } else {
                Reason::ShortV2Header
            }
        }
    }
}

/// `bytes` begin with [`V1_START`].
fn parse_v1(bytes: &[u8]) -> Parsed {
    let Some(end) = bytes.iter().take(MOST_V1).position(|byte| *byte == b'\n') else {
        return if bytes.len() < MOST_V1 { Parsed::NeedMore } else { Parsed::Bad(Reason::MissingTerminator) };
    };
    let line = bytes.get(..end).unwrap_or_default();
    // A CR is a separator like a blank: an LF alone ends the line as well.
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\r')).filter(|word| !word.is_empty()).skip(1);
    match source_v1(&mut words) {
        Ok(source) => Parsed::Header { consumed: end + 1, source: Some(source) },
        Err(reason) => Parsed::Bad(reason),
    }
}

/// The words after `PROXY`; more than five are tolerated.
fn source_v1<'a>(words: &mut impl Iterator<Item = &'a [u8]>) -> Result<(SocketAddr, SocketAddr), Reason> {
    let address = match words.next() {
        Some(word) if word.eq_ignore_ascii_case(b"TCP4") => address_v4,
        Some(word) if word.eq_ignore_ascii_case(b"TCP6") => address_v6,
        _ => return Err(Reason::ProtocolType),
    };
    let client = words.next().and_then(address).ok_or(Reason::ClientAddress)?;
    let server = words.next().and_then(address).ok_or(Reason::ServerAddress)?;
    let client_port = words.next().and_then(port).ok_or(Reason::ClientPort)?;
    let server_port = words.next().and_then(port).ok_or(Reason::ServerPort)?;
    Ok((SocketAddr::new(client, client_port), SocketAddr::new(server, server_port)))
}

fn address_v4(word: &[u8]) -> Option<IpAddr> {
    let address: Ipv4Addr = text(word)?;
    // 0.0.0.0/8 has no hosts, apart from the unspecified address.
    let [first, ..] = address.octets();
    (first != 0 || address.is_unspecified()).then_some(IpAddr::V4(address))
}

fn address_v6(word: &[u8]) -> Option<IpAddr> {
    text::<Ipv6Addr>(word).map(|address| IpAddr::V6(address).to_canonical())
}

/// Digits without a leading zero, at most 65535.
fn port(word: &[u8]) -> Option<u16> {
    let plain = word.iter().all(u8::is_ascii_digit) && (word.first() != Some(&b'0') || word.len() == 1);
    if plain { text(word) } else { None }
}

fn text<T: FromStr>(word: &[u8]) -> Option<T> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// `bytes` begin with [`V2_START`].
fn parse_v2(bytes: &[u8]) -> Parsed {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED>() else {
        return Parsed::NeedMore;
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command & 0xf0 != 0x20 {
        return Parsed::Bad(Reason::UnrecognizedVersion);
    }
    if V2_FIXED + length > MOST_V2 {
        return Parsed::Bad(Reason::ShortV2Header);
    }
    let addresses = match (command, family) {
        // LOCAL: whatever follows is not about a client.
        (0x20, _) => None,
        (0x21, 0x11) => Some(12),
        (0x21, 0x21) => Some(36),
        (0x21, _) => return Parsed::Bad(Reason::UnsupportedProtocol),
        _ => return Parsed::Bad(Reason::BadCommand),
    };
    if addresses.is_some_and(|needed| length < needed) {
        return Parsed::Bad(Reason::ShortAddressField);
    }
    let Some(block) = rest.get(..length) else {
        return Parsed::NeedMore;
    };
    let source = match addresses {
        None => None,
        Some(12) => source_v2::<4>(block),
        Some(_) => source_v2::<16>(block),
    };
    Parsed::Header { consumed: V2_FIXED + length, source }
}

/// Two addresses of `N` bytes, then their ports; extensions follow. `None` only if the block is too short.
fn source_v2<const N: usize>(block: &[u8]) -> Option<(SocketAddr, SocketAddr)>
where
    IpAddr: From<[u8; N]>,
{
    let (client, block) = block.split_first_chunk::<N>()?;
    let (server, block) = block.split_first_chunk::<N>()?;
    let (client_port, block) = block.split_first_chunk::<2>()?;
    let (server_port, _) = block.split_first_chunk::<2>()?;
    let end = |address: [u8; N], port: [u8; 2]| {
        SocketAddr::new(IpAddr::from(address).to_canonical(), u16::from_be_bytes(port))
    };
    Some((end(*client, *client_port), end(*server, *server_port)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    fn header(bytes: &[u8]) -> (usize, Option<(String, String)>) {
        match parse(bytes) {
            Parsed::Header { consumed, source } => {
                (consumed, source.map(|(client, server)| (client.to_string(), server.to_string())))
            }
            other => panic!("{}: {other:?}", bytes.escape_ascii()),
        }
    }

    fn ends(client: &str, server: &str) -> Option<(String, String)> {
        Some((client.to_owned(), server.to_owned()))
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [V2_START.as_slice(), &[command, family], &length, block].concat()
    }

    const BLOCK_V4: [u8; 12] = [192, 0, 2, 9, 192, 0, 2, 25, 0x0f, 0xa1, 0, 25];

    fn block_v6(client: &str, server: &str) -> Vec<u8> {
        let [client, server] = [client, server].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
        [client.as_slice(), &server, &[0x0f, 0xa1, 0, 25]].concat()
    }

    #[test]
    fn version_1_names_client_and_server() {
        let v4 = ends("192.0.2.9:4001", "192.0.2.25:25");
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.9 192.0.2.25 4001 25\r\n", v4.clone()),
            ("PROXY TCP4 192.0.2.9 192.0.2.25 4001 25\n", v4.clone()),
            ("PROXY tcp4 192.0.2.9 192.0.2.25 4001 25\r\n", v4.clone()),
            ("PROXY  TCP4  192.0.2.9  192.0.2.25 4001  25\r\n", v4.clone()),
            ("PROXY TCP4 192.0.2.9 192.0.2.25 4001 25 more words\r\n", v4.clone()),
            ("PROXY TCP6 ::ffff:192.0.2.9 ::ffff:192.0.2.25 4001 25\r\n", v4),
            ("PROXY TCP6 2001:db8::1 2001:DB8::2 0 65535\r\n", ends("[2001:db8::1]:0", "[2001:db8::2]:65535")),
            ("PROXY TCP4 0.0.0.0 192.0.2.25 1 25\r\n", ends("0.0.0.0:1", "192.0.2.25:25")),
        ] {
            assert_eq!(header(line.as_bytes()), (line.len(), expected), "{line}");
        }
    }

    #[test]
    fn what_follows_a_header_is_left_to_the_session() {
        let line = b"PROXY TCP4 192.0.2.9 192.0.2.25 4001 25\r\nEHLO early\r\n";
        assert_eq!(header(line).0, line.len() - b"EHLO early\r\n".len());
        let mut binary = v2(0x21, 0x11, &BLOCK_V4);
        binary.extend_from_slice(b"EHLO early\r\n");
        assert_eq!(header(&binary).0, V2_FIXED + 12);
    }

    #[test]
    fn version_1_says_what_is_wrong() {
        for (line, reason) in [
            ("PROXY UNKNOWN\r\n", "bad or missing protocol type"),
            ("PROXY \r\n", "bad or missing protocol type"),
            ("PROXY UDP4 192.0.2.9 192.0.2.25 4001 25\r\n", "bad or missing protocol type"),
            // Decimal, or octal? The protocol forbids such zeros.
            ("PROXY TCP4 192.0.2.010 192.0.2.25 4001 25\r\n", "bad or missing client address"),
            ("PROXY TCP4 198.18.256.1 198.19.0.1 4001 25\r\n", "bad or missing client address"),
            ("PROXY TCP4 0.1.2.3 198.19.0.1 4001 25\r\n", "bad or missing client address"),
            ("PROXY TCP4 2001:db8::1 2001:db8::2 4001 25\r\n", "bad or missing client address"),
            ("PROXY TCP6 192.0.2.9 192.0.2.25 4001 25\r\n", "bad or missing client address"),
            ("PROXY TCP6 fe80::1%eth0 fe80::2 4001 25\r\n", "bad or missing client address"),
            ("PROXY TCP4\r\n", "bad or missing client address"),
            ("PROXY TCP4 192.0.2.9 host.example.test 4001 25\r\n", "bad or missing server address"),
            ("PROXY TCP4 192.0.2.9 192.0.2.25 70000 25\r\n", "bad or missing client port"),
            ("PROXY TCP4 192.0.2.9 192.0.2.25 04001 25\r\n", "bad or missing client port"),
            ("PROXY TCP4 192.0.2.9 192.0.2.25 +1 25\r\n", "bad or missing client port"),
            ("PROXY TCP4 192.0.2.9 192.0.2.25 4001\r\n", "bad or missing server port"),
            ("PROXY TCP4 192.0.2.9 192.0.2.25 4001 2 5\x00\r\n", ""),
            ("EHLO direct.client.test\r\n", "unrecognized protocol header"),
            ("proxy tcp4 192.0.2.9 192.0.2.25 4001 25\r\n", "unrecognized protocol header"),
            ("QUIT\r\n", "short protocol header"),
        ] {
            match parse(line.as_bytes()) {
                Parsed::Bad(found) => assert_eq!(found.to_string(), reason, "{line}"),
                Parsed::Header { .. } => assert_eq!("", reason, "{line}"),
                Parsed::NeedMore => panic!("{line}: waits for more"),
            }
        }
    }

    #[test]
    fn version_1_ends_within_its_bound() {
        let mut line = b"PROXY TCP4 192.0.2.9 192.0.2.25 4001 25 ".to_vec();
        line.resize(MOST_V1 - 1, b'x');
        assert_eq!(parse(&line), Parsed::NeedMore);
        assert_eq!(unfinished(&line), Reason::MissingTerminator);
        let mut fits = line.clone();
        fits.push(b'\n');
        assert_eq!(header(&fits).0, MOST_V1);
        line.extend_from_slice(b"x\n");
        assert_eq!(parse(&line), Parsed::Bad(Reason::MissingTerminator));
    }

    #[test]
    fn version_2_names_client_and_server() {
        let v4 = ends("192.0.2.9:4001", "192.0.2.25:25");
        assert_eq!(header(&v2(0x21, 0x11, &BLOCK_V4)), (28, v4.clone()));
        let mapped = block_v6("::ffff:192.0.2.9", "::ffff:192.0.2.25");
        assert_eq!(header(&v2(0x21, 0x21, &mapped)), (52, v4.clone()));
        let v6 = block_v6("2001:db8::1", "2001:db8::2");
        assert_eq!(header(&v2(0x21, 0x21, &v6)), (52, ends("[2001:db8::1]:4001", "[2001:db8::2]:25")));
        let tlv = [BLOCK_V4.as_slice(), &[3, 0, 4, 0x12, 0x34, 0x56, 0x78]].concat();
        assert_eq!(header(&v2(0x21, 0x11, &tlv)), (35, v4));
    }

    #[test]
    fn version_2_local_is_the_proxys_own() {
        assert_eq!(header(&v2(0x20, 0x00, &[])), (16, None));
        assert_eq!(header(&v2(0x20, 0x11, &BLOCK_V4)), (28, None));
    }

    #[test]
    fn version_2_says_what_is_wrong() {
        for (bytes, reason) in [
            (v2(0x21, 0x12, &BLOCK_V4), "unsupported network protocol"),
            (v2(0x21, 0x00, &[]), "unsupported network protocol"),
            (v2(0x21, 0x31, &[0; 216]), "unsupported network protocol"),
            (v2(0x21, 0x11, &[1, 2, 3, 4, 1, 2, 3, 5]), "short address field"),
            (v2(0x21, 0x21, &BLOCK_V4), "short address field"),
            (v2(0x22, 0x11, &BLOCK_V4), "bad command in proxy header"),
            (v2(0x11, 0x11, &BLOCK_V4), "unrecognized protocol version"),
            (v2(0x21, 0x11, &[0; MOST_V2]), "short version 2 protocol header"),
        ] {
            match parse(&bytes) {
                Parsed::Bad(found) => assert_eq!(found.to_string(), reason, "{}", bytes.escape_ascii()),
                other => panic!("{}: {other:?}", bytes.escape_ascii()),
            }
        }
        let longest = [BLOCK_V4.as_slice(), &[0; MOST_V2 - V2_FIXED - 12]].concat();
        assert_eq!(header(&v2(0x21, 0x11, &longest)).0, MOST_V2);
    }

    #[test]
    fn an_end_in_mid_header_has_its_reason() {
        let binary = v2(0x21, 0x11, &BLOCK_V4);
        assert_eq!(unfinished(b"").to_string(), "EOF");
        assert_eq!(unfinished(b"PRO"), Reason::ShortHeader);
        assert_eq!(unfinished(b"PROXY TCP4 192.0.2.9 "), Reason::MissingTerminator);
        assert_eq!(unfinished(&binary[..15]), Reason::ShortHeader);
        assert_eq!(unfinished(&binary[..20]), Reason::ShortV2Header);
        assert_eq!(unfinished(b"HELO"), Reason::ShortHeader);
    }

    /// Bytes of every kind, most of them near to a header.
    fn input() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            Just("TCP4".to_owned()),
            Just("TCP6".to_owned()),
            any::<Ipv4Addr>().prop_map(|address| address.to_string()),
            any::<Ipv6Addr>().prop_map(|address| address.to_string()),
            (0..70_000_u32).prop_map(|port| port.to_string()),
            "[ -~]{0,6}",
        ];
        let text = (prop::collection::vec(word, 0..8), any::<bool>(), any::<bool>()).prop_map(|(words, cr, lf)| {
            format!("PROXY {}{}{}", words.join(" "), if cr { "\r" } else { "" }, if lf { "\n" } else { "" })
        });
        let length = prop_oneof![Just(12_u16), Just(36_u16), any::<u16>()];
        let command = prop_oneof![Just(0x20_u8), Just(0x21_u8), any::<u8>()];
        let family = prop_oneof![Just(0x11_u8), Just(0x21_u8), any::<u8>()];
        let binary = (command, family, length, prop::collection::vec(any::<u8>(), 0..80)).prop_map(
            |(command, family, length, block)| {
                [V2_START.as_slice(), &[command, family], &length.to_be_bytes(), &block].concat()
            },
        );
        prop_oneof![prop::collection::vec(any::<u8>(), 0..64), text.prop_map(String::into_bytes), binary,]
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(bytes in input()) {
            let whole = parse(&bytes);
            let first = (0..=bytes.len()).map(|end| parse(&bytes[..end])).find(|found| *found != Parsed::NeedMore);
            match (first.unwrap_or(Parsed::NeedMore), whole) {
                // Which of the two texts it is depends on how much has come.
                (Parsed::Bad(Reason::ShortHeader), Parsed::Bad(Reason::UnrecognizedHeader)) => {}
                (first, whole) => prop_assert_eq!(first, whole),
            }
        }

        #[test]
        fn a_header_is_within_its_input_and_bounds(bytes in input()) {
            if let Parsed::Header { consumed, source } = parse(&bytes) {
                prop_assert!(consumed <= bytes.len() && consumed <= MOST_V2);
                for end in source.into_iter().flat_map(|(client, server)| [client, server]) {
                    prop_assert_eq!(end.ip(), end.ip().to_canonical());
                }
            }
        }
    }
}
