//! What the metrics are made of: the state that `status` shows, as numbers, and how long things took.

use std::sync::{
    PoisonError,
    atomic::{AtomicU32, Ordering},
};

use super::{Gate, unix_now, view::words};
use crate::{
    access::runtime::Kind,
    cache::StoreStatus,
    dns::ZoneStats,
    forward::pool,
    keeper::Description,
    kernel::{Interface, Reason, Table, Total},
    screen::{Snapshot, policy::Limits},
    share::{Histogram, LinkStatus},
};

/// All of it, at one moment.
#[derive(Debug)]
pub struct Measures {
    /// When the screener began, in Unix seconds.
    pub started: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that are open.
    pub open: u32,
    /// Connections that are relayed.
    pub relayed: u32,
    /// Connections whose PROXY header is awaited, and how many may be.
    pub proxy_waits: (u32, u32),
    /// Sessions that go on inside TLS, and how many may.
    pub tls_sessions: (u32, u32),
    /// Bytes that relays took from clients, and from mail servers.
    pub relayed_bytes: [u64; 2],
    /// What the protocol core holds.
    pub screen: Snapshot,
    /// What it may hold.
    pub limits: Limits,
    /// Sessions by verdict and reason, in the words of `status`.
    pub sessions: Vec<([String; 2], u64)>,
    /// Whether nobody is turned away.
    pub dry_run: bool,
    /// Sessions that a dry run has spared, by what spoke against their clients.
    pub spared: Vec<(String, u64)>,
    /// Tests by name, result and action, `none` where there is none.
    pub tests: Vec<([String; 3], u64)>,
    /// How long sessions took, by verdict.
    pub took: Vec<(String, Histogram)>,
    /// The mail servers.
    pub backends: pool::Report,
    /// What lists hold.
    pub lists: ListMeasures,
    /// The store behind the records.
    pub store: StoreStatus,
    /// Whether records of the last run are still taken up.
    pub loading: bool,
    /// The DNSBL zones.
    pub zones: Vec<ZoneStats>,
    /// The link to other hosts, if there is one.
    pub redis: Option<RedisMeasures>,
    /// The kernel half, if it runs.
    pub kernel: Option<KernelMeasures>,
    /// What became of reloads.
    pub reloads: Reloads,
}

/// How much is on the lists.
#[derive(Debug, Default)]
pub struct ListMeasures {
    /// Entries of operators and failures that deny.
    pub denied_at_run_time: usize,
    /// Entries of operators that allow.
    pub allowed_at_run_time: usize,
    /// Networks that the access list rejects.
    pub denied_by_access_list: usize,
    /// Networks that it permits.
    pub permitted_by_access_list: usize,
    /// Imported lists: name, networks, when it was imported and when it ends, in Unix seconds.
    pub imported: Vec<(String, usize, u64, Option<u64>)>,
}

/// How the link to other hosts does.
#[derive(Debug)]
pub struct RedisMeasures {
    /// As `status` shows it.
    pub status: LinkStatus,
    /// From when another host learnt something until it was in force here.
    pub lag: Histogram,
    /// From when this host learnt something until it heard that back.
    pub echo: Histogram,
    /// How long look-ups took that were answered.
    pub look_ups: Histogram,
}

/// How the kernel half does.
#[derive(Debug)]
pub struct KernelMeasures {
    /// How full its tables are.
    pub tables: Vec<Table>,
    /// What it has counted.
    pub totals: Vec<(Reason, Total)>,
    /// How it is attached; nothing where the keeper does not say.
    pub interfaces: Vec<Interface>,
    /// Listeners of the mail server that it knows.
    pub servers: usize,
    /// Those of them that take nobody.
    pub hung: usize,
}

/// How often the configuration was read again, and when it was taken up last.
#[derive(Debug, Clone, Copy)]
pub struct Reloads {
    /// It was taken up.
    pub succeeded: u64,
    /// It was not.
    pub failed: u64,
    /// Whether what was read last was taken up.
    pub last_succeeded: bool,
    /// When the configuration in force was taken up, in Unix seconds.
    pub in_force_since: u64,
}

impl Reloads {
    pub(super) const fn begin(now: u64) -> Self {
        Self { succeeded: 0, failed: 0, last_succeeded: true, in_force_since: now }
    }

    pub(super) const fn note(&mut self, succeeded: bool, now: u64) {
        self.last_succeeded = succeeded;
        if succeeded {
            self.succeeded += 1;
            self.in_force_since = now;
        } else {
            self.failed += 1;
        }
    }
}

impl Gate {
    /// Takes all measures. Blocks: the keeper is asked, and may be busy.
    pub fn measures(&self) -> Measures {
        let config = self.config.load();
        let load = |count: &AtomicU32| count.load(Ordering::Relaxed);
        let tests = self.tallies.results().into_iter().map(|((test, result, action), count)| {
            let action = action.map_or_else(|| "none".to_owned(), words);
            ([test.to_string(), words(result), action], count)
        });
        let sessions = self.history.counts().into_iter();
        let took = self.tallies.took().into_iter();
        Measures {
            started: self.started_unix,
            accepted: self.counts.accepted.load(Ordering::Relaxed),
            open: load(&self.counts.connections),
            relayed: load(&self.counts.relays),
            proxy_waits: (load(&self.counts.proxy_waits), super::PROXY_WAITS),
            tls_sessions: (load(&self.counts.tls_sessions), config.tls.sessions),
            relayed_bytes: [&self.traffic.from_clients, &self.traffic.from_servers]
                .map(|bytes| bytes.load(Ordering::Relaxed)),
            screen: self.screen().snapshot(),
            limits: config.policy.limits,
            sessions: sessions.map(|((verdict, reason), count)| ([words(verdict), words(reason)], count)).collect(),
            dry_run: config.policy.dry_run,
            spared: self.history.objections().into_iter().map(|(reason, count)| (words(reason), count)).collect(),
            tests: tests.collect(),
            took: took.map(|(verdict, took)| (words(verdict), took)).collect(),
            backends: self.pool.report(),
            lists: self.entries_in_force(),
            store: self.store_status(),
            loading: self.loading().is_some(),
            zones: self.dnsbl.load().as_ref().map(|dnsbl| dnsbl.stats()).unwrap_or_default(),
            redis: self.redis_measures(),
            kernel: self.kernel_measures(),
            reloads: *self.reloads.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// How much is on the lists, leaving out what has ended.
    pub(super) fn entries_in_force(&self) -> ListMeasures {
        let mut measures = ListMeasures::default();
        {
            let (lists, now) = (self.lists.read().unwrap_or_else(PoisonError::into_inner), unix_now());
            for entry in lists.iter().filter(|entry| entry.is_live(now)) {
                match entry.kind {
                    Kind::Deny => measures.denied_at_run_time += 1,
                    Kind::Allow => measures.allowed_at_run_time += 1,
                }
            }
        }
        {
            let fed = self.fed();
            measures.denied_by_access_list = fed.rejects.len();
            measures.permitted_by_access_list = fed.permits.len();
        }
        let imported = self.imported.read().unwrap_or_else(PoisonError::into_inner);
        let rows = imported.lists.iter();
        measures.imported =
            rows.map(|(name, list)| (name.clone(), list.networks, list.about.imported, list.about.until)).collect();
        measures
    }

    fn redis_measures(&self) -> Option<RedisMeasures> {
        let [lag, echo, look_ups] = self.link_latencies()?;
        Some(RedisMeasures { status: self.link_status()?, lag, echo, look_ups })
    }

    fn kernel_measures(&self) -> Option<KernelMeasures> {
        let kernel = self.kernel.as_ref()?;
        let described = self.keeper.describe().unwrap_or_else(|_| Description::default());
        Some(KernelMeasures {
            tables: kernel.status().tables,
            totals: kernel.totals().unwrap_or_default(),
            interfaces: described.attached.unwrap_or_default().interfaces,
            servers: described.servers.len(),
            hung: described.hung.len(),
        })
    }
}
