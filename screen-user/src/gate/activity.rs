//! What `mxscreen top` is told: the measures, and who comes most often.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use ipnet::IpNet;

use super::{
    Gate,
    busiest::{Busiest, Fate},
    measures::Measures,
};
use crate::{
    dns::ZoneStats,
    kernel::{KernelEvent, Reason},
    operate::top::snapshot::{Fates, Part, Queue, Snapshot, Visitor, Zone},
    screen::{
        outcome::{Outcome, Verdict},
        record::Client,
    },
};

/// What counts as one network, by family.
const NETWORK: (u8, u8) = (24, 48);

/// Who comes most often.
#[derive(Debug, Default)]
pub(super) struct Activity(Mutex<Both>);

#[derive(Debug, Default)]
struct Both {
    clients: Busiest,
    networks: Busiest,
}

impl Gate {
    /// Notes a connection that the screener has.
    pub fn note_arrival(&self, client: IpAddr) {
        self.note(client, true, None);
    }

    /// Notes what became of a session.
    pub(super) fn note_outcome(&self, outcome: &Outcome) {
        let fate = match outcome.verdict {
            Verdict::Forwarded => Fate { name: "passed on", count: |fates| &mut fates.forwarded },
            Verdict::Rejected => Fate { name: "rejected", count: |fates| &mut fates.rejected },
            Verdict::Deferred => Fate { name: "deferred", count: |fates| &mut fates.deferred },
            Verdict::HungUp | Verdict::Aborted => Fate { name: "left", count: |fates| &mut fates.left },
        };
        self.note(outcome.client.ip(), false, Some(fate));
    }

    /// Notes what the kernel has decided. In a flood it reports a sample.
    pub(super) fn note_kernel_event(&self, event: &KernelEvent, dry_run: bool) {
        let fate = match event.reason {
            // In a dry run its connection follows, and that is noted: with the mail server, or with the screener.
            Reason::Denied | Reason::Limited if dry_run => return,
            Reason::LetIn => Fate { name: "let in", count: |fates| &mut fates.let_in },
            Reason::Denied => Fate { name: "denied", count: |fates| &mut fates.denied },
            Reason::Limited => Fate { name: "limited", count: |fates| &mut fates.limited },
            Reason::PassOld | Reason::Allowed => Fate { name: "steered", count: |fates| &mut fates.steered },
            _ => return,
        };
        self.note(event.client.ip(), true, Some(fate));
    }

    fn note(&self, address: IpAddr, came: bool, fate: Option<Fate>) {
        let at = self.started.elapsed();
        let client = Client::of(address, self.config.load().policy.limits.client_prefix).net();
        let length = if address.is_ipv4() { NETWORK.0 } else { NETWORK.1 };
        let network = IpNet::new(address, length).map_or_else(|_| IpNet::from(address), |net| net.trunc());
        let mut both = self.activity.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Both { clients, networks } = &mut *both;
        for (busiest, net) in [(clients, client), (networks, network)] {
            if came {
                busiest.came(net, address, at);
            }
            if let Some(fate) = fate {
                busiest.ended(net, fate);
            }
        }
    }

    /// What `mxscreen top` shows. Blocks: the keeper is asked, and may be busy.
    pub(super) fn snapshot(&self) -> Snapshot {
        let measures = self.measures();
        let at = self.started.elapsed();
        let (mut clients, networks) = {
            let both = self.activity.0.lock().unwrap_or_else(PoisonError::into_inner);
            (both.clients.top(at), both.networks.top(at))
        };
        for client in &mut clients {
            client.open = self.open_of(client);
        }
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: self.config.load().policy.hostname.to_string(),
            screener: std::process::id(),
            uptime_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            dry_run: measures.dry_run,
            kernel: measures.kernel.is_some(),
            stress: measures.screen.stress,
            accepted: measures.accepted,
            fates: fates(&measures),
            queues: queues(&measures),
            clients,
            networks,
            zones: measures.zones.iter().map(zone).collect(),
            parts: parts(&measures),
        }
    }

    fn open_of(&self, client: &Visitor) -> Option<u64> {
        let counters = self.kernel.as_ref()?.counters(client.address).ok()?;
        Some(counters.map_or(0, |counters| counters.active))
    }
}

fn fates(measures: &Measures) -> Fates {
    let mut fates = Fates::default();
    for (reason, total) in measures.kernel.iter().flat_map(|kernel| &kernel.totals) {
        match reason {
            Reason::Denied => fates.denied += total.packets,
            Reason::Limited => fates.limited += total.packets,
            Reason::PassOld | Reason::Allowed => fates.steered += total.packets,
            Reason::LetIn => fates.let_in += total.packets,
            Reason::Spared => fates.spared += total.packets,
            _ => {}
        }
    }
    for ([verdict, _], sessions) in &measures.sessions {
        let count = match verdict.as_str() {
            "forwarded" => &mut fates.forwarded,
            "rejected" => &mut fates.rejected,
            "deferred" => &mut fates.deferred,
            _ => &mut fates.left,
        };
        *count += sessions;
    }
    fates
}

fn queues(measures: &Measures) -> Vec<Queue> {
    // Zero is no limit.
    let queue =
        |name: &str, now: u64, limit: u64| Queue { name: name.to_owned(), now, limit: (limit > 0).then_some(limit) };
    let counted = |name: &str, (now, limit): (u32, u32)| queue(name, now.into(), limit.into());
    let (screen, limits) = (&measures.screen, &measures.limits);
    let mut queues = vec![
        counted("being screened", (screen.checking.saturating_sub(screen.forwarding), limits.pre_queue)),
        counted("waiting for the mail server", (screen.forwarding, limits.post_queue)),
        counted("relayed", (measures.relayed, 0)),
        counted("PROXY headers", measures.proxy_waits),
        counted("TLS sessions", measures.tls_sessions),
    ];
    for table in measures.kernel.iter().flat_map(|kernel| &kernel.tables) {
        let limit = Some(table.capacity).filter(|&capacity| capacity != usize::MAX).map(|capacity| capacity as u64);
        queues.push(Queue { name: format!("kernel table {}", table.name), now: table.entries as u64, limit });
    }
    queues
}

fn zone(stats: &ZoneStats) -> Zone {
    let state = match (stats.suspended_since, stats.test_point) {
        (Some(_), _) => "suspended: it lists everybody",
        (None, Some(false)) => "no test point",
        (None, _) => "",
    };
    Zone {
        name: stats.zone.clone(),
        queries: stats.queries,
        listed: stats.listed,
        failed: stats.timed_out
            + stats.server_failures
            + stats.refused
            + stats.bad_responses
            + stats.unreachable
            + stats.error_codes,
        answers: (stats.latency.count, stats.latency.sum_us),
        state: state.to_owned(),
    }
}

fn parts(measures: &Measures) -> Vec<Part> {
    let part = |name: String, well: bool, state: String| Part { name, well, state };
    let mut parts = Vec::new();
    for server in &measures.backends.servers {
        let trouble = server.trouble.as_ref().map(|trouble| format!("; {trouble}")).unwrap_or_default();
        let state = format!("{}; {} open, {} failures{trouble}", server.state, server.open, server.failures);
        parts.push(part(format!("mail server {}", server.server), server.trouble.is_none(), state));
    }
    if let Some(kernel) = &measures.kernel {
        let state = format!("{} known, {} take nobody", kernel.servers, kernel.hung);
        parts.push(part("mail server's listeners".to_owned(), kernel.hung == 0, state));
        for interface in &kernel.interfaces {
            let well = interface.mode.is_some();
            parts.push(part(format!("interface {}", interface.name), well, interface.mode_name().to_owned()));
        }
    }
    let store = &measures.store;
    let (well, state) = match (&store.failing, measures.loading) {
        (Some(why), _) => (false, format!("failing: {why}")),
        (None, true) => (true, "still read".to_owned()),
        (None, false) => (true, format!("{} changes wait to be written", store.pending)),
    };
    parts.push(part("cache".to_owned(), well, state));
    if let Some(redis) = &measures.redis {
        let status = &redis.status;
        let state = match &status.failing {
            Some(why) => format!("not reached for {} s: {why}", status.seconds),
            None => format!("{} changes wait, {} told, {} heard", status.waiting, status.told, status.heard),
        };
        parts.push(part("redis".to_owned(), status.connected, state));
    }
    parts
}
