//! Refusal without a socket: a SYN is answered with a cookie, the cookie's acknowledgement with a line of text and a FIN.
//!
//! Nothing is kept between two packets. Before a cookie has come back nothing but one SYN-ACK is sent, no longer than the SYN.

use core::{arch::asm, mem::size_of};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1},
    bindings::{bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2},
    helpers::{bpf_ktime_get_coarse_ns, bpf_sk_release, bpf_skc_lookup_tcp, bpf_xdp_adjust_head, bpf_xdp_store_bytes},
    programs::XdpContext,
};
use screen_common::{
    abi::TEXT_DENIED,
    address::IpKey,
    cookie::{self, Path},
    options::segment_size,
    packet::{Answer, Frame as _, Opening, Wire},
    reason::Reason,
    reply::{IPV4_HEADER, IPV6_HEADER, Segment, TCP_HEADER_MAX, TCP_HEADER_MIN, Text, flags},
};

use crate::{
    context::socket_state,
    maps::{cookie_keys, mute, replies},
    packet::PacketContext as _,
    report,
};

/// What becomes of the packet that was answered, or not.
pub(crate) enum Outcome {
    /// It is an answer now, to be sent back.
    Transmit,
    /// There is nothing to say to it.
    Drop,
    /// It is none of ours.
    Pass,
}

/// Answers a SYN that is refused with the text of this number, or with the common one where the client takes no segment as long.
#[inline(always)]
pub(crate) fn challenge(ctx: &XdpContext, opening: &Opening, text: u32) -> Outcome {
    // A packet with IP options can't be answered by turning it round; where this interface can't transmit, silence is all there is.
    if !opening.wire.plain || is_mute(ctx) {
        return Outcome::Drop;
    }
    let Some(keys) = cookie_keys.get(0).filter(|keys| keys.ready != 0) else { return Outcome::Drop };
    let Some(text) = fitting(ctx, opening, text) else { return Outcome::Drop };
    let path = Path {
        source: opening.source,
        destination: opening.destination,
        source_port: opening.source_port,
        destination_port: opening.destination_port,
    };
    // SAFETY: no arguments.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    let segment = Segment {
        from: opening.destination,
        to: opening.source,
        from_port: opening.destination_port,
        to_port: opening.source_port,
        sequence: cookie::make(&keys.present, &path, text, now_ns),
        acknowledgement: opening.sequence.wrapping_add(1),
        flags: flags::SYN | flags::ACK,
        // Four bytes more than a bare header: only where the SYN had as many.
        announces: opening.wire.tcp > TCP_HEADER_MIN,
        payload: 0,
        payload_sum: 0,
    };
    if !turn_round(ctx, &opening.wire, &segment, None) {
        return Outcome::Drop;
    }
    report::count(Reason::Challenged);
    Outcome::Transmit
}

/// Answers what may acknowledge a cookie.
#[inline(always)]
pub(crate) fn answer(ctx: &XdpContext, answer: &Answer) -> Outcome {
    let Some(keys) = cookie_keys.get(0) else { return Outcome::Pass };
    // SAFETY: no arguments.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    let path = Path {
        source: answer.source,
        destination: answer.destination,
        source_port: answer.source_port,
        destination_port: answer.destination_port,
    };
    let Some(known) = cookie::check(keys, &path, answer.acknowledgement, now_ns) else { return Outcome::Pass };
    let Some(text) = replies.get(known.text).filter(|text| text.length != 0) else { return Outcome::Pass };
    // The text and its FIN are all that there is to acknowledge.
    if known.received > text.length + 1 {
        return Outcome::Pass;
    }
    // One number in many millions looks like a cookie by chance: a connection that the stack knows is the stack's.
    if is_connected(ctx, &path) {
        return Outcome::Pass;
    }
    if !answer.wire.plain || is_mute(ctx) {
        return Outcome::Drop;
    }
    let taken = answer.payload + answer.fin as u32;
    let mut segment = Segment {
        from: answer.destination,
        to: answer.source,
        from_port: answer.destination_port,
        to_port: answer.source_port,
        sequence: known.cookie.wrapping_add(1),
        acknowledgement: answer.sequence.wrapping_add(taken),
        flags: flags::PSH | flags::FIN | flags::ACK,
        announces: false,
        payload: text.length,
        payload_sum: text.sum,
    };
    let said = if known.received == 0 {
        // Where there is no room for all of it, an answer would only be answered again: the client tells when there is.
        if answer.window as u32 <= text.length {
            return Outcome::Drop;
        }
        report::count(Reason::Refused);
        Some(text)
    } else if known.received == text.length + 1 && taken != 0 {
        // It has heard us and goes on: with its QUIT, and then with its FIN.
        segment.sequence = segment.sequence.wrapping_add(text.length + 1);
        segment.flags = flags::ACK;
        segment.payload = 0;
        segment.payload_sum = 0;
        None
    } else {
        return Outcome::Drop;
    };
    if turn_round(ctx, &answer.wire, &segment, said) { Outcome::Transmit } else { Outcome::Drop }
}

/// The number of a text that the client takes in one segment: this one, or else the common one.
#[inline(always)]
fn fitting(ctx: &XdpContext, opening: &Opening, text: u32) -> Option<u32> {
    let wire = &opening.wire;
    // A plain packet: nothing is between its headers.
    let tcp = wire.network + if opening.source.ipv4().is_some() { IPV4_HEADER } else { IPV6_HEADER };
    let size = segment_size(&ctx.frame(), tcp + TCP_HEADER_MIN, tcp + wire.tcp) as u32;
    let fits = |text: u32| replies.get(text).is_some_and(|text| text.length <= size);
    if fits(text) {
        Some(text)
    } else if text > TEXT_DENIED && fits(TEXT_DENIED) {
        Some(TEXT_DENIED)
    } else {
        None
    }
}

/// Whether frames can't be sent back over the interface that this one came in by.
#[inline(always)]
fn is_mute(ctx: &XdpContext) -> bool {
    // SAFETY: the context of an XDP program, and a value of four bytes.
    unsafe { mute.get((*ctx.ctx).ingress_ifindex) }.is_some()
}

#[repr(C)]
struct Ipv4Packet {
    ip: [u8; IPV4_HEADER],
    tcp: [u8; TCP_HEADER_MAX],
}

#[repr(C)]
struct Ipv6Packet {
    ip: [u8; 8],
    from: IpKey,
    to: IpKey,
    tcp: [u8; TCP_HEADER_MAX],
}

const _: () = assert!(size_of::<Ipv6Packet>() == IPV6_HEADER + TCP_HEADER_MAX);

/// The most bytes before the IP header: Ethernet, and two VLAN tags.
const LINK_MAX: usize = 22;

/// Makes the frame one that goes back where it came from and carries `segment` and `text`. Grows and shrinks at the frame's head: not
/// every driver has room at its tail.
#[inline(always)]
fn turn_round(ctx: &XdpContext, wire: &Wire, segment: &Segment, text: Option<&Text>) -> bool {
    let Some(mut link) = ctx.frame().read::<LINK_MAX>(0) else { return false };
    let network = wire.network;
    if network != 14 && network != 18 && network != LINK_MAX {
        return false;
    }
    for index in 0..6 {
        link.swap(index, index + 6);
    }
    let is_ipv4 = segment.from.ipv4().is_some();
    let ip = if is_ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    let headers = ip + segment.header_length() as usize;
    let length = network + headers + segment.payload as usize;
    let change = ctx.frame().length() as i64 - length as i64;
    // SAFETY: the context of an XDP program. The packet is read no more after this.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, change as i32) } != 0 {
        return false;
    }
    if !store(ctx, 0, &link, network as u32) {
        return false;
    }
    let tcp = segment.tcp_header();
    let stored = match segment.ipv4_header() {
        Some(ip) => store(ctx, network as u32, &Ipv4Packet { ip, tcp }, headers as u32),
        None => {
            let packet = Ipv6Packet { ip: segment.ipv6_start(), from: segment.from, to: segment.to, tcp };
            store(ctx, network as u32, &packet, headers as u32)
        }
    };
    let Some(text) = text else { return stored };
    stored && store(ctx, (network + headers) as u32, &text.bytes, segment.payload)
}

/// Writes the first `length` bytes of `bytes` into the frame, at least one; returns whether there are as many, and room for them.
#[inline(always)]
fn store<T>(ctx: &XdpContext, offset: u32, bytes: &T, length: u32) -> bool {
    let mut last = u64::from(length).wrapping_sub(1);
    // Before Linux 6.8 the verifier takes no least value from "not zero": the last byte's number has one, and what follows from it. Made by
    // assembly it stays in one register, where the compiler would compare copies of it on the stack.
    // SAFETY: a number is cut to seven bits.
    unsafe {
        asm!("{last} &= 127", last = inout(reg) last, options(nomem, nostack));
    }
    if last >= size_of::<T>() as u64 {
        return false;
    }
    let start = (&raw const *bytes).cast_mut().cast();
    // SAFETY: there are as many bytes, as just checked; the helper checks that the frame has room for them.
    unsafe { bpf_xdp_store_bytes(ctx.ctx, offset, start, last as u32 + 1) == 0 }
}

const TCP_TIME_WAIT: u32 = 6;
const TCP_LISTEN: u32 = 10;
/// The namespace of the interface.
const BPF_F_CURRENT_NETNS: u64 = u64::MAX;

/// Whether the stack has a connection with these ends, made or in the making.
#[inline(always)]
fn is_connected(ctx: &XdpContext, path: &Path) -> bool {
    let (sport, dport) = (path.source_port.to_be(), path.destination_port.to_be());
    let (tuple, size) = match (path.source.ipv4(), path.destination.ipv4()) {
        (Some(source), Some(destination)) => {
            let ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
                saddr: u32::from_ne_bytes(source),
                daddr: u32::from_ne_bytes(destination),
                sport,
                dport,
            };
            (bpf_sock_tuple__bindgen_ty_1 { ipv4 }, size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>())
        }
        _ => {
            let ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
                saddr: words(&path.source),
                daddr: words(&path.destination),
                sport,
                dport,
            };
            (bpf_sock_tuple__bindgen_ty_1 { ipv6 }, size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2>())
        }
    };
    let mut tuple = bpf_sock_tuple { __bindgen_anon_1: tuple };
    // SAFETY: a tuple of as many bytes as its family has; the reference is given back below, on every path.
    let socket: *mut bpf_sock =
        unsafe { bpf_skc_lookup_tcp(ctx.ctx.cast(), &raw mut tuple, size as u32, BPF_F_CURRENT_NETNS, 0) };
    if socket.is_null() {
        return false;
    }
    let state = socket_state(socket);
    // SAFETY: the reference from above.
    unsafe { bpf_sk_release(socket.cast()) };
    state != TCP_LISTEN && state != TCP_TIME_WAIT
}

#[inline(always)]
fn words(address: &IpKey) -> [u32; 4] {
    let (high, low) = address.halves();
    [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32].map(u32::to_be)
}
