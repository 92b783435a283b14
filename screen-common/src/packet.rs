//! The packet decoder: finds the SYNs that open connections to protected ports.
//!
//! Generic over the bytes, so that the kernel, the tests and a fuzzer run the same code. It never says "ours" of a packet that the
//! kernel's own stack would not take for a SYN; all else is passed on for the stack to judge.

use crate::address::IpKey;

/// The bytes of a frame, from its Ethernet header on.
pub trait Frame {
    /// `N` bytes from `offset` on, or `None` if the frame does not reach that far.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Bytes in the frame.
    fn length(&self) -> usize;
}

impl Frame for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn length(&self) -> usize {
        self.len()
    }
}

/// What a frame is to the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// A SYN to a protected port.
    Opening(Opening),
    /// Anything else, fragments included: not the gate's business.
    NotOurs,
    /// Shorter than its headers say, or its headers contradict each other.
    Malformed,
}

/// A client's attempt to open a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Who.
    pub source: IpKey,
    /// To whom.
    pub destination: IpKey,
    /// Host order.
    pub source_port: u16,
    /// Host order, protected.
    pub destination_port: u16,
    /// The initial sequence number, host order.
    pub sequence: u32,
}

/// Why a frame is not an opening; lets the decoder use `?`.
enum Other {
    NotOurs,
    Malformed,
}

/// The transport header's place: where it begins, and where the packet that holds it ends.
struct Segment {
    start: usize,
    end: usize,
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q and 802.1ad tags.
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const MAX_VLAN_TAGS: usize = 2;

const PROTOCOL_TCP: u8 = 6;
const IPV6_HOP_BY_HOP: u8 = 0;
const IPV6_ROUTING: u8 = 43;
const IPV6_FRAGMENT: u8 = 44;
const IPV6_AUTHENTICATION: u8 = 51;
const IPV6_DESTINATION: u8 = 60;
const IPV6_MOBILITY: u8 = 135;
/// Longer chains are nobody's mail; the bound is for the verifier.
const MAX_EXTENSION_HEADERS: usize = 8;

const TCP_HEADER: usize = 20;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Decodes `frame`; `protected` tells the protected ports (host order).
#[inline(always)]
pub fn decode<F: Frame + ?Sized>(frame: &F, protected: impl Fn(u16) -> bool) -> Decoded {
    match opening(frame, protected) {
        Ok(opening) => Decoded::Opening(opening),
        Err(Other::NotOurs) => Decoded::NotOurs,
        Err(Other::Malformed) => Decoded::Malformed,
    }
}

#[inline(always)]
fn opening<F: Frame + ?Sized>(frame: &F, protected: impl Fn(u16) -> bool) -> Result<Opening, Other> {
    let (ethertype, network) = ethernet(frame)?;
    // Addresses are read last: most packets are not SYNs and never get there.
    match ethertype {
        ETHERTYPE_IPV4 => {
            let (source_port, destination_port, sequence) = tcp(frame, &ipv4(frame, network)?, protected)?;
            let source = IpKey::from_ipv4(read(frame, network + 12)?);
            let destination = IpKey::from_ipv4(read(frame, network + 16)?);
            Ok(Opening { source, destination, source_port, destination_port, sequence })
        }
        ETHERTYPE_IPV6 => {
            let (source_port, destination_port, sequence) = tcp(frame, &ipv6(frame, network)?, protected)?;
            let source = IpKey::from_ipv6(read(frame, network + 8)?);
            let destination = IpKey::from_ipv6(read(frame, network + 24)?);
            Ok(Opening { source, destination, source_port, destination_port, sequence })
        }
        _ => Err(Other::NotOurs),
    }
}

/// The type of what an Ethernet frame carries, behind up to two VLAN tags, and where that begins.
#[inline(always)]
fn ethernet<F: Frame + ?Sized>(frame: &F) -> Result<(u16, usize), Other> {
    let mut offset = 12;
    let mut ethertype = u16::from_be_bytes(read(frame, offset)?);
    for _ in 0..MAX_VLAN_TAGS {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            break;
        }
        offset += 4;
        ethertype = u16::from_be_bytes(read(frame, offset)?);
    }
    Ok((ethertype, offset + 2))
}

/// RFC 791 section 3.1.
#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, network: usize) -> Result<Segment, Other> {
    let [version_length] = read(frame, network)?;
    let header = (version_length & 0x0f) as usize * 4;
    if version_length >> 4 != 4 || header < 20 {
        return Err(Other::Malformed);
    }
    let [protocol] = read(frame, network + 9)?;
    if protocol != PROTOCOL_TCP {
        return Err(Other::NotOurs);
    }
    // More fragments, or not the first one. Only the stack, which puts them together, can tell what they are.
    if u16::from_be_bytes(read(frame, network + 6)?) & 0x3fff != 0 {
        return Err(Other::NotOurs);
    }
    let total = u16::from_be_bytes(read(frame, network + 2)?) as usize;
    if total < header + TCP_HEADER {
        return Err(Other::Malformed);
    }
    Ok(Segment { start: network + header, end: network + total })
}

/// RFC 8200 sections 3 and 4.
#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, network: usize) -> Result<Segment, Other> {
    let [version] = read(frame, network)?;
    if version >> 4 != 6 {
        return Err(Other::Malformed);
    }
    let payload = u16::from_be_bytes(read(frame, network + 4)?) as usize;
    let [mut next] = read(frame, network + 6)?;
    let mut start = network + 40;
    let end = start + payload;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if next == PROTOCOL_TCP {
            break;
        }
        let [following, length, middle, low] = match next {
            IPV6_HOP_BY_HOP | IPV6_ROUTING | IPV6_FRAGMENT | IPV6_AUTHENTICATION | IPV6_DESTINATION | IPV6_MOBILITY => {
                read(frame, start)?
            }
            _ => return Err(Other::NotOurs),
        };
        start += match next {
            // The offset's 13 bits and the flag for more. An atomic fragment (RFC 6946) is a whole packet.
            IPV6_FRAGMENT if middle != 0 || low & 0xf9 != 0 => return Err(Other::NotOurs),
            IPV6_FRAGMENT => 8,
            // Segments left: the address in the header is not where the packet goes.
            IPV6_ROUTING if low != 0 => return Err(Other::NotOurs),
            IPV6_AUTHENTICATION => (length as usize + 2) * 4,
            _ => (length as usize + 1) * 8,
        };
        next = following;
    }
    if next != PROTOCOL_TCP {
        return Err(Other::NotOurs);
    }
    if start + TCP_HEADER > end {
        return Err(Other::Malformed);
    }
    Ok(Segment { start, end })
}

/// Ports and sequence number of a SYN to a protected port (RFC 9293 section 3.1).
#[inline(always)]
fn tcp<F: Frame + ?Sized>(
    frame: &F,
    segment: &Segment,
    protected: impl Fn(u16) -> bool,
) -> Result<(u16, u16, u32), Other> {
    let [offset, flags] = read(frame, segment.start + 12)?;
    if flags & (FIN | SYN | RST | ACK) != SYN {
        return Err(Other::NotOurs);
    }
    let [a, b, c, d] = read(frame, segment.start)?;
    let (source_port, destination_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    if !protected(destination_port) {
        return Err(Other::NotOurs);
    }
    let header = (offset >> 4) as usize * 4;
    // The whole packet must be there, or the stack throws it away and a verdict on it would be a verdict on nothing.
    if header < TCP_HEADER || segment.start + header > segment.end || segment.end > frame.length() {
        return Err(Other::Malformed);
    }
    Ok((source_port, destination_port, u32::from_be_bytes(read(frame, segment.start + 4)?)))
}

#[inline(always)]
fn read<F: Frame + ?Sized, const N: usize>(frame: &F, offset: usize) -> Result<[u8; N], Other> {
    frame.read(offset).ok_or(Other::Malformed)
}

#[cfg(test)]
mod tests;
