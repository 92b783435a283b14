//! Imported lists as other hosts are told of them, and those that were removed.

use std::sync::PoisonError;

use super::{
    Gate,
    blocklists::{About, Imported, List, pack, unpack},
    import::{Replacement, check_name},
};
use crate::{
    access::blocklist::Addresses,
    config::is_reply_text,
    operate::exit::Failure,
    share::{Item, Key, Version, form},
};

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

    /// The list of this name, unless it is a file: those are this host's own.
    pub(super) fn shared(&self, name: &str) -> Option<&List> {
        self.lists.get(name).filter(|list| list.about.file.is_none())
    }

    /// When the list of this name was last imported or removed; none if it never was.
    pub(super) fn version(&self, name: &str) -> Option<Version> {
        let there = self.shared(name).map(|list| list.about.version);
        there.or_else(|| self.removed.get(name).copied())
    }
}

impl Gate {
    /// A list as other hosts are told of it.
    pub(super) fn list_item(&self, name: &str) -> Option<Item> {
        let imported = self.imported.read().unwrap_or_else(PoisonError::into_inner);
        match imported.shared(name) {
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
        let shared = imported.lists.iter().filter(|(_, list)| list.about.file.is_none()).map(|(name, _)| name);
        shared.chain(imported.removed.keys()).map(|name| Key::List(name.as_str().into())).collect()
    }

    /// Takes over a list of another host, or its removal. Returns whether this host knows something better.
    pub(super) fn learn_list(&self, name: &str, item: &Item) -> bool {
        let theirs = item.version();
        let ours = self.imported.read().unwrap_or_else(PoisonError::into_inner).version(name);
        if let Some(ours) = ours.filter(|ours| *ours >= theirs) {
            return ours > theirs;
        }
        match item.payload() {
            Some([]) => {
                if let Some(networks) = self.drop_list(name, theirs) {
                    self.log.info(format!("{name}: {networks} networks removed, by {}", item.host));
                }
            }
            payload => {
                let taken = payload.and_then(unpack).map(|(about, addresses)| self.take_list(name, about, addresses));
                let taken = taken.unwrap_or_else(|| Err(Failure::usage("it is not readable")));
                if let Err(failure) = taken {
                    self.log.warn(format!("{name}, of {}: not taken over: {}", item.host, failure.message));
                }
            }
        }
        false
    }

    fn take_list(&self, name: &str, mut about: About, addresses: Addresses) -> Result<(), Failure> {
        check_name(name)?;
        about.file = None;
        about.reply = about.reply.filter(|text| is_reply_text(text));
        let force = about.forced;
        self.replace_list(Replacement { name, addresses, about, force, dry_run: false }).map(drop)
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
                if imported.shared(name).is_none() {
                    imported.note_removed(name, Version(version));
                }
            }
            None => self.store.drop_entry(key),
        }
        true
    }
}
