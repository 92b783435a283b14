//! The limit on a client's connections.

use aya_ebpf::bindings::BPF_NOEXIST;
use screen_common::{
    abi::{HalfOpen, Settings, SynKey},
    address::IpKey,
    decide::{Admission, admission, pending, repeated},
    packet::Opening,
};

use crate::{
    atomic,
    maps::{clients, half_open, unproven},
};

/// Takes a place for a connection of `client`, or says why it gets none.
#[inline(always)]
pub(crate) fn admit(settings: &Settings, client: &IpKey, opening: &Opening, now_ns: u64) -> Admission {
    if settings.limit == 0 {
        return Admission::Admit;
    }
    let Some(entry) = half_open.get_ptr_mut(client) else {
        let verdict = admission(active(client, now_ns), 0, settings.limit, || false);
        if verdict == Admission::Admit {
            // If another processor was first, its entry stands and one SYN goes uncounted.
            let fresh = HalfOpen { pending: 1, last_syn_ns: now_ns };
            let _: Result<(), i32> = half_open.insert(client, fresh, u64::from(BPF_NOEXIST));
            show_pending(client, 1);
        }
        return verdict;
    };
    // SAFETY: looked up just now.
    let (waiting, place) = unsafe {
        let waiting = pending(&*entry, now_ns);
        if waiting == 0 {
            (*entry).pending = 0;
        }
        (waiting, &raw mut (*entry).pending)
    };
    let made = active(client, now_ns);
    let verdict = admission(made, waiting, settings.limit, || seen_before(opening, now_ns));
    if verdict != Admission::Admit {
        return verdict;
    }
    let before = atomic::fetch_add(place, 1);
    // Another processor may have taken the last place since it was looked at.
    if made + before >= u64::from(settings.limit) {
        atomic::add(place, u64::MAX);
        return Admission::Limited;
    }
    // SAFETY: as above.
    unsafe { (*entry).last_syn_ns = now_ns };
    show_pending(client, before + 1);
    Admission::Admit
}

/// A connection of `client` was made: its place is no longer that of a SYN.
#[inline(always)]
pub(crate) fn proven(client: &IpKey) {
    if let Some(entry) = half_open.get_ptr_mut(client) {
        // SAFETY: looked up just now.
        unsafe {
            atomic::take_one(&raw mut (*entry).pending);
            let left = (*entry).pending;
            show_pending(client, if left > i64::MAX as u64 { 0 } else { left });
        }
    }
}

/// One more SYN turned away at the limit.
#[inline(always)]
pub(crate) fn note_limited(client: &IpKey) {
    if let Some(entry) = clients.get_ptr_mut(client) {
        // SAFETY: looked up just now.
        unsafe { atomic::add(&raw mut (*entry).limited, 1) };
    }
}

/// Established connections of `client`, which is also seen now.
#[inline(always)]
fn active(client: &IpKey, now_ns: u64) -> u64 {
    clients.get_ptr_mut(client).map_or(0, |entry| {
        // SAFETY: looked up just now.
        unsafe {
            (*entry).last_seen_ns = now_ns;
            (*entry).active
        }
    })
}

/// Copies the estimate to where the operator reads it.
#[inline(always)]
fn show_pending(client: &IpKey, waiting: u64) {
    if let Some(entry) = clients.get_ptr_mut(client) {
        // SAFETY: looked up just now.
        unsafe { (*entry).pending = waiting };
    }
}

/// Whether this very SYN was told before to come again; if it is new, remembers it.
#[inline(always)]
fn seen_before(opening: &Opening, now_ns: u64) -> bool {
    let key = SynKey {
        address: opening.source,
        sequence: opening.sequence,
        source_port: opening.source_port,
        destination_port: opening.destination_port,
    };
    // SAFETY: a value of eight bytes.
    if let Some(first) = unsafe { unproven.get(key) } {
        return repeated(*first, now_ns);
    }
    // A failure under contention makes the client repeat once more.
    let _: Result<(), i32> = unproven.insert(key, now_ns, 0);
    false
}
