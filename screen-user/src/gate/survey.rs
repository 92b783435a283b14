//! What the mail servers announce: clients that may go on to them in the middle of a session are promised no more.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Gate, Phase};
use crate::{
    config::{Backend, Config},
    forward::{
        backend::{self, Caller},
        survey,
    },
    screen::{Extensions, event::Endpoints, record::Test},
};

/// Between two visits to mail servers that have answered.
const REST: Duration = Duration::from_secs(300);
/// Until the first next visit to one that has not; twice as long each time, up to a minute.
const SOON: Duration = Duration::from_secs(2);
const NOT_SO_SOON: Duration = Duration::from_secs(60);
/// How often it is looked whether there is another configuration.
const TICK: Duration = Duration::from_secs(1);

/// What mail servers have announced.
pub(super) type Surveyed = BTreeMap<Backend, Extensions>;

impl Gate {
    /// Visits the mail servers from time to time, and after each change of the configuration, until the gate stops.
    pub(super) async fn survey(self: Arc<Self>) {
        let mut config = self.config.load_full();
        let mut wait = SOON;
        loop {
            wait = if self.survey_once(&config).await { REST } else { wait.saturating_mul(2).min(NOT_SO_SOON) };
            let next = Instant::now() + wait;
            while Instant::now() < next && Arc::ptr_eq(&config, &self.config.load()) {
                if *self.phase.borrow() > Phase::Running {
                    return;
                }
                sleep(TICK).await;
            }
            let current = self.config.load_full();
            if !Arc::ptr_eq(&config, &current) {
                wait = SOON;
            }
            config = current;
        }
    }

    /// Visits each mail server once, and tells the protocol core what they have in common. Returns whether all have answered. Who has not
    /// counts as when it answered last.
    pub(super) async fn survey_once(&self, config: &Config) -> bool {
        let deep = [Test::Pipelining, Test::NonSmtpCommand, Test::BareNewline];
        if !config.policy.replays || !deep.into_iter().any(|test| config.policy.enables(test)) {
            return true;
        }
        let servers = survey::places(config);
        let mut answered = true;
        for choices in &servers {
            let mut found = false;
            for server in choices {
                if let Ok(extensions) = self.visit(config, server).await {
                    self.surveyed().insert(server.clone(), extensions);
                    found = true;
                    break;
                }
            }
            answered &= found;
        }
        let mut surveyed = self.surveyed();
        surveyed.retain(|server, _| servers.iter().flatten().any(|known| known == server));
        let common = surveyed.values().copied().reduce(Extensions::and).unwrap_or(Extensions::NONE);
        drop(surveyed);
        self.screen().set_extensions(common);
        answered
    }

    /// What `status` says of the mail servers.
    pub(super) fn mail_servers(&self) -> Value {
        let surveyed = self.surveyed();
        let servers = surveyed.iter();
        servers.map(|(server, known)| json!({ "address": server.to_string(), "announces": known.words() })).collect()
    }

    fn surveyed(&self) -> MutexGuard<'_, Surveyed> {
        self.surveyed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What one mail server announces to this host.
    async fn visit(&self, config: &Config, backend: &Backend) -> Result<Extensions, String> {
        let server = match backend {
            Backend::At(address) => *address,
            Backend::Local | Backend::Socket(_) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
        };
        let endpoints = Endpoints { client: SocketAddr::new(loopback(server), server.port()), server };
        let caller = Caller { kernel: self.kernel(), keeper: &self.keeper, endpoints: &endpoints, tls: None };
        let opened = backend::open_this(backend, config.forward.client_address, &caller).await;
        let (mut stream, entry) = opened.map_err(|error| error.to_string())?;
        let found = survey::extensions(&mut stream, &config.policy.hostname).await;
        drop(stream);
        // The mail server may ask as long as there is a connection.
        drop(entry);
        found
    }
}

fn loopback(server: SocketAddr) -> IpAddr {
    match server {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}
