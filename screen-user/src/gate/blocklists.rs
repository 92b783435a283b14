//! Imported block lists: held here, in the kernel and in the store, each replaced whole or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Gate, from_now, harm, shared_lists::removed_key, unix_now};
use crate::{
    access::blocklist::Addresses,
    config::{REPLY_TEXT, is_reply_text},
    kernel::{Expiry, KernelError, ListId},
    operate::{
        exit::{Failure, chain},
        request::Import,
    },
    share::{HostId, Key, Version},
};

/// The most lists.
const MOST_LISTS: usize = 256;
/// How keys of lists begin in the store.
const STORE_PREFIX: &str = "list ";

/// The lists, by name.
#[derive(Debug, Default)]
pub(super) struct Imported {
    pub(super) lists: BTreeMap<String, List>,
    /// Lists that were removed, and when, so that nobody brings them back who has not heard of it.
    pub(super) removed: BTreeMap<String, Version>,
    /// Held by the one who changes lists, until the kernel agrees: sessions ask the lists meanwhile.
    turn: Arc<Mutex<()>>,
}

#[derive(Debug, Clone)]
pub(super) struct List {
    id: ListId,
    pub(super) addresses: Arc<Addresses>,
    networks: usize,
    pub(super) about: About,
}

/// What the store keeps of a list before its addresses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct About {
    /// Unix seconds; without it, until it is removed.
    pub(super) until: Option<u64>,
    /// When it was imported, Unix seconds.
    imported: u64,
    /// Which of two lists of a name is the later one.
    #[serde(default)]
    pub(super) version: Version,
    /// Where it was imported; empty if nobody knows.
    #[serde(default)]
    pub(super) host: String,
    /// It was imported whatever it denies.
    #[serde(default)]
    pub(super) forced: bool,
    /// What its clients are told behind the code 521.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply: Option<String>,
}

impl List {
    fn holds_at(&self, now: u64) -> bool {
        self.about.until.is_none_or(|until| until > now)
    }
}

impl Imported {
    /// The first list, by name, that holds `address` now.
    pub(super) fn denying(&self, address: IpAddr, now: u64) -> Option<&str> {
        self.lists
            .iter()
            .find(|(_, list)| list.holds_at(now) && list.addresses.contains(address))
            .map(|(name, _)| name.as_str())
    }

    /// The list that the kernel knows by this number.
    pub(super) fn name(&self, id: ListId) -> Option<&str> {
        self.lists.iter().find(|(_, list)| list.id == id).map(|(name, _)| name.as_str())
    }

    fn id_for(&self, name: &str) -> Result<ListId, Failure> {
        if let Some(list) = self.lists.get(name) {
            return Ok(list.id);
        }
        let taken: BTreeSet<u32> = self.lists.values().map(|list| list.id.0).collect();
        (ListId::IMPORTED.0..)
            .take(MOST_LISTS)
            .find(|id| !taken.contains(id))
            .map(ListId)
            .ok_or_else(|| Failure::unavailable(format!("there are {MOST_LISTS} imported lists already")))
    }
}

impl Gate {
    /// Replaces a list whole, or leaves everything as it was.
    pub(super) fn import_list(&self, import: &Import) -> Result<Value, Failure> {
        let name = import.name.as_str();
        check_name(name)?;
        let addresses = Addresses::from_bytes(&import.addresses)
            .ok_or_else(|| Failure::usage("the addresses are not in the form that the import sends"))?;
        if import.reply.as_ref().is_some_and(|text| !is_reply_text(text)) {
            return Err(Failure::usage(format!("the reply can't be sent: {REPLY_TEXT}")));
        }
        if let (false, Some(harm)) = (import.force, harm::of(&self.config.load(), &addresses)) {
            return Err(Failure::usage(format!("{name}: not imported: it {harm}; --force imports it all the same")));
        }
        let turn = self.turn();
        let _turn = hold(&turn);
        let (id, before) = {
            let lists = self.imported.read().unwrap_or_else(PoisonError::into_inner);
            (lists.id_for(name)?, lists.lists.get(name).cloned())
        };
        let networks: BTreeSet<IpNet> = addresses.networks().collect();
        let (added, removed) = match &before {
            Some(before) => {
                let kept = before.addresses.networks().filter(|net| networks.contains(net)).count();
                (networks.len() - kept, before.networks - kept)
            }
            None => (networks.len(), 0),
        };
        let said = format!("{name}: {} networks, {added} new, {removed} gone", networks.len());
        if import.dry_run {
            return Ok(json!([format!("{said}; nothing was changed")]));
        }
        let now = unix_now();
        let about = About {
            until: import.seconds.map(|seconds| now.saturating_add(seconds)),
            imported: now,
            reply: import.reply.clone(),
            version: self.next_version(),
            host: self.hosts.name(HostId::THIS).to_string(),
            forced: import.force,
        };
        let list = List { id, networks: networks.len(), addresses: Arc::new(addresses), about };
        self.put_list(name, list, networks)?;
        self.tell(Key::List(name.into()));
        self.log.info(said.as_str());
        Ok(json!([said]))
    }

    /// Puts a list in the place of the one of this name, everywhere.
    fn put_list(&self, name: &str, list: List, networks: impl IntoIterator<Item = IpNet>) -> Result<(), Failure> {
        let failed = |error: KernelError| Failure::unavailable(format!("{name}: not imported: {}", chain(&error)));
        // The text first: who is denied from now on hears it.
        self.feed_reply_text(list.id, name, list.about.reply.as_deref()).map_err(failed)?;
        if let Some(kernel) = &self.kernel {
            let expires = Expiry::after_or_never(list.about.until.map(from_now));
            let replaced = kernel.replace_denied(list.id, networks.into_iter().map(|net| (net, expires)));
            if replaced.is_err() {
                let lists = self.imported.read().unwrap_or_else(PoisonError::into_inner);
                let former = lists.lists.get(name).and_then(|list| list.about.reply.clone());
                drop(lists);
                let restored = self.feed_reply_text(list.id, name, former.as_deref());
                self.fed_or_said(&format!("the reply text of {name}"), restored);
            }
            replaced.map_err(failed)?;
        }
        self.keep_list(name, &list);
        self.store.drop_entry(&removed_key(name));
        let mut imported = self.imported.write().unwrap_or_else(PoisonError::into_inner);
        imported.removed.remove(name);
        imported.lists.insert(name.to_owned(), list);
        Ok(())
    }

    /// Puts a list of another host in the place of an earlier one. The caller holds the turn.
    ///
    /// # Errors
    /// It would do harm here, or there is no room for it.
    pub(super) fn take_list(&self, name: &str, addresses: Addresses, mut about: About) -> Result<(), Failure> {
        check_name(name)?;
        if let (false, Some(harm)) = (about.forced, harm::of(&self.config.load(), &addresses)) {
            return Err(Failure::usage(format!("not taken over: it {harm}")));
        }
        about.reply = about.reply.filter(|text| is_reply_text(text));
        let id = self.imported.read().unwrap_or_else(PoisonError::into_inner).id_for(name)?;
        let networks: Vec<IpNet> = addresses.networks().collect();
        let list = List { id, networks: networks.len(), addresses: Arc::new(addresses), about };
        self.put_list(name, list, networks)
    }

    /// Removes a list.
    pub(super) fn remove_list(&self, name: &str) -> Result<Value, Failure> {
        let turn = self.turn();
        let _turn = hold(&turn);
        let removed = self.drop_list(name, self.next_version()).ok_or_else(|| no_list(name))?;
        self.tell(Key::List(name.into()));
        Ok(json!([format!("{name}: {removed} networks removed")]))
    }

    /// Removes a list that was removed at `version`, and returns how many networks it had. The caller holds the turn.
    pub(super) fn drop_list(&self, name: &str, version: Version) -> Option<usize> {
        let list = {
            let mut imported = self.imported.write().unwrap_or_else(PoisonError::into_inner);
            imported.note_removed(name, version);
            imported.lists.remove(name)
        };
        self.keep_removed(name, version);
        let list = list?;
        self.let_go(name, &list);
        Some(list.networks)
    }

    /// Every list, without its addresses.
    pub(super) fn blocklists(&self) -> Value {
        let now = unix_now();
        let lists = self.imported.read().unwrap_or_else(PoisonError::into_inner);
        let row = |(name, list): (&String, &List)| {
            json!({
                "list": name,
                "networks": list.networks,
                "imported": list.about.imported,
                "reply": list.about.reply,
                "seconds_left": list.about.until.map(|until| until.saturating_sub(now)),
            })
        };
        lists.lists.iter().map(row).collect()
    }

    /// The networks of a list.
    pub(super) fn export_list(&self, name: &str) -> Result<Value, Failure> {
        let lists = self.imported.read().unwrap_or_else(PoisonError::into_inner);
        let list = lists.lists.get(name).ok_or_else(|| no_list(name))?;
        let addresses = Arc::clone(&list.addresses);
        drop(lists);
        Ok(addresses.networks().map(|net| json!(net)).collect())
    }

    /// Takes up what the store kept, if it is a list; returns whether it was.
    pub(super) fn restore_list(&self, key: &str, kept: &[u8]) -> bool {
        if self.restore_removed(key, kept) {
            return true;
        }
        let Some(name) = key.strip_prefix(STORE_PREFIX) else { return false };
        let Some((about, addresses)) = unpack(kept) else {
            self.log.warn(format!("the imported list {name} is not readable and is left out: import it again"));
            self.store.drop_entry(key);
            return true;
        };
        let mut lists = self.imported.write().unwrap_or_else(PoisonError::into_inner);
        match lists.id_for(name) {
            Ok(id) => {
                let networks = addresses.networks().count();
                lists.lists.insert(name.to_owned(), List { id, addresses: Arc::new(addresses), networks, about });
            }
            Err(failure) => self.log.warn(format!("{name}: {}", failure.message)),
        }
        true
    }

    /// Tells the kernel every list.
    pub(super) fn feed_lists(&self) {
        let Some(kernel) = &self.kernel else { return };
        let now = unix_now();
        let turn = self.turn();
        let _turn = hold(&turn);
        let lists = self.imported.read().unwrap_or_else(PoisonError::into_inner).lists.clone();
        for (name, list) in lists.iter().filter(|(_, list)| list.holds_at(now)) {
            let text = self.feed_reply_text(list.id, name, list.about.reply.as_deref());
            self.fed_or_said(&format!("the reply text of {name}"), text);
            let expires = Expiry::after_or_never(list.about.until.map(from_now));
            let fed = kernel.replace_denied(list.id, list.addresses.networks().map(|net| (net, expires)));
            self.fed_or_said(&format!("the imported list {name}"), fed);
        }
    }

    /// Takes out lists whose time is over.
    pub(super) fn expire_lists(&self) {
        let now = unix_now();
        let any = |imported: &Imported| imported.lists.values().any(|list| !list.holds_at(now));
        if !any(&self.imported.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let turn = self.turn();
        let _turn = hold(&turn);
        let expired: Vec<(String, List)> = {
            let mut lists = self.imported.write().unwrap_or_else(PoisonError::into_inner);
            lists.lists.extract_if(.., |_, list| !list.holds_at(now)).collect()
        };
        for (name, list) in expired {
            self.let_go(&name, &list);
            self.log.info(format!("{name}: expired, {} networks removed", list.networks));
        }
    }

    pub(super) fn turn(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.imported.read().unwrap_or_else(PoisonError::into_inner).turn)
    }

    fn keep_list(&self, name: &str, list: &List) {
        match pack(list) {
            Ok(kept) => self.store.keep_entry(&format!("{STORE_PREFIX}{name}"), kept),
            Err(error) => self.log.warn(format!("{name}: this list ends with the gate: {error}")),
        }
    }

    fn let_go(&self, name: &str, list: &List) {
        self.store.drop_entry(&format!("{STORE_PREFIX}{name}"));
        if let Some(kernel) = &self.kernel {
            let gone = kernel.replace_denied(list.id, []).and_then(|()| kernel.unset_reply(list.id));
            self.fed_or_said(&format!("the imported list {name}"), gone);
        }
    }
}

pub(super) fn hold(turn: &Mutex<()>) -> MutexGuard<'_, ()> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A list as bytes: what is known of it as a line of JSON, then its addresses.
pub(super) fn pack(list: &List) -> serde_json::Result<Vec<u8>> {
    let mut packed = serde_json::to_vec(&list.about)?;
    packed.push(b'\n');
    packed.extend(list.addresses.to_bytes());
    Ok(packed)
}

/// What [`pack`] made.
pub(super) fn unpack(kept: &[u8]) -> Option<(About, Addresses)> {
    let end = kept.iter().position(|byte| *byte == b'\n')?;
    let (about, addresses) = kept.split_at_checked(end)?;
    Some((serde_json::from_slice(about).ok()?, Addresses::from_bytes(addresses.get(1..)?)?))
}

fn no_list(name: &str) -> Failure {
    Failure::usage(format!("there is no imported list {name:?}; `mxscreen blocklist list` shows those there are"))
}

/// Names are shown in logs and tables and kept as keys.
fn check_name(name: &str) -> Result<(), Failure> {
    let fits = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if fits {
        Ok(())
    } else {
        Err(Failure::usage(format!("{name:?} is no name for a list: 1 to 64 letters, digits, \".\", \"_\" and \"-\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_lists_are_plain_words() {
        for good in ["drop", "DROP-v6", "crowdsec.ban_1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_the_store_keeps_is_read_again_and_nothing_else() {
        let about = About {
            until: Some(7),
            imported: 3,
            reply: Some("5.7.1 Listed".into()),
            version: Version(5),
            host: "mx1".to_owned(),
            forced: false,
        };
        let addresses: Addresses = ["192.0.2.0/24".parse::<IpNet>().unwrap()].into_iter().collect();
        let mut kept = serde_json::to_vec(&about).unwrap();
        kept.push(b'\n');
        kept.extend(addresses.to_bytes());
        let (read, same) = unpack(&kept).unwrap();
        assert_eq!((read.until, read.imported, read.version, same), (Some(7), 3, Version(5), addresses.clone()));
        assert_eq!(read.reply.as_deref(), Some("5.7.1 Listed"));
        for end in 0..kept.len() {
            assert!(unpack(&kept[..end]).is_none(), "{end}");
        }
        // As it was kept before lists had replies and versions.
        let former = [b"{\"until\":null,\"imported\":3}\n", addresses.to_bytes().as_slice()].concat();
        let former = unpack(&former).unwrap().0;
        assert_eq!((former.reply, former.version), (None, Version::NONE));
    }
}
