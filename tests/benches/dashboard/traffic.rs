//! Clients of every kind, more and fewer of them in waves.

use std::{
    f64::consts::TAU,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread::{self, Scope},
    time::{Duration, Instant},
};

use screen_tests::{fleet::Edge, smtp::Client};

/// A network that is denied.
pub(crate) const DENIED: &str = "198.18.200.0/24";

/// How long a client waits for a connection that the kernel may drop.
const PATIENCE: Duration = Duration::from_millis(300);

/// How long a client waits for a reply.
const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// Half a wave of visits takes so long.
const WAVE: f64 = 90.0;

/// A client that block lists know.
pub(crate) fn listed(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 18, 4, last))
}

/// What the clients of a kind do, and how many of their visits come in a second.
#[derive(Clone, Copy)]
struct Kind {
    net: u8,
    /// How many addresses they have; those of the next visitor come round again then.
    addresses: u16,
    hasty: bool,
    rate: f64,
}

const KINDS: [Kind; 5] = [
    // Known after their first visit.
    Kind { net: 2, addresses: 20, hasty: false, rate: 2.5 },
    Kind { net: 100, addresses: 2000, hasty: true, rate: 0.7 },
    Kind { net: 4, addresses: 250, hasty: false, rate: 0.5 },
    Kind { net: 16, addresses: 4000, hasty: false, rate: 0.9 },
    Kind { net: 200, addresses: 250, hasty: false, rate: 1.4 },
];

/// Threads that share the visits of a kind: one is busy for as long as a greeting takes.
const THREADS: u8 = 5;

/// All visits to all hosts, until they are ended.
pub(crate) struct Traffic {
    over: Arc<AtomicBool>,
}

impl Traffic {
    pub(crate) fn begin<'scope>(scope: &'scope Scope<'scope, '_>, edges: &'scope [Edge]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for edge in edges {
            for kind in KINDS {
                let next = Arc::new(AtomicU16::new(0));
                for thread in 0..THREADS {
                    let (over, next) = (Arc::clone(&over), Arc::clone(&next));
                    scope.spawn(move || visits(edge, kind, thread, &next, &over));
                }
            }
        }
        Self { over }
    }

    /// The last clients come.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// The visits of one thread.
fn visits(edge: &Edge, kind: Kind, thread: u8, next: &AtomicU16, over: &AtomicBool) {
    let begun = Instant::now();
    let spread = f64::from(thread) / f64::from(THREADS);
    while !over.load(Ordering::Relaxed) {
        let wave = 1.0 + 0.6 * ((begun.elapsed().as_secs_f64() / WAVE + f64::from(kind.net) / 7.0) * TAU / 2.0).sin();
        thread::sleep(Duration::from_secs_f64(f64::from(THREADS) / (kind.rate * wave) * (0.75 + 0.5 * spread)));
        let number = next.fetch_add(1, Ordering::Relaxed) % kind.addresses;
        let [more, last] = [number / 250, number % 250 + 1].map(|part| u8::try_from(part).unwrap());
        visit(edge, kind, IpAddr::V4(Ipv4Addr::new(198, 18, kind.net + more, last)));
    }
}

/// One visit; that it may end at any time is what the picture shows.
fn visit(edge: &Edge, kind: Kind, from: IpAddr) {
    let host = edge.net().client();
    let Ok(mut client) = Client::try_connect(host, from, host.edge(from), PATIENCE) else { return };
    if kind.hasty {
        drop(client.try_send("EHLO hasty\r\n"));
    }
    while let Ok(Some(line)) = client.try_line(REPLY_LIMIT) {
        if line.starts_with("220 ") {
            drop(client.try_send("QUIT\r\n"));
        }
    }
}
