//! Imports: a list takes the place of the one of its name, whole, or everything stays as it was.

use std::{
    cmp::Ordering,
    sync::{Arc, PoisonError},
};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    Gate,
    blocklists::{About, List, hold},
    harm,
    shared_lists::removed_key,
    unix_now,
};
use crate::{
    access::blocklist::Addresses,
    config::{REPLY_TEXT, is_reply_text},
    kernel::KernelError,
    operate::{
        exit::{Failure, chain},
        request::Import,
    },
    share::{HostId, Key},
};

/// A list that is to take the place of the one of its name.
#[derive(Debug)]
pub(super) struct Replacement<'a> {
    pub(super) name: &'a str,
    pub(super) addresses: Addresses,
    pub(super) about: About,
    /// Although it does harm.
    pub(super) force: bool,
    /// Only say what would change.
    pub(super) dry_run: bool,
}

impl Gate {
    /// Carries out what an operator wants imported.
    pub(super) fn import_list(&self, import: &Import) -> Result<Value, Failure> {
        let name = import.name.as_str();
        check_name(name)?;
        let addresses = Addresses::from_bytes(&import.addresses)
            .ok_or_else(|| Failure::usage("the addresses are not in the form that the import sends"))?;
        if import.reply.as_ref().is_some_and(|text| !is_reply_text(text)) {
            return Err(Failure::usage(format!("the reply can't be sent: {REPLY_TEXT}")));
        }
        let now = unix_now();
        let about = About {
            until: import.seconds.map(|seconds| now.saturating_add(seconds)),
            imported: now,
            reply: import.reply.clone(),
            file: None,
            version: self.next_version(),
            host: self.hosts.name(HostId::THIS).to_string(),
            forced: import.force,
        };
        let Import { force, dry_run, .. } = *import;
        let said = self
            .replace_list(Replacement { name, addresses, about, force, dry_run })
            .map_err(|failure| Failure { message: format!("{name}: not imported: {}", failure.message), ..failure })?;
        if !dry_run {
            self.tell(Key::List(name.into()));
        }
        Ok(json!([said]))
    }

    /// Whether whoever wants to may have a list of this name: a file in the directory of lists, or an operator.
    pub(super) fn may_replace(&self, name: &str, is_file: bool) -> Result<(), Failure> {
        let lists = self.imported.read().unwrap_or_else(PoisonError::into_inner);
        match lists.lists.get(name).map(|list| &list.about.file) {
            Some(Some(from)) if !is_file => Err(Failure::usage(format!(
                "{name}: this list is the file {} in blocklists.directory: change or remove that",
                from.name
            ))),
            Some(None) if is_file => Err(Failure::usage(format!(
                "a list {name} was imported by hand: `mxscreen blocklist remove --list {name}` makes room for the file"
            ))),
            _ => Ok(()),
        }
    }

    /// Replaces a list whole, or leaves everything as it was. Returns what there is to say.
    pub(super) fn replace_list(&self, replacement: Replacement<'_>) -> Result<String, Failure> {
        let Replacement { name, addresses, about, force, dry_run } = replacement;
        if let (false, Some(harm)) = (force, harm::of(&self.config.load(), &addresses)) {
            return Err(Failure::usage(format!("it {harm}; `mxscreen blocklist import --force` does it all the same")));
        }
        let turn = self.turn();
        let _turn = hold(&turn);
        let is_file = about.file.is_some();
        self.may_replace(name, is_file)?;
        let (id, before) = {
            let lists = self.imported.read().unwrap_or_else(PoisonError::into_inner);
            if !is_file && lists.version(name).is_some_and(|known| known > about.version) {
                return Err(Failure::usage("a later one of this name is there by now"));
            }
            (lists.id_for(name)?, lists.lists.get(name).cloned())
        };
        let former = before.as_ref().map(|before| Arc::clone(&before.addresses)).unwrap_or_default();
        let Difference { kept, added, removed } = Difference::between(former.networks(), addresses.networks());
        let networks = kept + added;
        let said = format!("{name}: {networks} networks, {added} new, {removed} gone");
        if dry_run {
            return Ok(format!("{said}; nothing was changed"));
        }
        let list = List { id, networks, addresses: Arc::new(addresses), about };
        let failed = |error: KernelError| Failure::unavailable(chain(&error));
        // The text first: who is denied from now on hears it.
        self.feed_reply_text(id, name, list.about.reply.as_deref()).map_err(failed)?;
        if let Some(kernel) = &self.kernel {
            let expires = list.expires();
            let replaced = kernel.replace_denied(id, list.addresses.networks().map(|net| (net, expires)));
            if replaced.is_err() {
                let former = before.and_then(|list| list.about.reply);
                let text = self.feed_reply_text(id, name, former.as_deref());
                self.fed_or_said(&format!("the reply text of {name}"), text);
            }
            replaced.map_err(failed)?;
        }
        self.keep_list(name, &list);
        {
            let mut imported = self.imported.write().unwrap_or_else(PoisonError::into_inner);
            // That a list was removed everywhere counts on while a file has its name here.
            if !is_file {
                self.store.drop_entry(&removed_key(name));
                imported.removed.remove(name);
            }
            imported.lists.insert(name.to_owned(), list);
        }
        self.log.info(said.as_str());
        Ok(said)
    }
}

/// How many networks two lists have in common, and how many not.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    kept: usize,
    added: usize,
    removed: usize,
}

impl Difference {
    /// Both come in order.
    fn between(before: impl Iterator<Item = IpNet>, after: impl Iterator<Item = IpNet>) -> Self {
        let (mut before, mut after) = (before.peekable(), after.peekable());
        let mut difference = Self::default();
        loop {
            let order = match (before.peek(), after.peek()) {
                (Some(old), Some(new)) => old.cmp(new),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return difference,
            };
            match order {
                Ordering::Less => difference.removed += 1,
                Ordering::Equal => difference.kept += 1,
                Ordering::Greater => difference.added += 1,
            }
            if order.is_le() {
                before.next();
            }
            if order.is_ge() {
                after.next();
            }
        }
    }
}

/// Names are shown in logs and tables and kept as keys.
pub(super) fn check_name(name: &str) -> Result<(), Failure> {
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
    fn a_difference_counts_networks_of_both_families() {
        let list = |nets: &[&str]| nets.iter().map(|net| net.parse::<IpNet>().unwrap()).collect::<Addresses>();
        let before = list(&["192.0.2.0/24", "198.51.100.7/32", "2001:db8::/32"]);
        let after = list(&["192.0.2.0/25", "198.51.100.7/32", "203.0.113.0/24", "2001:db8::/32", "2001:db9::/48"]);
        let difference = Difference::between(before.networks(), after.networks());
        assert_eq!(difference, Difference { kept: 2, added: 3, removed: 1 });
        assert_eq!(
            Difference::between(after.networks(), before.networks()),
            Difference { kept: 2, added: 1, removed: 3 }
        );
    }
}
