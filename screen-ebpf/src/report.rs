//! Counters and events.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ringbuf_query,
};
use screen_common::{
    abi::{EVENT_RING_BYTES, Event, NOTED_SLOTS, Refused, Settings, TotalKey},
    address::IpKey,
    reason::Reason,
};

use crate::{
    atomic,
    maps::{buckets, events, noted, refused, totals},
};

/// One more packet, look-up or connection for `reason`.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    if let Some(total) = totals.get_ptr_mut(TotalKey { reason }) {
        // SAFETY: a value of this processor's own, looked up just now.
        unsafe { (*total).packets += 1 };
    }
}

/// Whom an event is about.
pub(crate) struct Parties<'a> {
    pub(crate) client: &'a IpKey,
    pub(crate) client_port: u16,
    pub(crate) server: &'a IpKey,
    pub(crate) server_port: u16,
}

/// Counts for `reason` and sends an event, if the rate allows it; returns whether it does.
#[inline(always)]
pub(crate) fn report(settings: &Settings, reason: Reason, list: u32, parties: &Parties<'_>, now_ns: u64) -> bool {
    let Some(total) = totals.get_ptr_mut(TotalKey { reason }) else { return false };
    let Some(bucket) = buckets.get_ptr_mut(reason as u32) else { return false };
    // SAFETY: values of this processor's own, looked up just now.
    let (total, bucket) = unsafe { (&mut *total, &mut *bucket) };
    total.packets += 1;
    let Some(suppressed) = bucket.take(now_ns, settings.event_rate) else {
        total.suppressed += 1;
        return false;
    };
    let Some(mut entry) = events.reserve(0) else {
        // A full ring: the reader is behind. What was left out before goes on waiting for the next event.
        bucket.suppressed += u64::from(suppressed) + 1;
        total.suppressed += 1;
        return true;
    };
    entry.write(Event {
        time_ns: now_ns,
        reason: reason as u32,
        list,
        suppressed,
        client_port: parties.client_port,
        server_port: parties.server_port,
        client: *parties.client,
        server: *parties.server,
    });
    total.events += 1;
    // The reader polls; it is woken only when the ring fills faster than that.
    // SAFETY: the map is a ring buffer.
    let waiting = unsafe { bpf_ringbuf_query((&raw const events).cast_mut().cast(), u64::from(BPF_RB_AVAIL_DATA)) };
    let flags = if waiting > EVENT_RING_BYTES as u64 / 4 { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    entry.submit(u64::from(flags));
    true
}

/// Notes that a SYN of `address` was turned away: by `list`, or at the limit. A source gets its entry when a SYN of it `made` an event, and
/// others are looked up only where they are likely to have one: in a flood from ever new sources a look at that table costs as much as all
/// that led to the verdict, and entries for all would push everybody else's out.
#[inline(always)]
pub(crate) fn note_refused(address: &IpKey, list: Option<u32>, now_ns: u64, made: bool) {
    let digest = address.digest();
    let Some(slot) = noted.get_ptr_mut(digest as u32 % NOTED_SLOTS as u32) else { return };
    // SAFETY: a value of this processor's own, looked up just now.
    let slot = unsafe { &mut *slot };
    if made {
        *slot = digest;
    } else if *slot != digest {
        return;
    }
    if let Some(entry) = refused.get_ptr_mut(address) {
        // SAFETY: looked up just now; counters are added to atomically, the rest may be the last writer's.
        unsafe {
            match list {
                Some(list) => {
                    atomic::add(&raw mut (*entry).denied, 1);
                    (*entry).list = list;
                }
                None => atomic::add(&raw mut (*entry).limited, 1),
            }
            (*entry).last_seen_ns = now_ns;
        }
        return;
    }
    if !made {
        return;
    }
    let fresh = Refused {
        denied: u64::from(list.is_some()),
        limited: u64::from(list.is_none()),
        last_seen_ns: now_ns,
        list: list.unwrap_or(0),
        reserved: 0,
    };
    // An LRU makes room; a failure under contention loses a line of statistics.
    let _: Result<(), i32> = refused.insert(address, fresh, 0);
}
