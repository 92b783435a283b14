//! DNSBL queries (spec 3.4, 3.5): one look-up a client address, shared by all who ask, one query a zone, all in parallel.
//!
//! [`Dnsbl::subscribe`] starts a look-up or joins the one that runs; [`Subscription::next`] yields each zone's answer once, in the
//! order of arrival. A look-up goes on after its last subscriber has left, and what it found then comes out as [`Report::Late`], so
//! that a slow answer still corrects what is remembered of the client.
//!
//! A zone can't hurt: error codes are failures, never listings ([`Failure::ErrorCode`]), and a zone that lists the address which no
//! list may hold is not asked until it has recovered (RFC 5782 section 5).
//!
//! [`Names`] finds the addresses of hosts, and [`spf`] asks the same recursors for what domains publish.
//!
//! hickory's own debug events carry query names, and so the names of secret zones: see [`SECRET_TARGETS`].

mod health;
mod lookup;
mod names;
mod query;
mod recent;
mod report;
pub mod spf;
mod stats;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod testserver;
mod zone;

use std::{net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use tokio::sync::mpsc;

pub use self::{
    health::{Health, checkup},
    lookup::Subscription,
    names::{NameError, Names},
    query::recursors,
    recent::Said,
    report::{Failure, LateResult, REPORT_INTERVAL, Report},
    stats::{Latency, ZoneStats},
    zone::ZoneName,
};
use self::{lookup::Desk, query::Resolver, zone::Zone};
use crate::config;

/// `tracing` targets that print query names: a subscriber must leave them out, as zone names can be secret.
pub const SECRET_TARGETS: [&str; 3] = ["hickory_resolver", "hickory_net", "hickory_proto"];

/// What a [`Dnsbl`] may use, and whether it watches its zones.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Simultaneous look-ups, at least 1; a client beyond gets [`crate::screen::event::ZoneReply::Failed`] from every zone at once.
    pub lookups: usize,
    /// Queries of one zone that wait for the resolver, at least 1. Each holds a socket; further ones wait within their time limit,
    /// so that a dead zone takes nothing from the others.
    pub queries_per_zone: usize,
    /// Reports that wait to be taken, at least 1; further ones are lost, and counted.
    pub reports: usize,
    /// How often a zone's test points are asked for; `None`: never.
    pub probe: Option<Probe>,
}

/// How often a zone's test points (RFC 5782 section 5) are asked for; each wait is varied by up to a tenth.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// While the zone is sound.
    pub interval: Duration,
    /// While it is suspended.
    pub suspended_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lookups: 16_384,
            queries_per_zone: 256,
            reports: 4_096,
            probe: Some(Probe { interval: Duration::from_secs(300), suspended_interval: Duration::from_secs(60) }),
        }
    }
}

/// Why DNS can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A zone's name is no domain name, or leaves no room for an IPv6 address in front of it.
    #[error("{0}: not usable as a DNSBL domain: bad or too long a name")]
    Zone(ZoneName),
    /// No resolver is configured, and the system's are not to be had.
    #[error("the system's resolvers can't be read ({0}): set dnsbl.resolvers")]
    System(String),
    /// The system's configuration names no resolver.
    #[error("the system's configuration names no resolver: set dnsbl.resolvers")]
    NoResolver,
    /// The resolver could not be set up.
    #[error("the resolver can't be set up: {0}")]
    Resolver(String),
}

/// The DNSBL zones and the look-ups that run; clones are the same.
#[derive(Debug, Clone)]
pub struct Dnsbl {
    desk: Arc<Desk>,
}

impl Dnsbl {
    /// Zones in the order of [`crate::screen::dnsbl::Sites::zones`], asked as [`Options::default`] says. Must be called in a tokio
    /// runtime with time and I/O. The second value yields what is to be logged and corrected until the last clone has gone.
    ///
    /// # Errors
    /// If a zone can't be asked, or no resolver is to be had.
    pub fn new(
        zones: Vec<ZoneName>,
        resolver: &config::Resolver,
    ) -> Result<(Self, mpsc::Receiver<Report>), SetupError> {
        Self::with_options(zones, resolver, Options::default())
    }

    /// As [`Dnsbl::new`], with other bounds.
    ///
    /// # Errors
    /// As [`Dnsbl::new`].
    pub fn with_options(
        zones: Vec<ZoneName>,
        resolver: &config::Resolver,
        options: Options,
    ) -> Result<(Self, mpsc::Receiver<Report>), SetupError> {
        let zones = zones
            .into_iter()
            .enumerate()
            .map(|(index, name)| Zone::new(index, name, options.queries_per_zone).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let resolver = Resolver::new(resolver, !zones.is_empty())?;
        let (sender, receiver) = mpsc::channel(options.reports.max(1));
        let desk = Desk::new(zones, resolver, options.lookups.max(1), sender);
        if let Some(probe) = options.probe {
            health::watch(&desk, probe);
        }
        Ok((Self { desk }, receiver))
    }

    /// Asks every zone about `client`, or joins whoever asks already.
    #[must_use]
    pub fn subscribe(&self, client: IpAddr) -> Subscription {
        self.desk.subscribe(client.to_canonical())
    }

    /// What the zones said when a client in `net` was looked up last, if that is still known. Nobody is asked.
    #[must_use]
    pub fn said(&self, net: IpNet) -> Option<Said> {
        self.desk.said(net)
    }

    /// What each zone did so far, in the zones' order.
    #[must_use]
    pub fn stats(&self) -> Vec<ZoneStats> {
        self.desk.zones().iter().map(|zone| zone.stats()).collect()
    }

    /// Look-ups that run or whose answers somebody still holds.
    #[must_use]
    pub fn lookups(&self) -> usize {
        self.desk.live()
    }

    /// Reports that nobody took in time.
    #[must_use]
    pub fn reports_lost(&self) -> u64 {
        self.desk.reports_lost()
    }
}
