//! A walk over all TCP sockets of a network namespace: listeners that were there before the gate, connections that it has not seen made, and
//! all that are counted, so that the counts can be held against them.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_STATE_CB_FLAG, seq_file},
    helpers::{
        bpf_ktime_get_ns, bpf_map_update_elem, bpf_seq_write, bpf_setsockopt, bpf_sk_storage_delete, bpf_sk_storage_get,
    },
};
use screen_common::{
    abi::{CORRECTION_ENTRIES, Counted, FIND_NONE, RelayKey, SERVER_SIBLINGS, ServerKey, Settings},
    address::IpKey,
};

use crate::{
    atomic,
    context::{ipv4, ipv6},
    count, listen, lists,
    maps::{self, corrections, counted, of_server, relay_clients, servers},
};

/// The context of `iter/tcp`.
#[repr(C)]
pub struct Visit {
    meta: *const Meta,
    socket: *const SocketCommon,
    uid: u32,
}

/// The beginning of the kernel's `struct bpf_iter_meta`.
#[repr(C)]
struct Meta {
    output: *mut seq_file,
}

/// The beginning of the kernel's `struct sock_common`, which has been so since long before the oldest kernel that is supported. Where it is not,
/// the verifier refuses the program and the gate does without.
#[repr(C)]
struct SocketCommon {
    remote_ipv4: u32,
    local_ipv4: u32,
    hash: u32,
    /// Network order.
    remote_port: u16,
    /// Host order.
    local_port: u16,
    family: u16,
    state: u8,
    reuse: u8,
    bound_interface: u32,
    bind_node: [u64; 2],
    protocol: u64,
    namespace: u64,
    remote_ipv6: [u32; 4],
    local_ipv6: [u32; 4],
}

const AF_INET: u16 = 2;
const TCP_ESTABLISHED: u8 = 1;
const TCP_FIN_WAIT1: u8 = 4;
const TCP_FIN_WAIT2: u8 = 5;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LAST_ACK: u8 = 9;
const TCP_LISTEN: u8 = 10;
const TCP_CLOSING: u8 = 11;
const SOL_TCP: i32 = 6;
const TCP_BPF_SOCK_OPS_CB_FLAGS: i32 = 1008;

/// Looks at one socket.
#[inline(always)]
pub(crate) fn visit(ctx: *const Visit) {
    let Some(settings) = maps::settings() else { return };
    // SAFETY: the verifier knows the context's layout and follows the pointer, which is null at the end of the walk.
    unsafe {
        let socket = (*ctx).socket;
        if socket.is_null() {
            return correct();
        }
        let (port, state) = ((*socket).local_port, (*socket).state);
        match state {
            TCP_LISTEN if settings.find_servers != FIND_NONE && listen::is_servers(settings, port) => {
                if settings.trusts((*ctx).uid) {
                    register(socket, port);
                }
            }
            TCP_ESTABLISHED..=TCP_FIN_WAIT1 | TCP_CLOSE_WAIT | TCP_LAST_ACK | TCP_CLOSING
                if settings.protects(port) =>
            {
                adopt(settings, socket);
            }
            _ => {}
        }
        // Whatever its port: it may have been protected when the connection was counted.
        if matches!(state, TCP_ESTABLISHED..=TCP_FIN_WAIT2 | TCP_CLOSE_WAIT | TCP_LAST_ACK | TCP_CLOSING) {
            show(ctx, socket);
        }
    }
}

/// Hands whoever reads the walk the client of a counted connection.
///
/// # Safety
///
/// `socket` is the one that the walk, whose context `ctx` is, is at.
#[inline(always)]
unsafe fn show(ctx: *const Visit, socket: *const SocketCommon) {
    let storage = (&raw const counted).cast_mut().cast();
    // SAFETY: as above.
    let mark =
        unsafe { bpf_sk_storage_get(storage, socket.cast_mut().cast(), core::ptr::null_mut(), 0) }.cast::<Counted>();
    if !mark.is_null() {
        // SAFETY: the mark is not null. Where the output is full, the kernel comes to this socket again.
        unsafe { bpf_seq_write((*(*ctx).meta).output, mark.cast(), size_of::<Counted>() as u32) };
    }
}

/// Adds what user space has found missing, or too much. Here, as only an addition by the kernel loses no connection that comes or goes
/// meanwhile.
#[inline(always)]
fn correct() {
    for index in 0..CORRECTION_ENTRIES as u32 {
        let Some(correction) = corrections.get(index).filter(|correction| correction.change != 0) else { return };
        if let Some(entry) = count::entry(&correction.client) {
            // SAFETY: looked up just now.
            unsafe { atomic::add(&raw mut (*entry).active, correction.change as u64) };
        }
    }
}

/// # Safety
///
/// `socket` is the one that the walk is at.
#[inline(always)]
unsafe fn register(socket: *const SocketCommon, port: u16) {
    let mut unplaced = 0u32;
    // SAFETY: as above, and a value of the map's type.
    let place = unsafe {
        bpf_sk_storage_get(
            (&raw const of_server).cast_mut().cast(),
            socket.cast_mut().cast(),
            (&raw mut unplaced).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    }
    .cast::<u32>();
    // SAFETY: null or a value of the map. A socket leaves its place when it closes, and not before.
    if place.is_null() || unsafe { *place } != 0 {
        return;
    }
    // SAFETY: as above.
    let address = unsafe { local(socket) };
    for index in 0..SERVER_SIBLINGS {
        let key = ServerKey { address, port: port as u32, index };
        // SAFETY: not null, and the storage outlives this write; a key of the map's type; of a socket map, the value is the socket.
        let done = unsafe {
            *place = index + 1;
            bpf_map_update_elem(
                (&raw const servers).cast_mut().cast(),
                (&raw const key).cast(),
                socket.cast(),
                u64::from(BPF_NOEXIST),
            )
        };
        if done == 0 {
            return;
        }
    }
    // SAFETY: as above.
    unsafe { *place = 0 };
}

/// Counts a connection that was made while nobody counted, and asks to hear of its end.
///
/// # Safety
///
/// `socket` is the one that the walk is at.
#[inline(always)]
unsafe fn adopt(settings: &Settings, socket: *const SocketCommon) {
    // SAFETY: as above.
    let (remote, remote_port) = unsafe { (remote(socket), u16::from_be((*socket).remote_port)) };
    if relay_clients.get_ptr(RelayKey { address: remote, port: remote_port as u32 }).is_some()
        || lists::is_proxy(settings, &remote)
    {
        return;
    }
    let storage = (&raw const counted).cast_mut().cast();
    // SAFETY: as above.
    let known = unsafe { bpf_sk_storage_get(storage, socket.cast_mut().cast(), core::ptr::null_mut(), 0) };
    if !known.is_null() {
        return;
    }
    let client = settings.client(&remote);
    let Some(entry) = count::entry(&client) else { return };
    let mut value = Counted { client };
    // SAFETY: as above, and a value of the map's type.
    let marked = unsafe {
        bpf_sk_storage_get(
            storage,
            socket.cast_mut().cast(),
            (&raw mut value).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    };
    if marked.is_null() {
        return;
    }
    let mut flags = BPF_SOCK_OPS_STATE_CB_FLAG;
    // SAFETY: as above; the option takes four bytes.
    let heard = unsafe {
        bpf_setsockopt(
            socket.cast_mut().cast(),
            SOL_TCP,
            TCP_BPF_SOCK_OPS_CB_FLAGS,
            (&raw mut flags).cast(),
            size_of::<u32>() as i32,
        )
    };
    if heard != 0 {
        // Its end would go unheard (before Linux 6.12): a connection that is not counted beats a count that never falls.
        // SAFETY: as above.
        unsafe { bpf_sk_storage_delete(storage, socket.cast_mut().cast()) };
        return;
    }
    // SAFETY: looked up just now; no arguments.
    unsafe {
        atomic::add(&raw mut (*entry).active, 1);
        atomic::add(&raw mut (*entry).accepted, 1);
        (*entry).last_seen_ns = bpf_ktime_get_ns();
    }
}

/// # Safety
///
/// As [`adopt`].
#[inline(always)]
unsafe fn local(socket: *const SocketCommon) -> IpKey {
    // SAFETY: as above.
    unsafe { if (*socket).family == AF_INET { ipv4((*socket).local_ipv4) } else { ipv6((*socket).local_ipv6) } }
}

/// # Safety
///
/// As [`adopt`].
#[inline(always)]
unsafe fn remote(socket: *const SocketCommon) -> IpKey {
    // SAFETY: as above.
    unsafe { if (*socket).family == AF_INET { ipv4((*socket).remote_ipv4) } else { ipv6((*socket).remote_ipv6) } }
}
