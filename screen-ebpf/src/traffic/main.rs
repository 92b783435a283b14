//! Traffic for measurements: never loaded by the gate, and no part of its object.
#![no_std]
#![no_main]
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "the entry macros wrap each program in a public function of their own"
)]
#![allow(clippy::needless_pass_by_value, reason = "the entry macros call each program with its context by value")]
#![allow(unsafe_code, reason = "helpers and packet memory; each use says why it is sound")]
#![allow(non_upper_case_globals, reason = "a map's name is its static's name")]

mod sources;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, ProgramArray},
    helpers::{bpf_get_prandom_u32, bpf_xdp_adjust_head},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::sources::Kind;

/// Bytes of a frame: Ethernet, IPv4 and TCP headers, and a segment size option.
const FRAME: usize = 58;

/// What is sent.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Lane {
    /// The frame; its source address is replaced, its checksums are filled in.
    frame: [u8; 64],
    /// [`Kind`] by number.
    kind: u32,
    /// Prefixes in the list; 0: the source stays as it is.
    count: u32,
    /// The sum of the IPv4 header without the source and the checksum, not folded.
    ip_sum: u32,
    /// The sum of the TCP segment and its pseudo header, likewise.
    tcp_sum: u32,
}

#[btf_map]
static lanes: Array<Lane, 1> = Array::new();

#[btf_map]
static targets: ProgramArray<1> = ProgramArray::new();

/// Does nothing: what a program costs that is there at all.
#[xdp]
pub fn nothing(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Drops everything, likewise.
#[xdp]
pub fn sink(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Makes the next frame and sends it out over the interface that it pretends to have come in by.
#[xdp]
pub fn flood(ctx: XdpContext) -> u32 {
    if make(&ctx).is_some() { xdp_action::XDP_TX } else { xdp_action::XDP_ABORTED }
}

/// Makes the next frame and hands it to the program in `targets`.
#[xdp]
pub fn spread(ctx: XdpContext) -> u32 {
    if make(&ctx).is_some() {
        // SAFETY: nothing here waits to be dropped, and what follows is for the case that it fails.
        unsafe { targets.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// Writes the whole frame: the one before may have been turned into an answer.
#[inline(always)]
fn make(ctx: &XdpContext) -> Option<()> {
    let lane = lanes.get(0)?;
    let longer = (ctx.data_end() - ctx.data()) as i64 - FRAME as i64;
    // SAFETY: the context of an XDP program; the packet is looked at only after this.
    if longer != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, longer as i32) } != 0 {
        return None;
    }
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + FRAME > end {
        return None;
    }
    let frame = data as *mut [u8; FRAME];
    // SAFETY: a packet of that length, as just checked, and a template that is longer.
    let frame = unsafe {
        *frame = *(&raw const lane.frame).cast::<[u8; FRAME]>();
        &mut *frame
    };
    if lane.count == 0 {
        return Some(());
    }
    // SAFETY: no arguments.
    let (number, random) = unsafe { (bpf_get_prandom_u32() as u32, bpf_get_prandom_u32() as u32) };
    let source = sources::address(Kind::of(lane.kind), number % lane.count, random);
    frame[26..30].copy_from_slice(&source.to_be_bytes());
    let words = (source >> 16) + (source & 0xffff);
    frame[24..26].copy_from_slice(&checksum(lane.ip_sum + words).to_be_bytes());
    frame[50..52].copy_from_slice(&checksum(lane.tcp_sum + words).to_be_bytes());
    Some(())
}

/// RFC 1071.
#[inline(always)]
fn checksum(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Helpers that only programs with a GPL licence may call may be among those used.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
