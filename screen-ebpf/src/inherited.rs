//! Socket storage that a listener hands down to the connections that it takes: aya's has no flag for it.

use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE};

const FLAGS: usize = (BPF_F_CLONE | BPF_F_NO_PREALLOC) as usize;

/// The definition of such a map, as the loader reads it from the type's BTF: numbers are lengths of arrays.
#[repr(C)]
pub(crate) struct Inherited<T> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; FLAGS],
}

// SAFETY: the pointers are never followed; they carry types.
unsafe impl<T> Sync for Inherited<T> {}

impl<T> Inherited<T> {
    pub(crate) const fn new() -> Self {
        use core::ptr::null;
        Self { r#type: null(), key: null(), value: null(), max_entries: null(), map_flags: null() }
    }
}
