//! What is remembered of clients and networks, in RAM, bounded.

use std::collections::HashMap;

use super::record::Client;

/// Most records that are kept unless told otherwise: what two tables of 2^20 places take before they grow, some 240 MB.
pub const DEFAULT_CAPACITY: usize = 2 * (1 << 20) / 8 * 7;

/// Records in two generations. A record that is written or asked for is young; when half of the room is young, the old half is given
/// up and the young half becomes the old one. So room is made in constant time, and what goes has not been asked for in a long while.
#[derive(Debug)]
pub(super) struct Records<T> {
    young: HashMap<Client, T>,
    old: HashMap<Client, T>,
    capacity: usize,
}

impl<T: Copy> Records<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), capacity: capacity.max(2) }
    }

    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity.max(2);
    }

    /// Makes room for so many that are to come: a table that grows holds everybody up.
    pub(super) fn reserve(&mut self, records: usize) {
        self.young.reserve(records.min(self.capacity / 2).saturating_sub(self.young.len()));
    }

    pub(super) fn get(&self, client: Client) -> Option<T> {
        self.young.get(&client).or_else(|| self.old.get(&client)).copied()
    }

    /// As [`Records::get`], and keeps the record from being given up soon.
    pub(super) fn refresh(&mut self, client: Client) -> Option<T> {
        if let Some(record) = self.old.remove(&client) {
            self.insert(client, record);
            return Some(record);
        }
        self.young.get(&client).copied()
    }

    pub(super) fn remove(&mut self, client: Client) {
        self.old.remove(&client);
        self.young.remove(&client);
    }

    pub(super) fn insert(&mut self, client: Client, record: T) {
        self.old.remove(&client);
        self.young.insert(client, record);
        if self.young.len() >= self.capacity / 2 {
            self.old = std::mem::take(&mut self.young);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Client, T)> {
        self.young.iter().chain(&self.old).map(|(&client, &record)| (client, record))
    }

    /// Takes out every record that `keep` does not want, and returns whose they were.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(Client, &T) -> bool) -> Vec<Client> {
        self.retain_mut(|client, record| keep(client, record))
    }

    /// As [`Records::retain`], for a `keep` that changes what it keeps.
    pub(super) fn retain_mut(&mut self, mut keep: impl FnMut(Client, &mut T) -> bool) -> Vec<Client> {
        let mut dropped = Vec::new();
        for generation in [&mut self.young, &mut self.old] {
            generation.retain(|&client, record| {
                let kept = keep(client, record);
                if !kept {
                    dropped.push(client);
                }
                kept
            });
        }
        dropped
    }
}
