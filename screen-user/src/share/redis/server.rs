//! Finding the server that has the keys, and connecting to it.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisError, RedisFuture, TlsCertificates, aio::MultiplexedConnection, io::AsyncDNSResolver,
};

use super::super::Fault;
use crate::{
    config::{self, RedisServers},
    dns::Names,
};

/// How long connecting may take, all handshakes included.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How long a sentinel may take for an answer.
const SENTINEL_LIMIT: Duration = Duration::from_secs(1);

/// A server's name or address, and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address(pub(super) config::HostPort);

impl Address {
    /// A node as a cluster names it; without a host it is on the one that said so.
    pub(super) fn of_node(text: &str, said_by: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() { said_by.0.host.clone() } else { host.to_owned() };
        Some(Self(config::HostPort { host, port: port.parse().ok()? }))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The servers that the configuration names.
#[derive(Debug)]
pub struct Servers {
    config: config::Redis,
    names: Arc<Names>,
}

impl Servers {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(config: config::Redis, names: Names) -> Self {
        Self { config, names: Arc::new(names) }
    }

    /// Which servers these are.
    pub(super) const fn config(&self) -> &config::Redis {
        &self.config
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        match &self.config.servers {
            RedisServers::One(server) => server.to_string(),
            RedisServers::Cluster(seeds) => seeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            RedisServers::Sentinel { master, .. } => master.clone(),
        }
    }

    /// Connects to `to`; without it, to whoever may have the keys.
    pub(super) async fn connect(
        &self,
        to: Option<Address>,
        limit: Duration,
    ) -> Result<(Address, MultiplexedConnection), Fault> {
        if let Some(to) = to {
            return self.reach(to, limit).await;
        }
        match &self.config.servers {
            RedisServers::One(server) => self.reach(Address(server.clone()), limit).await,
            RedisServers::Cluster(seeds) => {
                let mut last = Fault("redis: no node of the cluster is named".to_owned());
                for seed in seeds {
                    match self.reach(Address(seed.clone()), limit).await {
                        Ok(reached) => return Ok(reached),
                        Err(fault) => last = fault,
                    }
                }
                Err(last)
            }
            RedisServers::Sentinel { sentinels, master } => {
                let mut last = Fault("redis: no sentinel is named".to_owned());
                for sentinel in sentinels {
                    match self.ask_sentinel(sentinel, master).await {
                        Ok(found) => return self.reach(found, limit).await,
                        Err(fault) => last = fault,
                    }
                }
                Err(last)
            }
        }
    }

    async fn reach(&self, to: Address, limit: Duration) -> Result<(Address, MultiplexedConnection), Fault> {
        let connected = self.dial(&to, limit).await;
        connected.map(|connection| (to.clone(), connection)).map_err(|error| Fault(format!("redis {to}: {error}")))
    }

    /// Connects to this server. An answer over the connection takes no longer than `limit`.
    pub(super) async fn dial(&self, to: &Address, limit: Duration) -> Result<MultiplexedConnection, RedisError> {
        let settings = RedisConnectionInfo::default().set_db(self.config.database);
        let settings = match &self.config.user {
            Some(user) => settings.set_username(user),
            None => settings,
        };
        let settings = match &self.config.password {
            Some(password) => settings.set_password(password.expose()),
            None => settings,
        };
        self.open(&to.0, settings, limit).await
    }

    /// The server that a sentinel calls the master.
    pub(super) async fn ask_sentinel(&self, sentinel: &config::HostPort, master: &str) -> Result<Address, Fault> {
        let failed = |error: &dyn fmt::Display| Fault(format!("sentinel {sentinel}: {error}"));
        let connected = self.open(sentinel, RedisConnectionInfo::default(), SENTINEL_LIMIT).await;
        let mut connection = connected.map_err(|error| failed(&error))?;
        let found: Option<(String, u16)> = redis::cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(master)
            .query_async(&mut connection)
            .await
            .map_err(|error| failed(&error))?;
        let (host, port) = found.ok_or_else(|| failed(&format!("knows no master {master}")))?;
        Ok(Address(config::HostPort { host, port }))
    }

    async fn open(
        &self,
        to: &config::HostPort,
        settings: RedisConnectionInfo,
        limit: Duration,
    ) -> Result<MultiplexedConnection, RedisError> {
        // A user with no more rights than needed would be refused that, and the server would log it.
        let settings = settings.set_skip_set_lib_name();
        let host = to.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let client = match &self.config.tls {
            None => {
                Client::open(ConnectionAddr::Tcp(host, to.port).into_connection_info()?.set_redis_settings(settings))?
            }
            Some(tls) => {
                let address = ConnectionAddr::TcpTls { host, port: to.port, insecure: false, tls_params: None };
                let own = tls.own.as_ref().map(|(certificate, key)| ClientTlsConfig {
                    client_cert: certificate.clone(),
                    client_key: key.expose().as_bytes().to_vec(),
                });
                let certificates = TlsCertificates { client_tls: own, root_cert: tls.authority.clone() };
                Client::build_with_tls(address.into_connection_info()?.set_redis_settings(settings), certificates)?
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(limit))
            .set_dns_resolver(SharedNames(Arc::clone(&self.names)));
        client.get_multiplexed_async_connection_with_config(&config).await
    }
}

/// Our names for the library.
struct SharedNames(Arc<Names>);

impl AsyncDNSResolver for SharedNames {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = self.0.addresses(host).await;
            let found = found.map_err(|error| RedisError::from(std::io::Error::other(error.to_string())))?;
            let found = found.into_iter().map(move |address| SocketAddr::new(address, port));
            Ok(Box::new(found) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}
