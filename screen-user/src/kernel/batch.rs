//! Many entries into a map, or out of it, in few system calls.

use std::os::fd::AsFd as _;

use aya::{
    Pod,
    maps::{IterableMap, MapError},
};

use super::syscall;

/// Entries in one system call: enough that its cost is shared by many, few enough that nothing waits long for it.
pub(super) const ENTRIES: usize = 4_096;

/// Writes `entries`; what a batch leaves over goes in by `insert`, one by one, which also tells why it would not.
pub(super) fn insert<M: IterableMap<K, V>, K: Pod, V: Pod>(
    map: &mut M,
    entries: impl IntoIterator<Item = (K, V)>,
    mut insert: impl FnMut(&mut M, &K, &V) -> Result<(), MapError>,
) -> Result<(), MapError> {
    let mut entries = entries.into_iter();
    loop {
        let (keys, values): (Vec<K>, Vec<V>) = entries.by_ref().take(ENTRIES).unzip();
        if keys.is_empty() {
            return Ok(());
        }
        let done = if keys.len() > 1 { syscall::update_batch(map.map().fd().as_fd(), &keys, &values) } else { 0 };
        for (key, value) in keys.iter().zip(&values).skip(done) {
            insert(map, key, value)?;
        }
    }
}

/// Removes the entries of `keys`; what a batch leaves over goes by `remove`, one by one.
pub(super) fn remove<M: IterableMap<K, V>, K: Pod, V: Pod>(
    map: &mut M,
    keys: impl IntoIterator<Item = K>,
    mut remove: impl FnMut(&mut M, &K) -> Result<(), MapError>,
) -> Result<(), MapError> {
    let mut keys = keys.into_iter();
    loop {
        let some: Vec<K> = keys.by_ref().take(ENTRIES).collect();
        if some.is_empty() {
            return Ok(());
        }
        let done = if some.len() > 1 { syscall::delete_batch(map.map().fd().as_fd(), &some) } else { 0 };
        for key in some.iter().skip(done) {
            remove(map, key)?;
        }
    }
}
