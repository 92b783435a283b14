//! What the network stack knows of a connection.

use core::{ffi::c_void, mem::size_of};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1},
    bindings::{bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2},
    helpers::{bpf_sk_release, bpf_skc_lookup_tcp},
};
use screen_common::{address::IpKey, cookie::Path};

use crate::context::socket_state;

const TCP_TIME_WAIT: u32 = 6;
const TCP_LISTEN: u32 = 10;
/// The namespace of the interface.
const BPF_F_CURRENT_NETNS: u64 = u64::MAX;

/// Whether the stack has a connection with these ends, made or in the making.
#[inline(never)]
pub(crate) fn is_connected(ctx: *mut c_void, path: &Path) -> bool {
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
        unsafe { bpf_skc_lookup_tcp(ctx.cast(), &raw mut tuple, size as u32, BPF_F_CURRENT_NETNS, 0) };
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
