//! The kernel programs of mxscreen: thin entries over the decisions in `screen-common`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "the entry macros wrap each program in a public function of their own"
)]
#![allow(clippy::needless_pass_by_value, reason = "the entry macros call each program with its context by value")]
#![allow(unsafe_code, reason = "helpers, context and packet memory; each use says why it is sound")]

mod atomic;
mod clients;
mod context;
mod count;
mod gate;
mod inherited;
mod listen;
mod lists;
mod maps;
mod names;
mod packet;
mod refuse;
mod report;
mod sockets;
mod steer;
mod walk;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, sk_action, xdp_action},
    macros::{cgroup_sock, cgroup_sock_addr, classifier, sk_lookup, sock_ops, xdp},
    programs::{SkLookupContext, SockAddrContext, SockContext, SockOpsContext, TcContext, XdpContext},
};

/// The connection gate on an interface: turns away denied sources and clients at their limit, on the SYN.
// Inlined, as its stack and the macro's own together are more than a program may have.
#[xdp]
#[inline(always)]
pub fn gate(ctx: XdpContext) -> u32 {
    let outcome = match gate::judge(&ctx) {
        gate::Verdict::Pass => refuse::Outcome::Pass,
        gate::Verdict::Drop => refuse::Outcome::Drop,
        gate::Verdict::Refuse(opening, text) => refuse::challenge(&ctx, &opening, text),
        gate::Verdict::Answer(answer) => refuse::answer(&ctx, &answer),
    };
    match outcome {
        refuse::Outcome::Pass => xdp_action::XDP_PASS,
        refuse::Outcome::Drop => xdp_action::XDP_DROP,
        refuse::Outcome::Transmit => xdp_action::XDP_TX,
    }
}

/// The connection gate on an interface that takes no XDP program. What it does not drop it leaves to the programs behind it.
#[classifier]
pub fn gate_tc(ctx: TcContext) -> i32 {
    match gate::judge(&ctx) {
        gate::Verdict::Pass | gate::Verdict::Answer(_) => TC_ACT_UNSPEC,
        gate::Verdict::Drop | gate::Verdict::Refuse(..) => TC_ACT_SHOT,
    }
}

/// Who gets a connection to a protected port: the mail server's own listener, or the screener's.
#[sk_lookup]
pub fn steer(ctx: SkLookupContext) -> u32 {
    match steer::choose(&ctx) {
        steer::Choice::FallThrough | steer::Choice::Server | steer::Choice::Screener => sk_action::SK_PASS,
        steer::Choice::Refuse => sk_action::SK_DROP,
    }
}

/// Counts a client's connections.
#[sock_ops]
pub fn count(ctx: SockOpsContext) -> u32 {
    count::observe(&ctx);
    0
}

/// Notes who binds an IPv4 socket to the mail server's port.
#[cgroup_sock(post_bind4)]
pub fn owner4(ctx: SockContext) -> i32 {
    listen::note_owner(&ctx);
    1
}

/// Notes who binds an IPv6 socket to the mail server's port.
#[cgroup_sock(post_bind6)]
pub fn owner6(ctx: SockContext) -> i32 {
    listen::note_owner(&ctx);
    1
}

/// Walks over the sockets that are there; aya has no macro for it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub extern "C" fn walk(ctx: *mut walk::Visit) -> i32 {
    walk::visit(ctx);
    0
}

/// The true client of a relayed connection, for `getpeername` and `accept` on an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
pub fn peername4(ctx: SockAddrContext) -> i32 {
    names::peer_ipv4(&ctx);
    1
}

/// The true client of a relayed connection, for `getpeername` and `accept` on an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
pub fn peername6(ctx: SockAddrContext) -> i32 {
    names::peer_ipv6(&ctx);
    1
}

/// The address that the client of a relayed connection meant, for `getsockname` on an IPv4 socket.
#[cgroup_sock_addr(getsockname4)]
pub fn sockname4(ctx: SockAddrContext) -> i32 {
    names::own_ipv4(&ctx);
    1
}

/// The address that the client of a relayed connection meant, for `getsockname` on an IPv6 socket.
#[cgroup_sock_addr(getsockname6)]
pub fn sockname6(ctx: SockAddrContext) -> i32 {
    names::own_ipv6(&ctx);
    1
}

/// Helpers that only programs with a GPL licence may call are among those used.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
