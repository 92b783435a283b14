//! Keeps the kernel's tables saying what user space would say.
//!
//! The kernel keeps what each list says apart, so that taking one list's entry away never takes another's. Two lists are fed from
//! here: the access list, and the run-time entries by their origin. Its table of passes follows the records.

use std::{
    collections::BTreeSet,
    sync::{MutexGuard, PoisonError},
};

use ipnet::IpNet;

use super::{Gate, from_now, unix_now};
use crate::{
    access::runtime::{Entry, Kind, Origin},
    config::Steer,
    kernel::{DenyEntry, Expiry, KernelError, ListId, Plan},
    operate::exit::chain,
    screen::{
        found::Stood,
        policy::Action,
        record::{Client, Record},
    },
};

/// Records that are fed at once: few enough that nobody waits long for the screen or the table.
pub(super) const BATCH: usize = 1024;

/// What a list is called that is no longer there.
const GONE: &str = "a list that is gone";

/// The kernel's list for a run-time entry.
fn list_of(entry: &Entry) -> ListId {
    match entry.origin {
        Origin::Operator => ListId::OPERATOR,
        Origin::Failure => ListId::FAILURE,
    }
}

/// What the access list says, without its order.
#[derive(Debug, Default)]
pub(super) struct Fed {
    /// Networks that it permits.
    pub(super) permits: Vec<IpNet>,
    /// Networks that it rejects, where that means to turn them away unheard.
    pub(super) rejects: Vec<IpNet>,
}

impl Gate {
    pub(super) fn fed(&self) -> MutexGuard<'_, Fed> {
        self.fed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a list is called in `explain`.
    pub(super) fn list_name(&self, list: ListId) -> String {
        match list {
            ListId::ACCESS => "access list".to_owned(),
            ListId::OPERATOR => "operator".to_owned(),
            ListId::FAILURE => "failed test".to_owned(),
            imported => {
                let lists = self.imported.read().unwrap_or_else(PoisonError::into_inner);
                lists.name(imported).map_or_else(|| GONE.to_owned(), str::to_owned)
            }
        }
    }

    /// The name of the list that denies a client of whom this is known.
    pub(super) fn denying_list<R>(&self, stood: &Stood<R>) -> String {
        self.list_name(match stood {
            Stood::Imported(name) => return name.to_string(),
            Stood::Failed(_) => ListId::FAILURE,
            Stood::Rejected(_) => ListId::ACCESS,
            Stood::DenyEntry => ListId::OPERATOR,
            // It was taken out meanwhile.
            Stood::Unlisted | Stood::AllowEntry | Stood::Permitted(_) => return GONE.to_owned(),
        })
    }

    /// Gives a list the text that the configuration has for it, or else `own`.
    pub(super) fn feed_reply_text(&self, list: ListId, name: &str, own: Option<&str>) -> Result<(), KernelError> {
        let Some(kernel) = &self.kernel else { return Ok(()) };
        let config = self.config.load();
        match config.kernel.reply_texts.get(name).map(String::as_str).or(own) {
            Some(text) => kernel.set_reply(list, text),
            None => kernel.unset_reply(list),
        }
    }

    /// Tells the kernel everything, after a reload.
    pub(super) fn feed_everything(&self) {
        self.feed_all_lists();
        let records = self.screen().records();
        records.chunks(BATCH).for_each(|some| self.feed_records(some));
    }

    /// Tells the kernel everything but the records: who is denied, and who is allowed.
    pub(super) fn feed_all_lists(&self) {
        self.feed_settings();
        for list in [ListId::ACCESS, ListId::OPERATOR, ListId::FAILURE] {
            let name = self.list_name(list);
            self.fed_or_said(&format!("the reply text of {name}"), self.feed_reply_text(list, &name, None));
        }
        self.feed_access_list();
        let entries: Vec<Entry> = self.lists.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        for entry in entries.iter().filter(|entry| entry.is_live(unix_now())) {
            self.feed_entry(entry);
        }
        self.feed_lists();
    }

    /// Brings what the kernel decides by to the configuration: above all who is a proxy and so no client, before a list may say
    /// anything of its address.
    fn feed_settings(&self) {
        if let Some(kernel) = &self.kernel
            && let Err(error) = kernel.reconfigure(&Plan::from_config(&self.config.load()))
        {
            self.log.warn(format!("the kernel part keeps its former settings: {}", chain(&error)));
        }
    }

    /// Brings the kernel's tables to what the access list says now.
    pub(super) fn feed_access_list(&self) {
        let _turn = self.feeding.lock().unwrap_or_else(PoisonError::into_inner);
        let config = self.config.load();
        let compiled = config.access.compile();
        if !compiled.exact {
            self.notice(
                "the access list is too long for the kernel's tables: the screener decides what is left of it".into(),
            );
        }
        let rejects = match config.policy.denylist_action {
            Action::Drop => compiled.rejects.into_iter().map(|(net, _)| net).collect(),
            // These clients are to be heard, so they must get in.
            Action::Ignore | Action::Enforce => Vec::new(),
        };
        let fed = Fed { permits: compiled.permits, rejects };
        if let Some(kernel) = &self.kernel {
            let for_ever = |nets: &[IpNet]| nets.iter().map(|&net| (net, Expiry::NEVER)).collect::<Vec<_>>();
            self.fed_or_said("the access list", kernel.replace_allowed(ListId::ACCESS, for_ever(&fed.permits)));
            self.fed_or_said("the access list", kernel.replace_denied(ListId::ACCESS, for_ever(&fed.rejects)));
        }
        *self.fed() = fed;
    }

    /// Tells the kernel a run-time entry.
    pub(super) fn feed_entry(&self, entry: &Entry) {
        let Some(kernel) = &self.kernel else { return };
        let expires = Expiry::after_or_never(entry.until.map(from_now));
        let done = match entry.kind {
            Kind::Allow => kernel.allow(entry.net, list_of(entry), expires),
            Kind::Deny => kernel.deny(entry.net, DenyEntry { expires, list: list_of(entry) }),
        };
        self.fed_or_said(&entry.net.to_string(), done);
    }

    /// Takes a run-time entry out of the kernel.
    pub(super) fn unfeed_entry(&self, entry: &Entry) {
        let Some(kernel) = &self.kernel else { return };
        let done = match entry.kind {
            Kind::Allow => kernel.disallow(entry.net, list_of(entry)),
            Kind::Deny => kernel.undeny(entry.net, list_of(entry)),
        };
        self.fed_or_said(&entry.net.to_string(), done.map(drop));
    }

    /// Tells the kernel whether this record makes its client known good.
    pub(super) fn feed_record(&self, client: Client, record: &Record) {
        let Some(kernel) = &self.kernel else { return };
        let config = self.config.load();
        if config.kernel.steer == Steer::Off {
            return;
        }
        let now = unix_now();
        let done = match config.policy.valid_until(record).filter(|&until| until > now) {
            Some(until) => kernel.pass(client.address, Expiry::after(from_now(until))),
            None => kernel.unpass(client.address).map(drop),
        };
        self.fed_or_said(&client.net().to_string(), done);
    }

    /// As [`Self::feed_record`], of many at once.
    pub(super) fn feed_records(&self, records: &[(Client, Record)]) {
        let Some(kernel) = &self.kernel else { return };
        let config = self.config.load();
        if config.kernel.steer == Steer::Off {
            return;
        }
        let now = unix_now();
        let mut passes = Vec::with_capacity(records.len());
        for (client, record) in records {
            match config.policy.valid_until(record).filter(|&until| until > now) {
                Some(until) => passes.push((client.address, Expiry::after(from_now(until)))),
                None => self.fed_or_said(&client.net().to_string(), kernel.unpass(client.address).map(drop)),
            }
        }
        self.fed_or_said(&format!("{} clients that passed", passes.len()), kernel.pass_all(passes));
        // Whoever has changed a record meanwhile may have told the kernel before us.
        let changed: Vec<(Client, Record)> = {
            let screen = self.screen();
            let known = |client| screen.record(client).unwrap_or_default();
            records
                .iter()
                .map(|&(client, fed)| (client, fed, known(client)))
                .filter(|(_, fed, now)| fed != now)
                .map(|(client, _, now)| (client, now))
                .collect()
        };
        changed.iter().for_each(|(client, record)| self.feed_record(*client, record));
    }

    /// Says once of each table that it was full; `status` has the numbers.
    pub(super) fn tell_of_full_tables(&self, told: &mut BTreeSet<&'static str>) {
        let Some(kernel) = &self.kernel else { return };
        for (table, entries) in kernel.no_room() {
            if told.insert(table) {
                self.notice(format!(
                    "the kernel's table {table} is full and had no room for {entries} entries: the screener decides what is not in it"
                ));
            }
        }
    }

    /// The screener decides the same without the kernel's help; only the cost differs. So a table that is full is no failure.
    pub(super) fn fed_or_said(&self, what: &str, done: Result<(), KernelError>) {
        if let Err(error) = done {
            self.log.warn(format!("{what}: not in the kernel's tables, the screener decides: {}", chain(&error)));
        }
    }
}
