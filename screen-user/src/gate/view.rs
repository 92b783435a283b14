//! What the control socket shows of the gate, and what it does.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::UNIX_EPOCH,
};

use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Gate, run::backend_name, unix_now};
use crate::{
    access::runtime::{Entry, Kind, Origin},
    config::Layout,
    keeper::Description,
    kernel::{HungServer, Interface, Kernel},
    operate::{
        cli::Which,
        exit::Failure,
        request::{self, Request},
    },
    screen::{
        event::Standing,
        outcome::{Reason, Verdict},
    },
    share::{HostId, Key},
};

impl Gate {
    /// Answers one request.
    ///
    /// # Errors
    /// The request can't be carried out; nothing has changed then.
    pub async fn handle(self: &Arc<Self>, request: Request) -> Result<Value, Failure> {
        match request {
            Request::Status => {
                // The keeper may be busy, and is waited for.
                let gate = Arc::clone(self);
                tokio::task::spawn_blocking(move || gate.status()).await.map_err(Failure::bug)
            }
            Request::Top => {
                let gate = Arc::clone(self);
                let snapshot = tokio::task::spawn_blocking(move || gate.snapshot()).await.map_err(Failure::bug)?;
                serde_json::to_value(snapshot).map_err(Failure::bug)
            }
            Request::Examine => Ok(json!(self.examine_mail_servers().await)),
            Request::Explain { address } => Ok(self.explain(address.to_canonical())),
            Request::Deny(entry) => self.kept(move |gate| gate.deny(entry)).await,
            Request::Allow(entry) => self.kept(move |gate| gate.allow(entry)).await,
            Request::Forget { net } => self.kept(move |gate| Ok(gate.forgotten(net))).await,
            Request::List { which } => Ok(self.list(which)),
            Request::BlocklistImport(import) => {
                // A million entries take a second or two of work.
                let gate = Arc::clone(self);
                tokio::task::spawn_blocking(move || gate.import_list(&import)).await.map_err(Failure::bug)?
            }
            Request::Blocklists => Ok(self.blocklists()),
            Request::BlocklistExport { name } => self.export_list(&name),
            Request::BlocklistRemove { name } => {
                let gate = Arc::clone(self);
                tokio::task::spawn_blocking(move || gate.remove_list(&name)).await.map_err(Failure::bug)?
            }
            Request::CacheExport { shard } => {
                let gate = Arc::clone(self);
                tokio::task::spawn_blocking(move || gate.export_shard(shard)).await.map_err(Failure::bug)?
            }
            Request::CacheImport(import) => {
                let gate = Arc::clone(self);
                tokio::task::spawn_blocking(move || gate.import_lines(&import)).await.map_err(Failure::bug)?
            }
            Request::Recount => {
                // The keeper looks at all sockets, twice, with a pause between.
                let keeper = self.keeper.clone();
                let said = tokio::task::spawn_blocking(move || keeper.recount()).await.map_err(Failure::bug)?;
                said.map(|said| json!(said))
            }
            Request::Reload => {
                // Reading a million-line table would hold up a worker that sessions need.
                let gate = Arc::clone(self);
                let reloaded =
                    tokio::task::spawn_blocking(move || gate.reload_and_log()).await.map_err(Failure::bug)?;
                reloaded.map(|said| json!(said))
            }
            Request::Upgrade => {
                let keeper = self.keeper.clone();
                let said = tokio::task::spawn_blocking(move || keeper.upgrade()).await.map_err(Failure::bug)?;
                said.map(|said| json!(said))
            }
            Request::Stop { detach } => {
                self.stop(detach).await;
                let open = self.counts.connections.load(Ordering::Relaxed);
                Ok(json!([format!("the port is given back; {open} connections have half a minute to end")]))
            }
        }
    }

    /// Carries out what an operator has decided and answers when it is on the disk: it must not be lost with the process.
    async fn kept(
        self: &Arc<Self>,
        change: impl FnOnce(&Self) -> Result<Value, Failure> + Send + 'static,
    ) -> Result<Value, Failure> {
        let gate = Arc::clone(self);
        let changed = move || {
            let answer = change(&gate);
            gate.store.flush();
            answer
        };
        tokio::task::spawn_blocking(changed).await.map_err(Failure::bug)?
    }

    fn deny(&self, asked: request::Entry) -> Result<Value, Failure> {
        let net = asked.net;
        let mut said = vec![format!("{net} is denied {}", lasting(asked.seconds))];
        let now = unix_now();
        let allowed = self.lists.read().unwrap_or_else(PoisonError::into_inner).allowed(net.addr(), now).is_some();
        if allowed {
            said.push(format!("note: a run-time allow entry covers {} and wins", net.addr()));
        } else if self.standing(net.addr()) == Standing::Allowed {
            said.push(format!("note: the access list permits {} and wins", net.addr()));
        }
        self.enter_or_refuse(&self.entry_of(asked, Kind::Deny, now))?;
        Ok(json!(said))
    }

    fn allow(&self, asked: request::Entry) -> Result<Value, Failure> {
        let said = format!("{} is allowed {}", asked.net, lasting(asked.seconds));
        self.enter_or_refuse(&self.entry_of(asked, Kind::Allow, unix_now()))?;
        Ok(json!([said]))
    }

    fn entry_of(&self, asked: request::Entry, kind: Kind, now: u64) -> Entry {
        Entry {
            net: asked.net,
            kind,
            until: asked.seconds.map(|seconds| now.saturating_add(seconds)),
            reason: asked.reason,
            origin: Origin::Operator,
            version: self.next_version(),
            host: self.hosts.name(HostId::THIS).to_string(),
            offence: None,
        }
    }

    fn enter_or_refuse(&self, entry: &Entry) -> Result<(), Failure> {
        let net = entry.net;
        if self.enter(entry) {
            Ok(())
        } else {
            Err(Failure::unavailable(format!("{net}: the run-time lists are full")))
        }
    }

    fn forgotten(&self, net: IpNet) -> Value {
        let net = net.trunc();
        let (entries, records) = self.forget(net, self.next_version());
        self.tell(Key::Forget(net));
        json!([format!("{net}: {entries} entries and {records} records forgotten")])
    }

    fn list(&self, which: Option<Which>) -> Value {
        let now = unix_now();
        let wanted = |list: Which| which.is_none_or(|which| which == list);
        let mut rows = Vec::new();
        for entry in self.lists.read().unwrap_or_else(PoisonError::into_inner).iter().filter(|entry| entry.is_live(now))
        {
            let list = match entry.kind {
                Kind::Deny => Which::Deny,
                Kind::Allow => Which::Allow,
            };
            if wanted(list) {
                let origin = match entry.origin {
                    Origin::Operator => "operator",
                    Origin::Failure => "failed test",
                };
                rows.push(row(
                    list,
                    entry.net,
                    entry.until.map(|until| until.saturating_sub(now)),
                    origin,
                    &entry.reason,
                    &entry.host,
                ));
            }
        }
        {
            let fed = self.fed();
            let permits = fed.permits.iter().filter(|_| wanted(Which::Allow)).map(|net| (Which::Allow, net));
            let rejects = fed.rejects.iter().filter(|_| wanted(Which::Deny)).map(|net| (Which::Deny, net));
            let mut nets: Vec<_> = permits.chain(rejects).collect();
            nets.sort_by_key(|(list, net)| (*list as u8, **net));
            rows.extend(nets.into_iter().map(|(list, net)| row(list, *net, None, "access list", "", "")));
        }
        if wanted(Which::Pass) {
            let config = self.config.load();
            let mut records = self.screen().records();
            records.sort_by_key(|(client, _)| *client);
            for (client, record) in records {
                if let Some(until) = config.policy.valid_until(&record).filter(|&until| until > now) {
                    let (left, host) = (Some(until - now), self.hosts.name(record.host()));
                    rows.push(row(Which::Pass, client.net(), left, "tests", "passed every enabled test", &host));
                }
            }
        }
        Value::Array(rows)
    }

    fn status(&self) -> Value {
        let config = self.config.load();
        let screen = self.screen().snapshot();
        let lists = self.entries_in_force();
        let layout = match config.layout {
            Layout::InPlace => "in-place",
            Layout::Front => "front",
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "started": self.started_unix,
            "screener": std::process::id(),
            "layout": layout,
            "ports": config.ports,
            "listen": config.listen,
            "connections": {
                "accepted": self.counts.accepted.load(Ordering::Relaxed),
                "open": self.counts.connections.load(Ordering::Relaxed),
                "relayed_now": self.counts.relays.load(Ordering::Relaxed),
                "handed_over": self.counts.relayed.load(Ordering::Relaxed),
                "waiting_for_proxy_header": self.counts.proxy_waits.load(Ordering::Relaxed),
                "bytes_from_clients": self.traffic.from_clients.load(Ordering::Relaxed),
                "bytes_from_servers": self.traffic.from_servers.load(Ordering::Relaxed),
            },
            "screening": screen,
            "backends": self.pool.report(),
            "outcomes": outcomes(self.history.counts()),
            "dry_run": config.policy.dry_run,
            "would_have_blocked": self.would_have_blocked(),
            "lists": {
                "denied_at_run_time": lists.denied_at_run_time,
                "allowed_at_run_time": lists.allowed_at_run_time,
                "denied_by_access_list": lists.denied_by_access_list,
                "permitted_by_access_list": lists.permitted_by_access_list,
                "imported": self.blocklists(),
                "directory": self.directory_status(),
                "spf": self.spf_status(),
            },
            "journal": self.journal.status(),
            "cache": { "backend": backend_name(&config.cache.backend), "store": self.store_status(), "loading": self.loading(), "redis": self.link_status() },
            "kernel": match &self.kernel {
                Some(kernel) => kernel_status(kernel, self.keeper.describe()),
                None => json!({ "running": false, "mode": "user space only" }),
            },
            "mail_servers": self.mail_servers(),
            "dnsbl": self.dnsbl.load().as_ref().map(|dnsbl| dnsbl.stats()),
            "notices": *self.notices.lock().unwrap_or_else(PoisonError::into_inner),
        })
    }

    /// Keeps a sentence for `status` and logs it, unless it is there already.
    pub(super) fn notice(&self, text: String) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if !notices.contains(&text) {
            self.log.warn(text.as_str());
            notices.push(text);
        }
    }
}

fn outcomes(counts: BTreeMap<(Verdict, Reason), u64>) -> Value {
    counts
        .into_iter()
        .map(|((verdict, reason), sessions)| {
            json!({ "sessions": sessions, "verdict": verdict, "reason": words(reason) })
        })
        .collect()
}

/// As `status`, the metrics and the journal's readers call it: `failed` names its test, `limit` which one, both as plain words.
pub(crate) fn words(value: impl Serialize) -> String {
    match json!(value) {
        Value::Object(fields) => {
            fields.iter().map(|(name, what)| format!("{name} {}", what.as_str().unwrap_or_default())).collect()
        }
        Value::String(word) => word,
        other => other.to_string(),
    }
}

/// How the gate is attached to an interface, and what stood in the way of better ways.
fn interface(interface: &Interface) -> Value {
    let steps = interface
        .steps
        .iter()
        .map(|step| json!({ "from": step.rung.name(), "because": step.reason, "remedy": step.remedy }));
    json!({
        "interface": interface.name,
        "mode": interface.mode_name(),
        "replies": interface.replies,
        "steps_down": steps.collect::<Vec<Value>>(),
    })
}

/// A listener of the mail server that takes nobody.
fn hung(server: &HungServer) -> Value {
    json!({
        "listener": server.listener,
        "since": server.since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        "seconds": server.since.elapsed().map_or(0, |elapsed| elapsed.as_secs()),
    })
}

fn kernel_status(kernel: &Kernel, described: Result<Description, Failure>) -> Value {
    let status = kernel.status();
    let described = described.unwrap_or_else(|failure| Description::unknown(&failure.message));
    let attached = described.attached.unwrap_or_default();
    let interfaces: Vec<Value> = attached.interfaces.iter().map(interface).collect();
    let tables: Vec<Value> = status
        .tables
        .iter()
        .map(|table| {
            let capacity = (table.capacity != usize::MAX).then_some(table.capacity);
            json!({ "table": table.name, "entries": table.entries, "of": capacity, "no_room": table.no_room })
        })
        .collect();
    let totals: serde_json::Map<String, Value> = kernel
        .totals()
        .unwrap_or_default()
        .into_iter()
        .map(|(reason, total)| (reason.name().to_owned(), json!(total.packets)))
        .collect();
    let notes = [attached.notes, status.notes].concat();
    json!({
        "running": true,
        "interfaces": interfaces,
        "programs": attached.programs,
        "mail_server_listeners": described.servers,
        "hung_mail_server_listeners": described.hung.iter().map(hung).collect::<Vec<Value>>(),
        "tables": tables,
        "packets": totals,
        "notes": notes,
    })
}

fn lasting(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "until it is forgotten".into(), |seconds| format!("for {seconds} s"))
}

fn row(list: Which, net: IpNet, seconds_left: Option<u64>, origin: &str, reason: &str, host: &str) -> Value {
    json!({ "list": list, "net": net, "seconds_left": seconds_left, "origin": origin, "reason": reason, "host": host })
}
