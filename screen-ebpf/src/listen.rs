//! The mail server's listening sockets: found when they begin to listen, and found again by walking all sockets.
//!
//! A socket counts only if whoever bound it is root or the mail server's user: no other local user may take the mail.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_SK_LOOKUP_F_NO_REUSEPORT, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::{bpf_get_current_uid_gid, bpf_get_netns_cookie, bpf_sk_storage_get},
    programs::{SkLookupContext, SockContext, SockOpsContext},
};
use screen_common::{
    abi::{Bound, FIND_NONE, SERVER_SIBLINGS, ServerKey, Settings},
    address::IpKey,
};

use crate::{
    context::{operation_ends, socket_port},
    maps::{self, bound, hung, of_server, servers},
};

const UNSPECIFIED_IPV4: IpKey = IpKey::from_ipv4([0; 4]);
const LOOPBACK_IPV4: IpKey = IpKey::from_ipv4([127, 0, 0, 1]);
const UNSPECIFIED_IPV6: IpKey = IpKey::from_ipv6([0; 16]);
const LOOPBACK_IPV6: IpKey = IpKey::from_halves(0, 1);

/// Whether the mail server listens on `port`.
#[inline(always)]
pub(crate) fn is_servers(settings: &Settings, port: u16) -> bool {
    if settings.steer_port == 0 { settings.protects(port) } else { port as u32 == settings.steer_port }
}

/// Notes who binds a socket; it may listen later.
#[inline(always)]
pub(crate) fn note_owner(ctx: &SockContext) {
    let Some(settings) = maps::settings() else { return };
    if !is_servers(settings, socket_port(ctx.sock)) {
        return;
    }
    // Binding is done by a process.
    let mut value = Bound { uid: bpf_get_current_uid_gid() as u32 };
    // SAFETY: the storage map, the program's socket, and a value of the map's type.
    let stored = unsafe {
        bpf_sk_storage_get(
            (&raw const bound).cast_mut().cast(),
            ctx.sock.cast(),
            (&raw mut value).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    }
    .cast::<Bound>();
    if !stored.is_null() {
        // A socket may be bound by another user than the one that tried before.
        // SAFETY: not null, and the storage outlives this write.
        unsafe { *stored = value };
    }
}

/// Registers a socket that begins to listen, if it is the mail server's.
#[inline(always)]
pub(crate) fn listens(ctx: &SockOpsContext, socket: *mut bpf_sock) {
    let Some(settings) = maps::settings() else { return };
    let ends = operation_ends(ctx.ops);
    if settings.find_servers == FIND_NONE || !is_servers(settings, ends.local_port) {
        return;
    }
    // SAFETY: the helper takes this program's context. The program runs for every namespace below its cgroup.
    if unsafe { bpf_get_netns_cookie(ctx.ops.cast()) } != settings.netns_cookie {
        return;
    }
    // SAFETY: the storage map and a socket that is not null; no value is made.
    let owner =
        unsafe { bpf_sk_storage_get((&raw const bound).cast_mut().cast(), socket.cast(), core::ptr::null_mut(), 0) }
            .cast::<Bound>();
    // SAFETY: null or a value of the map.
    if owner.is_null() || !settings.trusts(unsafe { (*owner).uid }) {
        return;
    }
    // Marked first: connections may come in as soon as it has its place, and inherit the mark.
    let Some(place) = mark(socket) else { return };
    for index in 0..SERVER_SIBLINGS {
        // SAFETY: not null, and the storage outlives this write.
        unsafe { *place = index + 1 };
        let key = ServerKey { address: ends.local, port: ends.local_port as u32, index };
        if servers.insert(key, ctx.ops, u64::from(BPF_NOEXIST)) {
            return;
        }
    }
    // The walk finds it a place once one is free.
    // SAFETY: as above.
    unsafe { *place = 0 };
}

/// Marks a listening socket as the mail server's; connections that it takes inherit the mark.
#[inline(always)]
fn mark(socket: *mut bpf_sock) -> Option<*mut u32> {
    // As if it had a place, so that a walk leaves it alone meanwhile.
    let mut value = 1u32;
    // SAFETY: the storage map, a socket that is not null, and a value of the map's type.
    let mark = unsafe {
        bpf_sk_storage_get(
            (&raw const of_server).cast_mut().cast(),
            socket.cast(),
            (&raw mut value).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    }
    .cast::<u32>();
    if mark.is_null() { None } else { Some(mark) }
}

/// Whether the listener that took a connection is the mail server's.
#[inline(always)]
pub(crate) fn took(socket: *mut bpf_sock) -> bool {
    // SAFETY: the storage map and a socket that is not null; no value is made.
    let mark = unsafe {
        bpf_sk_storage_get((&raw const of_server).cast_mut().cast(), socket.cast(), core::ptr::null_mut(), 0)
    };
    !mark.is_null()
}

/// What became of a look-up for the mail server.
pub(crate) enum Found {
    /// It is given to a listener.
    Taker,
    /// All listeners hang.
    Hung,
    /// There is none.
    Nobody,
}

/// Gives a look-up to the mail server's listener, if one takes connections.
#[inline(always)]
pub(crate) fn assign(ctx: &SkLookupContext, settings: &Settings, meant: &IpKey, port: u16, now_ns: u64) -> Found {
    let is_ipv4 = meant.ipv4().is_some();
    let (loopback, unspecified) =
        if is_ipv4 { (LOOPBACK_IPV4, UNSPECIFIED_IPV4) } else { (LOOPBACK_IPV6, UNSPECIFIED_IPV6) };
    let (first, second, port) = if settings.steer_port == 0 {
        (*meant, unspecified, port as u32)
    } else if settings.steer_address.ipv4().is_some() == is_ipv4 {
        (settings.steer_address, loopback, settings.steer_port)
    } else {
        (loopback, unspecified, settings.steer_port)
    };
    assign_first(ctx, [first, second, unspecified], port, now_ns)
}

/// As [`assign`], at the very address and port that the connection is for.
#[inline(always)]
pub(crate) fn assign_there(ctx: &SkLookupContext, address: &IpKey, port: u16, now_ns: u64) -> Found {
    let unspecified = if address.ipv4().is_some() { UNSPECIFIED_IPV4 } else { UNSPECIFIED_IPV6 };
    assign_first(ctx, [*address, unspecified, unspecified], port as u32, now_ns)
}

#[inline(always)]
fn assign_first(ctx: &SkLookupContext, addresses: [IpKey; 3], port: u32, now_ns: u64) -> Found {
    let [first, second, third] = addresses;
    let mut hangs = false;
    // The last one is a dual-stack socket; one that takes IPv6 only is refused to an IPv4 look-up by the kernel.
    for address in [first, second, third, UNSPECIFIED_IPV6] {
        match assign_at(ctx, address, port, now_ns) {
            Found::Taker => return Found::Taker,
            Found::Hung => hangs = true,
            Found::Nobody => {}
        }
    }
    if hangs { Found::Hung } else { Found::Nobody }
}

#[inline(always)]
fn assign_at(ctx: &SkLookupContext, address: IpKey, port: u32, now_ns: u64) -> Found {
    let first = ServerKey { address, port, index: 0 };
    // SAFETY: the entry is read at once; one that changes meanwhile was true before, or is now.
    let hanging = match unsafe { hung.get(first) } {
        Some(entry) if entry.until_ns > now_ns => entry.which,
        _ => 0,
    };
    // The kernel would choose among all that share the address.
    let flags = if hanging == 0 { 0 } else { u64::from(BPF_SK_LOOKUP_F_NO_REUSEPORT) };
    for index in 0..SERVER_SIBLINGS {
        if hanging & 1 << index == 0 && servers.assign(ctx, &ServerKey { index, ..first }, flags) {
            return Found::Taker;
        }
    }
    if hanging == 0 { Found::Nobody } else { Found::Hung }
}
