//! The packets that the gate answers with: headers from scratch, checksums included.

use crate::address::IpKey;

/// The most bytes of a text, its line end included: the least that Linux announces as its segment size.
pub const TEXT_BYTES: usize = 88;

/// A text: one line, as it goes over the wire.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Text {
    /// Bytes in use; 0: there is no such text.
    pub length: u32,
    /// Their sum as 16-bit words, not folded: what they add to a checksum.
    pub sum: u32,
    /// The bytes, then zeroes.
    pub bytes: [u8; TEXT_BYTES],
}

const _: () = assert!(size_of::<Text>() == 8 + TEXT_BYTES);

impl Text {
    /// A line, which gets its line end here; `None` where it is empty, too long, or not printable ASCII.
    #[must_use]
    pub fn new(line: &str) -> Option<Self> {
        let plain = line.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if line.is_empty() || !plain || line.len() + 2 > TEXT_BYTES {
            return None;
        }
        let mut bytes = [0; TEXT_BYTES];
        for (place, byte) in bytes.iter_mut().zip(line.bytes().chain(*b"\r\n")) {
            *place = byte;
        }
        let (pairs, _) = bytes.as_chunks::<2>();
        let sum = pairs.iter().map(|pair| u16::from_be_bytes(*pair) as u32).sum();
        Some(Self { length: line.len() as u32 + 2, sum, bytes })
    }
}

/// TCP flags (RFC 9293 section 3.1).
pub mod flags {
    /// Nothing more to send.
    pub const FIN: u8 = 0x01;
    /// Opens.
    pub const SYN: u8 = 0x02;
    /// To be handed to the application at once.
    pub const PSH: u8 = 0x08;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// What clients may send before they have heard us out.
const WINDOW: u16 = 4096;
/// The segment size that we announce: every path carries it.
const SEGMENT_SIZE: u16 = 536;
const OPTION_MSS: u8 = 2;
const HOPS: u8 = 64;
const PROTOCOL_TCP: u8 = 6;

/// A segment to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// Who sends it: the address that the client meant.
    pub from: IpKey,
    /// The client.
    pub to: IpKey,
    /// Host order.
    pub from_port: u16,
    /// Host order.
    pub to_port: u16,
    /// Host order.
    pub sequence: u32,
    /// Host order.
    pub acknowledgement: u32,
    /// Of [`flags`].
    pub flags: u8,
    /// Whether the segment size is announced, in four bytes more.
    pub announces: bool,
    /// Bytes of data behind the header.
    pub payload: u32,
    /// What they add to the checksum.
    pub payload_sum: u32,
}

/// Bytes of a TCP header without options.
pub const TCP_HEADER_MIN: usize = 20;
/// Bytes of the longest TCP header that is made here.
pub const TCP_HEADER_MAX: usize = 24;
/// Bytes of an IPv4 header.
pub const IPV4_HEADER: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_HEADER: usize = 40;

impl Segment {
    /// Bytes of its TCP header: 20 or 24.
    #[inline(always)]
    #[must_use]
    pub const fn header_length(&self) -> u32 {
        if self.announces { 24 } else { 20 }
    }

    /// Its TCP header (RFC 9293 section 3.1); only the first [`Self::header_length`] bytes count.
    #[inline(always)]
    #[must_use]
    pub fn tcp_header(&self) -> [u8; TCP_HEADER_MAX] {
        let [sa, sb, sc, sd] = self.sequence.to_be_bytes();
        let [aa, ab, ac, ad] = self.acknowledgement.to_be_bytes();
        let [pa, pb] = self.from_port.to_be_bytes();
        let [qa, qb] = self.to_port.to_be_bytes();
        let [wa, wb] = WINDOW.to_be_bytes();
        let offset = (self.header_length() as u8 / 4) << 4;
        let [ma, mb] = SEGMENT_SIZE.to_be_bytes();
        let [ca, cb] = self.tcp_checksum(offset).to_be_bytes();
        [
            pa, pb, qa, qb, sa, sb, sc, sd, aa, ab, ac, ad, offset, self.flags, wa, wb, ca, cb, 0, 0, OPTION_MSS, 4,
            ma, mb,
        ]
    }

    #[inline(always)]
    fn tcp_checksum(&self, offset: u8) -> u16 {
        let option = if self.announces { (OPTION_MSS as u64) << 8 | 4 } else { 0 };
        let size = if self.announces { SEGMENT_SIZE as u64 } else { 0 };
        folded(
            self.address_sum()
                + PROTOCOL_TCP as u64
                + (self.header_length() + self.payload) as u64
                + self.from_port as u64
                + self.to_port as u64
                + sum32(self.sequence)
                + sum32(self.acknowledgement)
                + ((offset as u64) << 8 | self.flags as u64)
                + WINDOW as u64
                + option
                + size
                + self.payload_sum as u64,
        )
    }

    /// What both addresses add to a checksum.
    #[inline(always)]
    fn address_sum(&self) -> u64 {
        match (self.from.ipv4(), self.to.ipv4()) {
            (Some(from), Some(to)) => sum32(u32::from_be_bytes(from)) + sum32(u32::from_be_bytes(to)),
            _ => {
                let ((a, b), (c, d)) = (self.from.halves(), self.to.halves());
                sum64(a) + sum64(b) + sum64(c) + sum64(d)
            }
        }
    }

    /// The IPv4 header before it (RFC 791 section 3.1); `None` for IPv6 addresses.
    #[inline(always)]
    #[must_use]
    pub fn ipv4_header(&self) -> Option<[u8; IPV4_HEADER]> {
        let (Some(from), Some(to)) = (self.from.ipv4(), self.to.ipv4()) else { return None };
        let length = IPV4_HEADER as u32 + self.header_length() + self.payload;
        let checksum =
            folded(0x4500 + length as u64 + 0x4000 + ((HOPS as u64) << 8 | PROTOCOL_TCP as u64) + self.address_sum());
        let [la, lb] = (length as u16).to_be_bytes();
        let [ca, cb] = checksum.to_be_bytes();
        let ([fa, fb, fc, fd], [ta, tb, tc, td]) = (from, to);
        // Never fragmented: it is shorter than any path's limit.
        Some([0x45, 0, la, lb, 0, 0, 0x40, 0, HOPS, PROTOCOL_TCP, ca, cb, fa, fb, fc, fd, ta, tb, tc, td])
    }

    /// The IPv6 header before it (RFC 8200 section 3), without its addresses.
    #[inline(always)]
    #[must_use]
    pub fn ipv6_start(&self) -> [u8; 8] {
        let [la, lb] = ((self.header_length() + self.payload) as u16).to_be_bytes();
        [0x60, 0, 0, 0, la, lb, PROTOCOL_TCP, HOPS]
    }
}

#[inline(always)]
const fn sum32(word: u32) -> u64 {
    (word >> 16) as u64 + (word & 0xffff) as u64
}

#[inline(always)]
const fn sum64(word: u64) -> u64 {
    sum32((word >> 32) as u32) + sum32(word as u32)
}

/// The checksum of a sum of 16-bit words (RFC 1071).
#[inline(always)]
const fn folded(sum: u64) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(((sum >> 16) + (sum & 0xffff)) as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The ones' complement sum of everything, computed the plain way; 0xffff for what carries its right checksum.
    fn plain_sum(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn assert_right(segment: &Segment, text: Option<&Text>) {
        let payload = text.map_or(&[][..], |text| &text.bytes[..text.length as usize]);
        let header = segment.tcp_header();
        let mut whole = Vec::new();
        match segment.ipv4_header() {
            Some(ip) => {
                assert_eq!(plain_sum(&ip), 0xffff);
                assert_eq!(
                    usize::from(u16::from_be_bytes([ip[2], ip[3]])),
                    20 + segment.header_length() as usize + payload.len()
                );
                whole.extend(&ip[12..20]);
            }
            None => {
                whole.extend(segment.from.address);
                whole.extend(segment.to.address);
            }
        }
        whole.extend([0, PROTOCOL_TCP]);
        whole.extend((segment.header_length() as u16 + payload.len() as u16).to_be_bytes());
        whole.extend(&header[..segment.header_length() as usize]);
        whole.extend(payload);
        assert_eq!(plain_sum(&whole), 0xffff);
    }

    proptest! {
        #[test]
        fn checksums_are_right(
            v6: bool, from: [u8; 16], to: [u8; 16], ports: (u16, u16), sequence: u32, acknowledgement: u32,
            announces: bool, flags: u8, line in "[ -~]{1,86}",
        ) {
            let key = |octets: [u8; 16]| if v6 { IpKey::from_ipv6(octets) } else {
                IpKey::from_ipv4([octets[0], octets[1], octets[2], octets[3]])
            };
            let text = Text::new(&line).unwrap();
            for text in [None, Some(&text)] {
                let segment = Segment {
                    from: key(from), to: key(to), from_port: ports.0, to_port: ports.1, sequence, acknowledgement, flags,
                    announces, payload: text.map_or(0, |text| text.length), payload_sum: text.map_or(0, |text| text.sum),
                };
                assert_right(&segment, text);
            }
        }
    }

    #[test]
    fn texts_are_one_line_of_printable_ascii() {
        let text = Text::new("521 5.3.2 Service currently unavailable").unwrap();
        assert_eq!(&text.bytes[..text.length as usize], b"521 5.3.2 Service currently unavailable\r\n");
        for bad in ["", "a\r\nb", "tab\t", "näh", &"x".repeat(87)] {
            assert!(Text::new(bad).is_none(), "{bad:?}");
        }
        assert!(Text::new(&"x".repeat(86)).is_some());
    }
}
