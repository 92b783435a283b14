//! The packet decoder: finds the SYNs that open connections to protected ports, and what may follow those that the gate answered by
//! itself.
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
    /// A segment to a protected port that acknowledges what the caller is concerned with.
    Answer(Answer),
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
    /// What a reply must know of the frame.
    pub wire: Wire,
}

/// What a reply must know of the frame that it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wire {
    /// Where the IP header begins: 14 bytes, and 4 for each VLAN tag.
    pub network: usize,
    /// Whether the IP header has neither options nor extension headers behind it.
    pub plain: bool,
    /// Bytes of the TCP header, its options included.
    pub tcp: usize,
}

/// A segment that may follow a SYN which the gate answered by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Who.
    pub source: IpKey,
    /// To whom.
    pub destination: IpKey,
    /// Host order.
    pub source_port: u16,
    /// Host order, protected.
    pub destination_port: u16,
    /// Host order.
    pub sequence: u32,
    /// What it acknowledges, host order.
    pub acknowledgement: u32,
    /// Whether the client has nothing more to send.
    pub fin: bool,
    /// Bytes that it takes from us beyond that, host order; never scaled, as no scaling was agreed upon.
    pub window: u16,
    /// Bytes of data.
    pub payload: u32,
    /// What a reply must know of the frame.
    pub wire: Wire,
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
const FIN_ACK: u8 = FIN | ACK;

/// Decodes `frame`; `protected` tells the protected ports (host order), `concerned` the acknowledgement numbers of interest. Segments
/// that open nothing and acknowledge nothing of interest, established traffic above all, cost their headers' reading and no more.
#[inline(always)]
pub fn decode<F: Frame + ?Sized>(
    frame: &F,
    protected: impl Fn(u16) -> bool,
    concerned: impl Fn(u32) -> bool,
) -> Decoded {
    match packet(frame, protected, concerned) {
        Ok(decoded) => decoded,
        Err(Other::NotOurs) => Decoded::NotOurs,
        Err(Other::Malformed) => Decoded::Malformed,
    }
}

#[inline(always)]
fn packet<F: Frame + ?Sized>(
    frame: &F,
    protected: impl Fn(u16) -> bool,
    concerned: impl Fn(u32) -> bool,
) -> Result<Decoded, Other> {
    let (ethertype, network) = ethernet(frame)?;
    // Addresses are read last: most packets are of no interest and never get there.
    match ethertype {
        ETHERTYPE_IPV4 => {
            let segment = ipv4(frame, network)?;
            let tcp = tcp(frame, &segment, protected, concerned)?;
            let source = IpKey::from_ipv4(read(frame, network + 12)?);
            let destination = IpKey::from_ipv4(read(frame, network + 16)?);
            Ok(tcp.between(source, destination, network, segment.start == network + 20))
        }
        ETHERTYPE_IPV6 => {
            let segment = ipv6(frame, network)?;
            let tcp = tcp(frame, &segment, protected, concerned)?;
            let source = IpKey::from_ipv6(read(frame, network + 8)?);
            let destination = IpKey::from_ipv6(read(frame, network + 24)?);
            Ok(tcp.between(source, destination, network, segment.start == network + 40))
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

/// What a TCP header of interest says (RFC 9293 section 3.1).
struct Tcp {
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    /// Bytes of the header.
    length: usize,
    /// None: a SYN.
    answer: Option<Acknowledged>,
}

struct Acknowledged {
    number: u32,
    window: u16,
    fin: bool,
    payload: u32,
}

impl Tcp {
    #[inline(always)]
    fn between(self, source: IpKey, destination: IpKey, network: usize, plain: bool) -> Decoded {
        let Self { source_port, destination_port, sequence, length, answer } = self;
        let wire = Wire { network, plain, tcp: length };
        match answer {
            None => Decoded::Opening(Opening { source, destination, source_port, destination_port, sequence, wire }),
            Some(Acknowledged { number: acknowledgement, window, fin, payload }) => Decoded::Answer(Answer {
                source,
                destination,
                source_port,
                destination_port,
                sequence,
                acknowledgement,
                window,
                fin,
                payload,
                wire,
            }),
        }
    }
}

#[inline(always)]
fn tcp<F: Frame + ?Sized>(
    frame: &F,
    segment: &Segment,
    protected: impl Fn(u16) -> bool,
    concerned: impl Fn(u32) -> bool,
) -> Result<Tcp, Other> {
    let [offset, flags, high, low] = read(frame, segment.start + 12)?;
    let acknowledgement = match flags & (FIN | SYN | RST | ACK) {
        SYN => None,
        ACK | FIN_ACK => {
            let number = u32::from_be_bytes(read(frame, segment.start + 8)?);
            if !concerned(number) {
                return Err(Other::NotOurs);
            }
            Some(number)
        }
        _ => return Err(Other::NotOurs),
    };
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
    let window = u16::from_be_bytes([high, low]);
    Ok(Tcp {
        source_port,
        destination_port,
        sequence: u32::from_be_bytes(read(frame, segment.start + 4)?),
        length: header,
        answer: acknowledgement.map(|number| Acknowledged {
            number,
            window,
            fin: flags & FIN != 0,
            payload: (segment.end - segment.start - header) as u32,
        }),
    })
}

#[inline(always)]
fn read<F: Frame + ?Sized, const N: usize>(frame: &F, offset: usize) -> Result<[u8; N], Other> {
    frame.read(offset).ok_or(Other::Malformed)
}

#[cfg(test)]
mod tests;
