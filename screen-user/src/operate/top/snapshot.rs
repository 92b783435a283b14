//! What a gate tells `mxscreen top` at each look: counts since its start, and who came most often. Its size is bounded.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Most clients, and most networks, in one snapshot.
pub const MOST_ROWS: usize = 100;

/// The gate at one moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// The gate's version.
    pub version: String,
    /// The name in its greetings.
    pub hostname: String,
    /// The screener's process. Another one has begun to count anew.
    pub screener: u32,
    /// Since when that one runs, in milliseconds.
    pub uptime_ms: u64,
    /// Whether nobody is turned away.
    pub dry_run: bool,
    /// Whether the kernel half runs.
    pub kernel: bool,
    /// Whether time limits are shortened.
    pub stress: bool,
    /// Connections that the screener has accepted.
    pub accepted: u64,
    /// What became of all connections.
    pub fates: Fates,
    /// What is bounded, and how full it is.
    pub queues: Vec<Queue>,
    /// The clients that come most often.
    pub clients: Vec<Visitor>,
    /// The networks that come most often.
    pub networks: Vec<Visitor>,
    /// The DNSBL zones.
    pub zones: Vec<Zone>,
    /// Mail servers, interfaces, the cache and Redis.
    pub parts: Vec<Part>,
}

/// What became of connections: three of them the kernel decides, the others the screener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fates {
    /// Denied in the kernel.
    pub denied: u64,
    /// Turned away in the kernel at the limit of their client.
    pub limited: u64,
    /// Given to the mail server by the kernel.
    pub steered: u64,
    /// The same of those that are denied, in a dry run.
    pub let_in: u64,
    /// Screened, and given to the mail server.
    pub forwarded: u64,
    /// Screened, and turned away for good.
    pub rejected: u64,
    /// Screened, and asked to come back.
    pub deferred: u64,
    /// Left before there was a verdict, or given up.
    pub left: u64,
    /// How many of the denied and limited were only counted, in a dry run: what became of them is counted besides.
    pub spared: u64,
}

/// Something bounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// What.
    pub name: String,
    /// How much there is of it.
    pub now: u64,
    /// How much there may be; `None`: any.
    pub limit: Option<u64>,
}

/// A client, or a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Visitor {
    /// Which.
    pub net: IpNet,
    /// The address in it that came last.
    pub address: IpAddr,
    /// Connections a second, over the last ten seconds or so.
    pub per_second: f64,
    /// Connections that are open, where the kernel counts them by client.
    pub open: Option<u64>,
    /// What became of its connections while it was among those that came most often.
    pub fates: Fates,
    /// What became of the last one.
    pub last: String,
}

/// A DNSBL zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Zone {
    /// Its shown name.
    pub name: String,
    /// Queries.
    pub queries: u64,
    /// Answers that list the client.
    pub listed: u64,
    /// Queries without a usable answer.
    pub failed: u64,
    /// Answers, and how long all of them together took, in microseconds.
    pub answers: (u64, u64),
    /// What is wrong with it, in words; empty if nothing is known.
    pub state: String,
}

/// A part that others depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which.
    pub name: String,
    /// Whether it does what it should.
    pub well: bool,
    /// How it does, in words.
    pub state: String,
}

impl Fates {
    /// All connections.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let Self { denied, limited, steered, let_in, forwarded, rejected, deferred, left, spared } = *self;
        let decided: u64 = [denied, limited, steered, let_in, forwarded, rejected, deferred, left].into_iter().sum();
        decided.saturating_sub(spared)
    }
}
