//! The `sock_ops` program: counts the connections of every client.
//!
//! A mark in the socket's own storage pairs each addition with one subtraction, however the connection ends.

use aya_ebpf::{
    bindings::{
        BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock,
    },
    helpers::{bpf_get_netns_cookie, bpf_ktime_get_coarse_ns, bpf_sk_storage_delete, bpf_sk_storage_get},
    programs::SockOpsContext,
};
use screen_common::{
    abi::{Client, Counted, FIND_NONE, RelayKey, STEER_ALL, Settings},
    address::IpKey,
    reason::Reason,
};

use crate::{
    atomic, clients,
    context::{Ends, operation_ends},
    listen,
    lists::{self, Standing},
    maps::{self, counted, relay_clients},
    report::{self, Parties},
};

/// `TCP_CLOSE` of the kernel's `tcp_states.h`.
const TCP_CLOSE: u32 = 7;

/// Takes note of what happened to a socket.
#[inline(always)]
pub(crate) fn observe(ctx: &SockOpsContext) {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_LISTEN_CB => {
            if let Some(socket) = socket(ctx) {
                listen::listens(ctx, socket);
            }
        }
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => established(ctx),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == TCP_CLOSE => closed(ctx),
        _ => {}
    }
}

#[inline(always)]
fn established(ctx: &SockOpsContext) {
    let Some(settings) = maps::settings() else { return };
    let ends = operation_ends(ctx.ops);
    if !settings.protects(ends.local_port) {
        return;
    }
    // SAFETY: the helper takes this program's context. The program runs for every namespace below its cgroup.
    if unsafe { bpf_get_netns_cookie(ctx.ops.cast()) } != settings.netns_cookie {
        return;
    }
    if relay_clients.get_ptr(RelayKey { address: ends.remote, port: u32::from(ends.remote_port) }).is_some() {
        // A walk of the next gate must not take it for a client's, when this gate's entry is gone and the connection is not.
        mark(ctx, Counted::RELAY);
        return;
    }
    if lists::is_proxy(settings, &ends.remote) {
        return;
    }
    let client = settings.client(&ends.remote);
    // SAFETY: no arguments.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    // Where it landed counts: without a server even a known-good client meets the screener.
    let landed = settings.find_servers == FIND_NONE || socket(ctx).is_some_and(listen::took);
    let steered = settings.steering >= STEER_ALL && landed && report_steered(settings, &ends, now_ns);
    let Some(entry) = entry(&client) else {
        // The client is let in all the same: no connection fails because a table is full.
        report::count(Reason::ClientsFull);
        return;
    };
    // In this order: a marked socket passes for a counted one.
    if !hear_of_end(ctx) || !mark(ctx, Counted { client }) {
        report::count(Reason::ClientsFull);
        return;
    }
    // SAFETY: looked up just now.
    unsafe {
        atomic::add(&raw mut (*entry).active, 1);
        atomic::add(&raw mut (*entry).accepted, 1);
        if steered {
            atomic::add(&raw mut (*entry).steered, 1);
        }
        (*entry).last_seen_ns = now_ns;
    }
    // After the connection has its place, so that the two together never dip under the truth.
    clients::proven(&client);
}

/// Reports a connection that went straight to the mail server; returns whether this one did.
#[inline(always)]
fn report_steered(settings: &Settings, ends: &Ends, now_ns: u64) -> bool {
    let reason = match lists::standing(settings, &ends.remote, now_ns) {
        Standing::Allowed => Reason::Allowed,
        Standing::Passed => Reason::PassOld,
        Standing::LetIn => Reason::LetIn,
        Standing::Stranger => return false,
    };
    let parties = Parties {
        client: &ends.remote,
        client_port: ends.remote_port,
        server: &ends.local,
        server_port: ends.local_port,
    };
    report::report(settings, reason, 0, &parties, now_ns);
    true
}

/// The client's entry, made if there is none.
#[inline(always)]
pub(crate) fn entry(client: &IpKey) -> Option<*mut Client> {
    if let Some(entry) = maps::clients.get_ptr_mut(client) {
        return Some(entry);
    }
    // Another processor may have been first, which is as good.
    let _: Result<(), i32> = maps::clients.insert(client, Client::default(), u64::from(BPF_NOEXIST));
    maps::clients.get_ptr_mut(client)
}

/// Marks the socket.
#[inline(always)]
fn mark(ctx: &SockOpsContext, mut value: Counted) -> bool {
    let Some(socket) = socket(ctx) else { return false };
    // SAFETY: the storage map, a socket that is not null, and a value of the map's type.
    let stored = unsafe {
        bpf_sk_storage_get(
            (&raw const counted).cast_mut().cast(),
            socket.cast(),
            (&raw mut value).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    };
    !stored.is_null()
}

#[inline(always)]
fn hear_of_end(ctx: &SockOpsContext) -> bool {
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    ctx.set_cb_flags(flags as i32).is_ok()
}

#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let Some(socket) = socket(ctx) else { return };
    let storage = (&raw const counted).cast_mut().cast();
    // SAFETY: the storage map and a socket that is not null; no value is made.
    let mark = unsafe { bpf_sk_storage_get(storage, socket.cast(), core::ptr::null_mut(), 0) }.cast::<Counted>();
    if mark.is_null() {
        return;
    }
    // SAFETY: not null, and the storage outlives this read.
    let client = unsafe { (*mark).client };
    // SAFETY: as above.
    if unsafe { bpf_sk_storage_delete(storage, socket.cast()) } != 0 {
        return;
    }
    if let Some(entry) = maps::clients.get_ptr_mut(client) {
        // SAFETY: looked up just now. Never below zero, even if the entry was removed and made anew in between.
        unsafe {
            atomic::take_one(&raw mut (*entry).active);
            (*entry).last_seen_ns = bpf_ktime_get_coarse_ns();
        }
    }
}

#[inline(always)]
fn socket(ctx: &SockOpsContext) -> Option<*mut bpf_sock> {
    // SAFETY: a field of the context.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if socket.is_null() { None } else { Some(socket) }
}
