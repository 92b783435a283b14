//! Imported lists as other hosts are told of them, and those that were removed.

use std::sync::PoisonError;

use super::{
    Gate,
    blocklists::{Imported, hold, pack, unpack},
};
use crate::share::{Item, Key, Version, form};

/// Most removed lists that are remembered; beyond, those removed first go.
const MOST_REMOVED: usize = 1024;

/// How keys of removed lists begin in the store.
const STORED_REMOVED: &str = "removed list ";

/// The removal of a list in the store.
pub(super) fn removed_key(name: &str) -> String {
    format!("{STORED_REMOVED}{name}")
}

impl Imported {
    /// Notes that a list was removed.
    pub(super) fn note_removed(&mut self, name: &str, version: Version) {
        self.removed.insert(name.to_owned(), version);
        if self.removed.len() > MOST_REMOVED
            && let Some(oldest) = self.removed.iter().min_by_key(|(_, version)| **version).map(|(name, _)| name.clone())
        {
            self.removed.remove(&oldest);
        }
    }

    /// When the list of this name was last imported or removed; none if it never was.
    fn version(&self, name: &str) -> Option<Version> {
        let there = self.lists.get(name).map(|list| list.about.version);
        there.or_else(|| self.removed.get(name).copied())
    }
}

impl Gate {
    /// A list as other hosts are told of it.
    pub(super) fn list_item(&self, name: &str) -> Option<Item> {
        let imported = self.imported.read().unwrap_or_else(PoisonError::into_inner);
        match imported.lists.get(name) {
            Some(list) => {
                let about = &list.about;
                Some(Item::of_one(&about.host, about.version, about.until.unwrap_or(0), pack(list).ok()?))
            }
            None => {
                let version = *imported.removed.get(name)?;
                Some(form::of_removed(version, &self.config.load().cache.host))
            }
        }
    }

    /// The lists that other hosts are told of.
    pub(super) fn list_keys(&self) -> Vec<Key> {
        let imported = self.imported.read().unwrap_or_else(PoisonError::into_inner);
        imported.lists.keys().chain(imported.removed.keys()).map(|name| Key::List(name.as_str().into())).collect()
    }

    /// Takes over a list of another host, or its removal. Returns whether this host knows something better.
    pub(super) fn learn_list(&self, name: &str, item: &Item) -> bool {
        let turn = self.turn();
        let _turn = hold(&turn);
        let theirs = item.version();
        let ours = self.imported.read().unwrap_or_else(PoisonError::into_inner).version(name);
        if let Some(ours) = ours.filter(|ours| *ours >= theirs) {
            return ours > theirs;
        }
        let done = match item.payload() {
            Some([]) => {
                let gone = self.drop_list(name, theirs);
                gone.map(|networks| format!("{networks} networks removed"))
            }
            payload => match payload.and_then(unpack) {
                Some((about, addresses)) => match self.take_list(name, addresses, about) {
                    Ok(()) => Some("taken over".to_owned()),
                    Err(failure) => {
                        self.log.warn(format!("the imported list {name} of {}: {}", item.host, failure.message));
                        None
                    }
                },
                None => {
                    self.log.warn(format!("the imported list {name} of {} is not readable and is left out", item.host));
                    None
                }
            },
        };
        if let Some(done) = done {
            self.log.info(format!("{name}: {done} (by {})", item.host));
        }
        false
    }

    /// Keeps for the next start that a list was removed.
    pub(super) fn keep_removed(&self, name: &str, version: Version) {
        self.store.keep_entry(&removed_key(name), version.0.to_string().into_bytes());
    }

    /// Takes up what the store kept, if it is the removal of a list; returns whether it was.
    pub(super) fn restore_removed(&self, key: &str, kept: &[u8]) -> bool {
        let Some(name) = key.strip_prefix(STORED_REMOVED) else { return false };
        match str::from_utf8(kept).ok().and_then(|text| text.parse().ok()) {
            Some(version) => {
                let mut imported = self.imported.write().unwrap_or_else(PoisonError::into_inner);
                if !imported.lists.contains_key(name) {
                    imported.note_removed(name, Version(version));
                }
            }
            None => self.store.drop_entry(key),
        }
        true
    }
}
