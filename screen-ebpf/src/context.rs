//! Fields of the programs' contexts.
//!
//! The verifier wants four-byte accesses at constant offsets from an unmodified context pointer. The compiler likes to merge
//! neighbouring loads and to select between pointers, hence the assembly.

use core::mem::offset_of;

use aya_ebpf::bindings::{bpf_sk_lookup, bpf_sock, bpf_sock_addr, bpf_sock_ops};
use screen_common::address::IpKey;

/// Reads the four bytes of a field, or of the element `$index` of an array field.
macro_rules! load {
    ($pointer:expr, $context:ty, $field:ident $(, $index:literal)?) => {{
        let value: u64;
        // SAFETY: the pointer is the context that the kernel handed over, and the offset is one of its fields.
        unsafe {
            core::arch::asm!(
                "{value} = *(u32 *)({pointer} + {offset})",
                value = out(reg) value,
                pointer = in(reg) $pointer,
                offset = const offset_of!($context, $field) $(+ 4 * $index)?,
                options(nostack),
            );
        }
        value as u32
    }};
}

/// Writes four bytes of a field, or of the element `$index` of an array field.
macro_rules! store {
    ($pointer:expr, $context:ty, $value:expr, $field:ident $(, $index:literal)?) => {{
        let value: u64 = u64::from($value);
        // SAFETY: as for `load`.
        unsafe {
            core::arch::asm!(
                "*(u32 *)({pointer} + {offset}) = {value}",
                value = in(reg) value,
                pointer = in(reg) $pointer,
                offset = const offset_of!($context, $field) $(+ 4 * $index)?,
                options(nostack),
            );
        }
    }};
}

/// The key of an IPv4 address in network order, as contexts hold it.
#[inline(always)]
pub(crate) fn ipv4(word: u32) -> IpKey {
    IpKey::from_ipv4(word.to_ne_bytes())
}

/// The key of an IPv6 address in network order, as contexts hold it.
#[inline(always)]
pub(crate) fn ipv6(words: [u32; 4]) -> IpKey {
    let [a, b, c, d] = words.map(u32::from_be);
    IpKey::from_halves((a as u64) << 32 | b as u64, (c as u64) << 32 | d as u64)
}

/// The two ends of a connection: theirs and ours. Ports in host order.
pub(crate) struct Ends {
    pub(crate) remote: IpKey,
    pub(crate) remote_port: u16,
    pub(crate) local: IpKey,
    pub(crate) local_port: u16,
}

const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;

/// Whether a socket look-up is one for TCP.
#[inline(always)]
pub(crate) fn lookup_is_tcp(ctx: *mut bpf_sk_lookup) -> bool {
    load!(ctx, bpf_sk_lookup, protocol) == IPPROTO_TCP
}

/// Whether a name hook runs for a TCP socket.
#[inline(always)]
pub(crate) fn name_is_tcp(ctx: *mut bpf_sock_addr) -> bool {
    load!(ctx, bpf_sock_addr, protocol) == IPPROTO_TCP
}

/// The ends in a socket look-up.
#[inline(always)]
pub(crate) fn lookup_ends(ctx: *mut bpf_sk_lookup) -> Ends {
    let (remote, local) = if load!(ctx, bpf_sk_lookup, family) == AF_INET {
        (ipv4(load!(ctx, bpf_sk_lookup, remote_ip4)), ipv4(load!(ctx, bpf_sk_lookup, local_ip4)))
    } else {
        (
            ipv6([
                load!(ctx, bpf_sk_lookup, remote_ip6, 0),
                load!(ctx, bpf_sk_lookup, remote_ip6, 1),
                load!(ctx, bpf_sk_lookup, remote_ip6, 2),
                load!(ctx, bpf_sk_lookup, remote_ip6, 3),
            ]),
            ipv6([
                load!(ctx, bpf_sk_lookup, local_ip6, 0),
                load!(ctx, bpf_sk_lookup, local_ip6, 1),
                load!(ctx, bpf_sk_lookup, local_ip6, 2),
                load!(ctx, bpf_sk_lookup, local_ip6, 3),
            ]),
        )
    };
    // Two bytes in network order in memory, then zeroes.
    let [high, low, _, _] = load!(ctx, bpf_sk_lookup, remote_port).to_ne_bytes();
    Ends {
        remote,
        remote_port: u16::from_be_bytes([high, low]),
        local,
        local_port: load!(ctx, bpf_sk_lookup, local_port) as u16,
    }
}

/// The ends in a socket operation. A dual-stack socket shows IPv4 clients as mapped addresses, which is what a key is anyway.
#[inline(always)]
pub(crate) fn operation_ends(ctx: *mut bpf_sock_ops) -> Ends {
    let (remote, local) = if load!(ctx, bpf_sock_ops, family) == AF_INET {
        (ipv4(load!(ctx, bpf_sock_ops, remote_ip4)), ipv4(load!(ctx, bpf_sock_ops, local_ip4)))
    } else {
        (
            ipv6([
                load!(ctx, bpf_sock_ops, remote_ip6, 0),
                load!(ctx, bpf_sock_ops, remote_ip6, 1),
                load!(ctx, bpf_sock_ops, remote_ip6, 2),
                load!(ctx, bpf_sock_ops, remote_ip6, 3),
            ]),
            ipv6([
                load!(ctx, bpf_sock_ops, local_ip6, 0),
                load!(ctx, bpf_sock_ops, local_ip6, 1),
                load!(ctx, bpf_sock_ops, local_ip6, 2),
                load!(ctx, bpf_sock_ops, local_ip6, 3),
            ]),
        )
    };
    Ends {
        remote,
        // Network order in the whole word.
        remote_port: u32::from_be(load!(ctx, bpf_sock_ops, remote_port)) as u16,
        local,
        local_port: load!(ctx, bpf_sock_ops, local_port) as u16,
    }
}

/// The address and port that a name hook is about to report, of an IPv4 socket.
#[inline(always)]
pub(crate) fn name_ipv4(ctx: *mut bpf_sock_addr) -> (IpKey, u16) {
    (ipv4(load!(ctx, bpf_sock_addr, user_ip4)), name_port(ctx))
}

/// The address and port that a name hook is about to report, of an IPv6 socket.
#[inline(always)]
pub(crate) fn name_ipv6(ctx: *mut bpf_sock_addr) -> (IpKey, u16) {
    let words = [
        load!(ctx, bpf_sock_addr, user_ip6, 0),
        load!(ctx, bpf_sock_addr, user_ip6, 1),
        load!(ctx, bpf_sock_addr, user_ip6, 2),
        load!(ctx, bpf_sock_addr, user_ip6, 3),
    ];
    (ipv6(words), name_port(ctx))
}

#[inline(always)]
fn name_port(ctx: *mut bpf_sock_addr) -> u16 {
    let [high, low, _, _] = load!(ctx, bpf_sock_addr, user_port).to_ne_bytes();
    u16::from_be_bytes([high, low])
}

/// Reports `address` and `port` instead, on an IPv4 socket; an IPv6 address has no place there.
#[inline(always)]
pub(crate) fn rename_ipv4(ctx: *mut bpf_sock_addr, address: &IpKey, port: u32) {
    if let Some(octets) = address.ipv4() {
        store!(ctx, bpf_sock_addr, u32::from_ne_bytes(octets), user_ip4);
        rename_port(ctx, port);
    }
}

/// Reports `address` and `port` instead, on an IPv6 socket.
#[inline(always)]
pub(crate) fn rename_ipv6(ctx: *mut bpf_sock_addr, address: &IpKey, port: u32) {
    let (high, low) = address.halves();
    store!(ctx, bpf_sock_addr, ((high >> 32) as u32).to_be(), user_ip6, 0);
    store!(ctx, bpf_sock_addr, (high as u32).to_be(), user_ip6, 1);
    store!(ctx, bpf_sock_addr, ((low >> 32) as u32).to_be(), user_ip6, 2);
    store!(ctx, bpf_sock_addr, (low as u32).to_be(), user_ip6, 3);
    rename_port(ctx, port);
}

#[inline(always)]
fn rename_port(ctx: *mut bpf_sock_addr, port: u32) {
    let [high, low] = (port as u16).to_be_bytes();
    store!(ctx, bpf_sock_addr, u32::from_ne_bytes([high, low, 0, 0]), user_port);
}

/// The state of a socket, as the kernel's `tcp_states.h` numbers it.
#[inline(always)]
pub(crate) fn socket_state(socket: *mut bpf_sock) -> u32 {
    load!(socket, bpf_sock, state)
}

/// The peer of a socket.
#[inline(always)]
pub(crate) fn socket_peer_ipv4(socket: *mut bpf_sock) -> (IpKey, u16) {
    (ipv4(load!(socket, bpf_sock, dst_ip4)), socket_peer_port(socket))
}

/// The peer of an IPv6 socket.
#[inline(always)]
pub(crate) fn socket_peer_ipv6(socket: *mut bpf_sock) -> (IpKey, u16) {
    let words = [
        load!(socket, bpf_sock, dst_ip6, 0),
        load!(socket, bpf_sock, dst_ip6, 1),
        load!(socket, bpf_sock, dst_ip6, 2),
        load!(socket, bpf_sock, dst_ip6, 3),
    ];
    (ipv6(words), socket_peer_port(socket))
}

#[inline(always)]
fn socket_peer_port(socket: *mut bpf_sock) -> u16 {
    let [high, low, _, _] = load!(socket, bpf_sock, dst_port).to_ne_bytes();
    u16::from_be_bytes([high, low])
}
