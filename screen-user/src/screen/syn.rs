//! How a client opened its connection: its SYN as evidence, in the words of `docs/syn-evidence.md`. No decision hangs on it.

use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

const IPV6_HEADER: usize = 40;
const TCP: u8 = 6;
/// Extension headers before TCP (RFC 8200 section 4) that are stepped over.
const MAX_EXTENSION_HEADERS: usize = 8;
/// RFC 9293 section 3.1: fifteen words of header, five of them fixed.
const TCP_HEADER: usize = 20;

/// What a client's SYN says of the client's stack: time to live, window, segment size, window scale and the order of its options.
/// At most [`Syn::LONGEST`] bytes, printable ASCII.
#[derive(Clone, PartialEq, Eq)]
pub struct Syn(Box<str>);

/// The parts of a packet that are looked at.
struct Headers<'a> {
    /// The time to live, or the hop limit.
    ttl: u8,
    /// From the TCP header on.
    tcp: &'a [u8],
}

impl Syn {
    /// The bound on its length: all numbers at their longest, and forty options of one byte.
    pub const LONGEST: usize = "ttl=255 win=65535 mss=65535 wscale=255 opts=".len() + 40 * "nop,".len();

    /// Reads the headers of a SYN, from IP on. `None` if they are not that, or cut short within what is fixed; options that are
    /// malformed are themselves evidence.
    #[must_use]
    pub fn read(headers: &[u8]) -> Option<Self> {
        let Headers { ttl, tcp } = match headers.first()? >> 4 {
            4 => ipv4(headers)?,
            6 => ipv6(headers)?,
            _ => return None,
        };
        let fixed: &[u8; TCP_HEADER] = tcp.first_chunk()?;
        let window = u16::from_be_bytes([fixed[14], fixed[15]]);
        let options = Options::read(tcp.get(TCP_HEADER..usize::from(fixed[12] >> 4) * 4)?);
        let Options { mss, scale, order } = &options;
        let text = format!("ttl={ttl} win={window} mss={} wscale={} opts={order}", OrNone(*mss), OrNone(*scale));
        Some(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Syn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Syn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Syn({self})")
    }
}

impl Serialize for Syn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A number, or `-`.
struct OrNone<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrNone<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(number) => number.fmt(formatter),
            None => formatter.write_char('-'),
        }
    }
}

/// RFC 791 section 3.1.
fn ipv4(headers: &[u8]) -> Option<Headers<'_>> {
    let length = usize::from(headers.first()? & 0x0f) * 4;
    if length < 20 || *headers.get(9)? != TCP {
        return None;
    }
    Some(Headers { ttl: *headers.get(8)?, tcp: headers.get(length..)? })
}

/// RFC 8200 sections 3 and 4.
fn ipv6(headers: &[u8]) -> Option<Headers<'_>> {
    let ttl = *headers.get(7)?;
    let mut next = *headers.get(6)?;
    let mut rest = headers.get(IPV6_HEADER..)?;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if next == TCP {
            break;
        }
        let &[following, length] = rest.first_chunk()?;
        let length = match next {
            // A fragment's header has a fixed length, and nothing that says so.
            44 => 8,
            51 => (usize::from(length) + 2) * 4,
            0 | 43 | 60 | 135 => (usize::from(length) + 1) * 8,
            _ => return None,
        };
        rest = rest.get(length..)?;
        next = following;
    }
    (next == TCP).then_some(Headers { ttl, tcp: rest })
}

/// What the TCP options say.
struct Options {
    mss: Option<u16>,
    scale: Option<u8>,
    order: String,
}

impl Options {
    /// Reads options to their end, or to where they stop making sense. Each step takes a byte at least, of forty.
    fn read(mut bytes: &[u8]) -> Self {
        let mut options = Self { mss: None, scale: None, order: String::new() };
        while let Some((&kind, after)) = bytes.split_first() {
            match kind {
                0 => {
                    options.name(format_args!("eol"));
                    break;
                }
                1 => {
                    options.name(format_args!("nop"));
                    bytes = after;
                }
                _ => {
                    // The length counts kind and length too.
                    let whole =
                        after.first().and_then(|&length| bytes.get(..length.into())).filter(|all| all.len() >= 2);
                    let Some(whole) = whole else {
                        options.name(format_args!("bad"));
                        break;
                    };
                    options.take(kind, whole.get(2..).unwrap_or_default());
                    bytes = bytes.get(whole.len()..).unwrap_or_default();
                }
            }
        }
        if options.order.is_empty() {
            options.order.push('-');
        }
        options
    }

    /// Notes an option; where one is repeated the last one counts, as in Linux.
    fn take(&mut self, kind: u8, data: &[u8]) {
        match (kind, data) {
            (2, &[high, low]) => {
                self.mss = Some(u16::from_be_bytes([high, low]));
                self.name(format_args!("mss"));
            }
            (3, &[scale]) => {
                self.scale = Some(scale);
                self.name(format_args!("ws"));
            }
            (4, []) => self.name(format_args!("sok")),
            (8, [_, _, _, _, _, _, _, _]) => self.name(format_args!("ts")),
            (34, _) => self.name(format_args!("tfo")),
            _ => self.name(format_args!("?{kind}")),
        }
    }

    fn name(&mut self, name: fmt::Arguments<'_>) {
        if !self.order.is_empty() {
            self.order.push(',');
        }
        // Writing to a string does not fail.
        let _ = self.order.write_fmt(name);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A SYN with these options, padded to whole words.
    fn tcp(window: u16, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; TCP_HEADER];
        let length = options.len().next_multiple_of(4);
        bytes[12] = u8::try_from((TCP_HEADER + length) / 4).unwrap() << 4;
        bytes[13] = 2;
        bytes[14..16].copy_from_slice(&window.to_be_bytes());
        bytes.extend_from_slice(options);
        bytes.resize(TCP_HEADER + length, 0);
        bytes
    }

    fn over_ipv4(ttl: u8, tcp: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        (bytes[0], bytes[8], bytes[9]) = (0x45, ttl, TCP);
        [&bytes, tcp].concat()
    }

    fn over_ipv6(hops: u8, extensions: &[u8], first: u8, tcp: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; IPV6_HEADER];
        (bytes[0], bytes[6], bytes[7]) = (0x60, first, hops);
        [&bytes, extensions, tcp].concat()
    }

    fn read(headers: &[u8]) -> Option<String> {
        Syn::read(headers).map(|syn| syn.to_string())
    }

    const LINUX: &[u8] = &[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

    #[test]
    fn stacks_show_themselves() {
        let linux = "ttl=64 win=64240 mss=1460 wscale=7 opts=mss,sok,ts,nop,ws";
        assert_eq!(read(&over_ipv4(64, &tcp(64_240, LINUX))).unwrap(), linux);
        assert_eq!(read(&over_ipv6(64, &[], TCP, &tcp(64_240, LINUX))).unwrap(), linux);
        let windows = [2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2];
        assert_eq!(
            read(&over_ipv4(128, &tcp(64_240, &windows))).unwrap(),
            "ttl=128 win=64240 mss=1460 wscale=8 opts=mss,nop,ws,nop,nop,sok"
        );
        assert_eq!(read(&over_ipv4(255, &tcp(1024, &[]))).unwrap(), "ttl=255 win=1024 mss=- wscale=- opts=-");
    }

    #[test]
    fn extension_headers_are_stepped_over() {
        // Hop by hop, destination options of two units, an atomic fragment.
        let extensions = [&[60, 0, 0, 0, 0, 0, 0, 0][..], &[44, 1], &[0; 14], &[TCP, 99, 0, 0, 0, 0, 0, 0]].concat();
        assert!(read(&over_ipv6(1, &extensions, 0, &tcp(1, LINUX))).unwrap().starts_with("ttl=1 win=1 mss=1460"));
        let endless = [0, 0, 0, 0, 0, 0, 0, 0].repeat(9);
        assert_eq!(read(&over_ipv6(1, &endless, 0, &tcp(1, LINUX))), None);
    }

    #[test]
    fn strange_options_are_evidence() {
        let rows: [(&[u8], &str); 9] = [
            (&[2, 4, 2, 0, 2, 4, 1, 0], "mss=256 wscale=- opts=mss,mss"),
            (&[2, 3, 5, 0], "mss=- wscale=- opts=?2,eol"),
            (&[2, 4, 5], "mss=1280 wscale=- opts=mss"),
            (&[2, 5, 5, 0], "mss=- wscale=- opts=bad"),
            (&[8, 0, 1, 1], "mss=- wscale=- opts=bad"),
            (&[1, 1, 1, 8], "mss=- wscale=- opts=nop,nop,nop,bad"),
            (&[34, 2, 254, 4, 0xf9, 0x89, 1, 1], "mss=- wscale=- opts=tfo,?254,nop,nop"),
            (&[5, 2, 28, 4, 0, 0, 0, 1], "mss=- wscale=- opts=?5,?28,eol"),
            (&[0, 2, 4, 5], "mss=- wscale=- opts=eol"),
        ];
        for (options, expected) in rows {
            let said = read(&over_ipv4(1, &tcp(1, options))).unwrap();
            assert_eq!(said, format!("ttl=1 win=1 {expected}"), "{options:?}");
        }
    }

    #[test]
    fn what_is_no_syn_is_none() {
        let whole = over_ipv4(64, &tcp(1, LINUX));
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), None, "{end} bytes");
        }
        let udp = [&whole[..9], &[17], &whole[10..]].concat();
        assert_eq!(read(&udp), None);
    }

    #[test]
    fn the_longest_text_has_its_bound() {
        let options = [&[2, 4, 255, 255, 3, 3, 255][..], &[1; 33]].concat();
        assert!(read(&over_ipv4(255, &tcp(65_535, &options))).unwrap().len() <= Syn::LONGEST);
        assert_eq!(read(&over_ipv4(255, &tcp(65_535, &[1; 40]))).unwrap().len(), Syn::LONGEST - "65535255,".len() + 2);
    }

    proptest! {
        #[test]
        fn any_bytes_make_a_bounded_line_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(text) = read(&bytes) {
                prop_assert!(text.len() <= Syn::LONGEST, "{}", text);
                prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}", text);
            }
        }

        #[test]
        fn any_options_make_one_word_each(options in prop::collection::vec(any::<u8>(), 0..=40), ipv6: bool) {
            let tcp = tcp(1, &options);
            let headers = if ipv6 { over_ipv6(1, &[], TCP, &tcp) } else { over_ipv4(1, &tcp) };
            let text = read(&headers).unwrap();
            prop_assert!(text.len() <= Syn::LONGEST, "{}", text);
            let order = text.split_once(" opts=").unwrap().1;
            for word in order.split(',') {
                let known = ["-", "eol", "nop", "mss", "ws", "sok", "ts", "tfo", "bad"].contains(&word);
                prop_assert!(known || word.strip_prefix('?').is_some_and(|kind| kind.parse::<u8>().is_ok()), "{}", text);
            }
        }
    }
}
