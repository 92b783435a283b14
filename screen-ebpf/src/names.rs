//! The name hooks: the mail server sees a relayed connection as its client's.
//!
//! An entry is found by the relay's own address and port, which nobody else can hold while the relay does.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::bpf_get_netns_cookie,
    programs::SockAddrContext,
};
use screen_common::{
    abi::{RelayClient, RelayKey},
    address::IpKey,
};

use crate::{
    context::{name_ipv4, name_ipv6, name_is_tcp, rename_ipv4, rename_ipv6, socket_peer_ipv4, socket_peer_ipv6},
    maps::{self, relay_clients},
};

#[inline(always)]
pub(crate) fn peer_ipv4(ctx: &SockAddrContext) {
    if let Some(entry) = relayed(ctx, name_ipv4(ctx.sock_addr)) {
        rename_ipv4(ctx.sock_addr, &entry.client, entry.client_port);
    }
}

#[inline(always)]
pub(crate) fn peer_ipv6(ctx: &SockAddrContext) {
    if let Some(entry) = relayed(ctx, name_ipv6(ctx.sock_addr)) {
        rename_ipv6(ctx.sock_addr, &entry.client, entry.client_port);
    }
}

#[inline(always)]
pub(crate) fn own_ipv4(ctx: &SockAddrContext) {
    let Some(socket) = socket(ctx.sock_addr) else { return };
    if let Some(entry) = relayed(ctx, socket_peer_ipv4(socket)) {
        rename_ipv4(ctx.sock_addr, &entry.server, entry.server_port);
    }
}

#[inline(always)]
pub(crate) fn own_ipv6(ctx: &SockAddrContext) {
    let Some(socket) = socket(ctx.sock_addr) else { return };
    if let Some(entry) = relayed(ctx, socket_peer_ipv6(socket)) {
        rename_ipv6(ctx.sock_addr, &entry.server, entry.server_port);
    }
}

/// The entry of the relay's connection whose relay end is this one, in the gate's own namespace.
#[inline(always)]
fn relayed(ctx: &SockAddrContext, (address, port): (IpKey, u16)) -> Option<&'static RelayClient> {
    if !name_is_tcp(ctx.sock_addr) {
        return None;
    }
    // SAFETY: entries are written before the connection is made and removed after its end.
    let entry = unsafe { relay_clients.get(RelayKey { address, port: u32::from(port) }) }?;
    let settings = maps::settings()?;
    // SAFETY: the helper takes this program's context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
    if cookie == settings.netns_cookie { Some(entry) } else { None }
}

#[inline(always)]
fn socket(ctx: *mut bpf_sock_addr) -> Option<*mut bpf_sock> {
    // SAFETY: a field of the context.
    let socket = unsafe { (*ctx).__bindgen_anon_1.sk };
    if socket.is_null() { None } else { Some(socket) }
}
