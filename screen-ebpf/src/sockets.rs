//! A hash of sockets that user space can tell apart: aya's has values of four bytes, and the kernel shows a socket's cookie in eight.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_map_type::BPF_MAP_TYPE_SOCKHASH, bpf_sock_ops},
    helpers::{bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release, bpf_sock_hash_update},
    programs::SkLookupContext,
};

/// The definition of such a map, as the loader reads it from the type's BTF: numbers are lengths of arrays.
#[repr(C)]
pub(crate) struct Sockets<K, const ENTRIES: usize> {
    r#type: *const [i32; BPF_MAP_TYPE_SOCKHASH as usize],
    key: *const K,
    value: *const u64,
    max_entries: *const [i32; ENTRIES],
}

// SAFETY: the pointers are never followed; they carry types.
unsafe impl<K, const ENTRIES: usize> Sync for Sockets<K, ENTRIES> {}

impl<K, const ENTRIES: usize> Sockets<K, ENTRIES> {
    pub(crate) const fn new() -> Self {
        use core::ptr::null;
        Self { r#type: null(), key: null(), value: null(), max_entries: null() }
    }

    /// Puts the socket of a socket operation in; returns whether it is in.
    #[inline(always)]
    pub(crate) fn insert(&self, mut key: K, operation: *mut bpf_sock_ops, flags: u64) -> bool {
        // SAFETY: the program's context, this map and a key of its type.
        unsafe {
            bpf_sock_hash_update(operation, (&raw const *self).cast_mut().cast(), (&raw mut key).cast(), flags) == 0
        }
    }

    /// Gives a look-up to the socket at `key`; returns whether there is one that takes it.
    #[inline(always)]
    pub(crate) fn assign(&self, ctx: &SkLookupContext, key: &K, flags: u64) -> bool {
        // SAFETY: this map and a key of its type. A socket that was found is held until it is released.
        unsafe {
            let socket = bpf_map_lookup_elem((&raw const *self).cast_mut().cast(), (&raw const *key).cast());
            if socket.is_null() {
                return false;
            }
            let assigned = bpf_sk_assign(ctx.as_ptr().cast(), socket, flags);
            bpf_sk_release(socket);
            assigned == 0
        }
    }
}
