//! The maps. Their statics carry the names that the user half and the operator know them by.
#![allow(non_upper_case_globals, reason = "a map's name is its static's name")]

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf, SkStorage, SockMap},
    macros::btf_map,
};
use screen_common::{
    abi::{
        ALLOW_ENTRIES, Bound, Bucket, CLASS_ROWS, CLIENT_ENTRIES, CORRECTION_ENTRIES, Client, Correction, Counted,
        DENY_HOST_ENTRIES, DENY_NET_ENTRIES, Deny, EVENT_RING_BYTES, Event, HALF_OPEN_ENTRIES, HalfOpen, Hung,
        MUTE_ENTRIES, NOTED_SLOTS, PASS_ENTRIES, PROXY_ENTRIES, Proxy, REFUSED_ENTRIES, RELAY_ENTRIES, Refused,
        RelayClient, RelayKey, SERVER_ENTRIES, ServerKey, Settings, SynKey, Total, TotalKey, UNPROVEN_ENTRIES, Until,
    },
    address::IpKey,
    cookie::{Keys, TEXTS},
    reason::Reason,
    reply::Text,
};

use crate::{inherited::Inherited, sockets::Sockets};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
const REASONS: usize = Reason::ALL.len();

#[btf_map]
pub(crate) static config: Array<Settings, 1> = Array::new();

#[btf_map]
pub(crate) static deny_class: Array<[u8; 256], CLASS_ROWS> = Array::new();

#[btf_map]
pub(crate) static classes: Array<Deny, 256> = Array::new();

// Allocated entry by entry: most gates hold far fewer.
#[btf_map]
pub(crate) static deny_host: HashMap<IpKey, Deny, DENY_HOST_ENTRIES, NO_PREALLOC> = HashMap::new();

#[btf_map]
pub(crate) static deny_net: LpmTrie<IpKey, Deny, DENY_NET_ENTRIES> = LpmTrie::new();

#[btf_map]
pub(crate) static allow: LpmTrie<IpKey, Until, ALLOW_ENTRIES> = LpmTrie::new();

#[btf_map]
pub(crate) static proxies: LpmTrie<IpKey, Proxy, PROXY_ENTRIES> = LpmTrie::new();

#[btf_map]
pub(crate) static pass: HashMap<IpKey, Until, PASS_ENTRIES, NO_PREALLOC> = HashMap::new();

// Never an LRU: an evicted entry would be a count that drifts.
#[btf_map]
pub(crate) static clients: HashMap<IpKey, Client, CLIENT_ENTRIES, NO_PREALLOC> = HashMap::new();

// SYNs make these entries, and a flood must not fill `clients`; what an LRU forgets here is an estimate.
#[btf_map]
pub(crate) static half_open: LruHashMap<IpKey, HalfOpen, HALF_OPEN_ENTRIES> = LruHashMap::new();

#[btf_map]
pub(crate) static unproven: LruHashMap<SynKey, u64, UNPROVEN_ENTRIES> = LruHashMap::new();

#[btf_map]
pub(crate) static refused: LruHashMap<IpKey, Refused, REFUSED_ENTRIES> = LruHashMap::new();

// A hash although the reasons are few: only a hash's key prints by name.
#[btf_map]
pub(crate) static totals: PerCpuHashMap<TotalKey, Total, REASONS> = PerCpuHashMap::new();

#[btf_map]
pub(crate) static buckets: PerCpuArray<Bucket, REASONS> = PerCpuArray::new();

#[btf_map]
pub(crate) static noted: PerCpuArray<u64, NOTED_SLOTS> = PerCpuArray::new();

#[btf_map]
pub(crate) static events: RingBuf<Event, EVENT_RING_BYTES> = RingBuf::new();

// Not pinned: whoever knows the keys can make cookies.
#[btf_map]
pub(crate) static cookie_keys: Array<Keys, 1> = Array::new();

#[btf_map]
pub(crate) static replies: Array<Text, TEXTS> = Array::new();

// Interfaces that nothing can be sent back over.
#[btf_map]
pub(crate) static mute: HashMap<u32, u32, MUTE_ENTRIES> = HashMap::new();

#[btf_map]
pub(crate) static relay_clients: HashMap<RelayKey, RelayClient, RELAY_ENTRIES, NO_PREALLOC> = HashMap::new();

#[btf_map]
pub(crate) static listeners: SockMap<2> = SockMap::new();

#[btf_map]
pub(crate) static servers: Sockets<ServerKey, SERVER_ENTRIES> = Sockets::new();

#[btf_map]
pub(crate) static hung: HashMap<ServerKey, Hung, SERVER_ENTRIES, NO_PREALLOC> = HashMap::new();

#[btf_map]
pub(crate) static bound: SkStorage<Bound> = SkStorage::new();

#[btf_map]
pub(crate) static of_server: Inherited<u32> = Inherited::new();

#[btf_map]
pub(crate) static counted: SkStorage<Counted> = SkStorage::new();

#[btf_map]
pub(crate) static corrections: Array<Correction, CORRECTION_ENTRIES> = Array::new();

/// The settings; none before the user half has written them, and then nothing is decided.
#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    config.get(0).filter(|settings| settings.abi == screen_common::ABI)
}
