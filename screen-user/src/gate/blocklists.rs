//! Imported block lists: held here, in the kernel and in the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Gate, from_now, unix_now};
use crate::{
    access::blocklist::Addresses,
    keeper::Stamp,
    kernel::{Expiry, ListId},
    operate::exit::Failure,
    share::{Key, Version},
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
    pub(super) id: ListId,
    pub(super) addresses: Arc<Addresses>,
    pub(super) networks: usize,
    pub(super) about: About,
}

/// What the store keeps of a list before its addresses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct About {
    /// Unix seconds; without it, until it is removed.
    pub(super) until: Option<u64>,
    /// When it was imported, Unix seconds.
    pub(super) imported: u64,
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
    pub(super) reply: Option<String>,
    /// The file that it comes from: of this host alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<FromFile>,
}

/// A file in the directory of lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FromFile {
    pub(super) name: String,
    pub(super) stamp: Stamp,
}

impl List {
    /// When its entries in the kernel's tables expire.
    pub(super) fn expires(&self) -> Expiry {
        Expiry::after_or_never(self.about.until.map(from_now))
    }

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

    pub(super) fn id_for(&self, name: &str) -> Result<ListId, Failure> {
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
    /// Removes a list that an operator has imported.
    pub(super) fn remove_list(&self, name: &str) -> Result<Value, Failure> {
        self.may_replace(name, false)?;
        let removed = self.drop_list(name, self.next_version()).ok_or_else(|| no_list(name))?;
        self.tell(Key::List(name.into()));
        // A file may have waited for this name.
        self.directory.look();
        Ok(json!([format!("{name}: {removed} networks removed")]))
    }

    /// Removes a list that was removed at `version`, unless it was imported later, and returns how many networks it had.
    pub(super) fn drop_list(&self, name: &str, version: Version) -> Option<usize> {
        let turn = self.turn();
        let _turn = hold(&turn);
        let list = {
            let mut imported = self.imported.write().unwrap_or_else(PoisonError::into_inner);
            if imported.version(name).is_some_and(|known| known > version) {
                return None;
            }
            imported.note_removed(name, version);
            // A file stays what it is, whatever is removed elsewhere.
            imported.shared(name).is_some().then(|| imported.lists.remove(name)).flatten()
        };
        self.keep_removed(name, version);
        let list = list?;
        self.let_go(name, &list);
        Some(list.networks)
    }

    /// The names of lists that come from files.
    pub(super) fn lists_of_files(&self) -> Vec<String> {
        let lists = self.imported.read().unwrap_or_else(PoisonError::into_inner);
        lists.lists.iter().filter(|(_, list)| list.about.file.is_some()).map(|(name, _)| name.clone()).collect()
    }

    /// Whether the list of this name is what this file says.
    pub(super) fn is_of(&self, name: &str, file: &FromFile) -> bool {
        let lists = self.imported.read().unwrap_or_else(PoisonError::into_inner);
        lists.lists.get(name).is_some_and(|list| list.about.file.as_ref() == Some(file))
    }

    /// Removes a list whose file is gone.
    pub(super) fn remove_list_of_file(&self, name: &str) {
        if let Some(list) = self.take_out(name) {
            self.log.info(format!("{name}: its file is gone, {} networks removed", list.networks));
        }
    }

    fn take_out(&self, name: &str) -> Option<List> {
        let turn = self.turn();
        let _turn = hold(&turn);
        let list = self.imported.write().unwrap_or_else(PoisonError::into_inner).lists.remove(name)?;
        self.let_go(name, &list);
        Some(list)
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
                "file": list.about.file.as_ref().map(|file| &file.name),
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
            let expires = list.expires();
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

    pub(super) fn keep_list(&self, name: &str, list: &List) {
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

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;

    #[test]
    fn what_the_store_keeps_is_read_again_and_nothing_else() {
        let about = About {
            until: Some(7),
            imported: 3,
            reply: Some("5.7.1 Listed".into()),
            file: None,
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
