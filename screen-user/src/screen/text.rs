//! How bytes from the network and elapsed times are written in logs (spec 0.4, 0.5).

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    iter,
    time::Duration,
};

/// Most bytes, or characters, of a client's text in one log line.
pub(super) const LOG_TEXT_LIMIT: usize = 100;

/// Printable ASCII as it is, everything else as a C escape or three octal digits.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            0x07 => text.push_str("\\a"),
            0x08 => text.push_str("\\b"),
            0x0c => text.push_str("\\f"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x0b => text.push_str("\\v"),
            0x20..=0x7e => text.push(char::from(byte)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\{byte:03o}");
            }
        }
    }
    text
}

/// The escaped form of the first [`LOG_TEXT_LIMIT`] bytes.
pub(super) fn escape_head(bytes: &[u8]) -> String {
    escape(head(bytes))
}

/// The first [`LOG_TEXT_LIMIT`] bytes.
pub(super) fn head(bytes: &[u8]) -> &[u8] {
    bytes.get(..LOG_TEXT_LIMIT).unwrap_or(bytes)
}

/// Every byte that is not printable ASCII becomes `?`; with `utf8`, well-formed multi-byte characters stay, unless they control terminals.
pub(super) fn printable(bytes: &[u8], utf8: bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    if !utf8 {
        text.extend(bytes.iter().map(|&byte| if (0x20..0x7f).contains(&byte) { char::from(byte) } else { '?' }));
        return text;
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                text.extend(iter::repeat_n('?', c.len_utf8()));
            } else {
                text.push(c);
            }
        }
        text.extend(chunk.invalid().iter().map(|_| '?'));
    }
    text
}

/// An address as it stands in a header: the local part in quotes unless it is a dot-string (RFC 5321 section 4.1.2).
pub(super) fn external_address(address: &[u8]) -> Cow<'_, [u8]> {
    let at = address.iter().rposition(|&byte| byte == b'@');
    let (local, domain) = address.split_at(at.unwrap_or(address.len()));
    if address.is_empty() || is_dot_string(local) {
        return Cow::Borrowed(address);
    }
    let mut quoted = Vec::with_capacity(address.len() + 2);
    quoted.push(b'"');
    for &byte in local {
        if matches!(byte, b'"' | b'\\' | b'\r') {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    quoted.extend_from_slice(domain);
    Cow::Owned(quoted)
}

fn is_dot_string(local: &[u8]) -> bool {
    let is_atom_byte = |&byte: &u8| byte >= 0x80 || (byte.is_ascii_graphic() && !b"()<>@,;:\\\".[]".contains(&byte));
    local.split(|&byte| byte == b'.').all(|atom| !atom.is_empty() && atom.iter().all(is_atom_byte))
}

/// An elapsed time as the log shows it, with at most two significant digits below ten seconds (spec 0.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed(pub Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        let unit: u128 = match self.0.as_secs() {
            0 => {
                let mut unit = 10_000;
                while micros / unit >= 100 {
                    unit *= 10;
                }
                unit
            }
            1..=9 => 100_000,
            _ => 1_000_000,
        };
        let rounded = (micros + unit / 2) / unit * unit;
        let fraction = rounded % 1_000_000;
        write!(f, "{}", rounded / 1_000_000)?;
        if fraction == 0 {
            return Ok(());
        }
        let digits = format!("{fraction:06}");
        write!(f, ".{}", digits.trim_end_matches('0'))
    }
}

/// Whether the bytes are well-formed UTF-8.
pub(super) fn is_utf8(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping() {
        assert_eq!(escape(b"a\\b\x07\x08\x0c\n\r\t\x0b\0\x7f\xc3\xa9~ "), r"a\\b\a\b\f\n\r\t\v\000\177\303\251~ ");
        assert_eq!(escape_head(&[b'x'; 200]).len(), 100);
    }

    #[test]
    fn printing() {
        assert_eq!(printable(b"a\tb\x7f\xc3\xa9\xff", false), "a?b????");
        assert_eq!(printable(b"a\tb\x7f\xc3\xa9\xff", true), "a?b?\u{e9}?");
        // CSI, as one character.
        assert_eq!(printable(b"a\xc2\x9b2J", true), "a??2J");
        // A surrogate is no character.
        assert_eq!(printable(b"\xed\xa0\x80", true), "???");
    }

    #[test]
    fn external_addresses() {
        let rows: [(&[u8], &[u8]); 9] = [
            (b"", b""),
            (b"a.b@x", b"a.b@x"),
            (b"postmaster", b"postmaster"),
            (b"a b@x", b"\"a b\"@x"),
            (b"a@b@x", b"\"a@b\"@x"),
            (b"a\"\\\r@x", b"\"a\\\"\\\\\\\r\"@x"),
            (b"a..b@x", b"\"a..b\"@x"),
            (b"@x", b"\"\"@x"),
            (b"\xc3\xa9@x", b"\xc3\xa9@x"),
        ];
        for (address, external) in rows {
            assert_eq!(&*external_address(address), external, "{}", escape(address));
        }
    }

    #[test]
    fn elapsed_times() {
        let rows = [
            (0, "0"),
            (4_999, "0"),
            (5_000, "0.01"),
            (50_000, "0.05"),
            (99_000, "0.1"),
            (123_456, "0.12"),
            (995_000, "1"),
            (1_000_000, "1"),
            (1_049_999, "1"),
            (1_460_000, "1.5"),
            (4_100_000, "4.1"),
            (9_960_000, "10"),
            (10_400_000, "10"),
            (10_500_000, "11"),
            (300_000_000, "300"),
        ];
        for (micros, text) in rows {
            assert_eq!(Elapsed(Duration::from_micros(micros)).to_string(), text, "{micros}");
        }
    }
}
