//! One query: to a zone about a client, or for the records of a name. How it is sent, and what the response means.

use std::{
    fmt::Write,
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    time::Duration,
};

use hickory_resolver::{
    ConnectionProvider, PoolContext,
    config::{ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{
        DnsError, NetError, NoRecords,
        runtime::TokioRuntimeProvider,
        tcp::TcpClientStream,
        udp::UdpClientStream,
        xfer::{DnsExchange, DnsHandle, DnsRequestSender, DnsResponseStream, FirstAnswer},
    },
    proto::{
        op::{DnsRequest, ResponseCode},
        rr::{Name, RData, RecordType},
    },
    system_conf::parse_resolv_conf,
};
use tokio::time::timeout;

use super::{
    SetupError,
    report::Failure,
    zone::{Zone, ZoneName},
};
use crate::config;

/// A query that was lost is sent again after this long, not sooner: a slow answer is not a lost query, and a zone counts queries.
const RESEND_AFTER: Duration = Duration::from_secs(2);

/// The most that one UDP query is sent.
const SENDS: u8 = 3;

/// The fewest seconds that a resolver gets before the next one is tried.
const LEAST_TRY: Duration = Duration::from_secs(1);

/// The most codes that are kept of one answer; a list uses a handful.
const MOST_CODES: usize = 256;

/// Simultaneous queries on one TCP connection to a resolver.
const TCP_QUERIES: usize = 256;

/// A usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// At least one A record, all of them listings.
    Listed {
        /// The addresses.
        codes: Vec<Ipv4Addr>,
        /// The lowest TTL of the A records.
        ttl: Duration,
    },
    /// No A record.
    NotListed {
        /// The TTL of the SOA record in the response.
        ttl: Option<Duration>,
    },
}

/// What a name has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Records {
    /// The records that were asked for, among others that lead to them.
    pub(super) data: Vec<RData>,
    /// The lowest TTL of all of them; where there are none, that of the SOA record in the response.
    pub(super) ttl: Option<Duration>,
}

/// The address part of a query name: octets, or nibbles, last first (RFC 5782 sections 2.1 and 2.4).
pub(super) fn reversed(client: IpAddr) -> String {
    let mut name = String::with_capacity(64);
    match client {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            // Writing to a String can't fail.
            let _ = write!(name, "{d}.{c}.{b}.{a}");
        }
        IpAddr::V6(address) => {
            for (index, octet) in address.octets().iter().rev().enumerate() {
                let dot = if index == 0 { "" } else { "." };
                let _ = write!(name, "{dot}{:x}.{:x}", octet & 0x0f, octet >> 4);
            }
        }
    }
    name
}

/// The name to ask for; `None` if the zone's name is bad or too long for it.
pub(super) fn query_name(client: IpAddr, zone: &ZoneName) -> Option<Name> {
    let zone = zone.secret().trim_end_matches('.');
    if zone.is_empty() {
        return None;
    }
    // The dot at the end keeps search domains away.
    Name::from_ascii(format!("{}.{zone}.", reversed(client))).ok()
}

/// Whether an A record is a message of the zone's operator, or somebody else's, and no listing.
///
/// 127.255.255.0/24 is what Spamhaus and others answer to those whom they do not serve, 127.0.1.255 the same of its older zones;
/// RFC 5782 section 2.1 has listings in 127.0.0.0/8 only, so the rest comes from a resolver or a new owner of the domain.
fn is_error_code(code: Ipv4Addr) -> bool {
    matches!(code.octets(), [127, 255, 255, _] | [127, 0, 1, 255]) || !code.is_loopback()
}

/// Asks recursors; without a cache of its own, as each look-up asks anew (spec 3.4) and recursors have one.
#[derive(Debug)]
pub(super) struct Resolver {
    hickory: hickory_resolver::Resolver<Transport>,
    limit: Duration,
}

impl Resolver {
    /// With the configured recursors, else the system's. Where nothing is to be asked (`needed`) there may be none.
    pub(super) fn new(config: &config::Resolver, needed: bool) -> Result<Self, SetupError> {
        let servers = if needed { servers(config)? } else { configured(config) };

        let share = u32::try_from(servers.len()).unwrap_or(u32::MAX).max(1);
        let transport = Transport {
            runtime: TokioRuntimeProvider::default(),
            limit: (config.timeout / share).max(LEAST_TRY.min(config.timeout)),
        };

        let mut options = ResolverOpts::default();
        options.timeout = config.timeout;
        // One query is one query: a failure of the recursor is an answer, and two recursors asked at once are two queries.
        options.attempts = 0;
        options.num_concurrent_reqs = 1;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let mut builder = hickory_resolver::Resolver::builder_with_config(
            ResolverConfig::from_parts(None, Vec::new(), servers),
            transport,
        );
        *builder.options_mut() = options;
        let hickory = builder.build().map_err(|error| SetupError::Resolver(error.to_string()))?;
        Ok(Self { hickory, limit: config.timeout })
    }

    /// Asks `zone` about `client`, and waits for an answer no longer than the limit, the wait for a permit included.
    pub(super) async fn ask(&self, zone: &Zone, client: IpAddr) -> Result<Answer, Failure> {
        let Some(name) = query_name(client, &zone.name) else {
            return Err(Failure::BadResponse);
        };
        let asked = async {
            // The semaphore is never closed; without a permit the query may go all the same.
            let _permit = zone.permits.acquire().await;
            // Boxed here, so that a query that waits for its permit is small.
            Box::pin(self.hickory.lookup(name, RecordType::A)).await
        };
        match timeout(self.limit, asked).await {
            Err(_) => Err(Failure::TimedOut(self.limit)),
            Ok(Ok(response)) => self.read(response.answers().iter().filter_map(|record| match &record.data {
                RData::A(address) => Some((address.0, record.ttl)),
                _ => None,
            })),
            Ok(Err(error)) => self.read_error(&error).map(|ttl| Answer::NotListed { ttl }),
        }
    }

    /// What the A records of a response mean.
    fn read(&self, records: impl Iterator<Item = (Ipv4Addr, u32)>) -> Result<Answer, Failure> {
        let mut codes = Vec::new();
        let mut lowest = u32::MAX;
        for (code, ttl) in records.take(MOST_CODES) {
            // One error code spoils the answer: it says that the zone does not mean what it lists.
            if is_error_code(code) {
                return Err(Failure::ErrorCode(code));
            }
            lowest = lowest.min(ttl);
            codes.push(code);
        }
        if codes.is_empty() {
            return Err(Failure::BadResponse);
        }
        Ok(Answer::Listed { codes, ttl: Duration::from_secs(lowest.into()) })
    }

    /// Asks for the records of `kind` that `name` has, and waits no longer than the limit.
    pub(super) async fn records(&self, name: Name, kind: RecordType) -> Result<Records, Failure> {
        match timeout(self.limit, self.hickory.lookup(name, kind)).await {
            Err(_) => Err(Failure::TimedOut(self.limit)),
            Ok(Ok(response)) => Ok(Records {
                ttl: response.answers().iter().map(|record| Duration::from_secs(record.ttl.into())).min(),
                data: response.answers().iter().map(|record| record.data.clone()).collect(),
            }),
            Ok(Err(error)) => self.read_error(&error).map(|ttl| Records { data: Vec::new(), ttl }),
        }
    }

    /// What an error of hickory's means. "No such name", and a name without such records, are answers, with the TTL of the SOA
    /// record in them.
    fn read_error(&self, error: &NetError) -> Result<Option<Duration>, Failure> {
        match error {
            NetError::Dns(DnsError::NoRecordsFound(NoRecords {
                response_code: ResponseCode::NXDomain | ResponseCode::NoError,
                soa,
                ..
            })) => {
                // The record's own TTL, not the minimum field (spec 3.5).
                Ok(soa.as_ref().map(|soa| Duration::from_secs(soa.ttl.into())))
            }
            NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)) => Err(Failure::ServerFailure),
            NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => Err(Failure::Refused),
            NetError::Timeout => Err(Failure::TimedOut(self.limit)),
            NetError::Io(_) | NetError::NoConnections | NetError::Busy => Err(Failure::Unreachable),
            _ => Err(Failure::BadResponse),
        }
    }
}

/// The recursors that the configuration names.
fn configured(config: &config::Resolver) -> Vec<NameServerConfig> {
    config.servers.iter().copied().map(name_server).collect()
}

/// The configured recursors, else the system's.
fn servers(config: &config::Resolver) -> Result<Vec<NameServerConfig>, SetupError> {
    let servers = configured(config);
    if !servers.is_empty() {
        return Ok(servers);
    }
    let (system, _) = parse_resolv_conf(&config.system).map_err(|error| SetupError::System(error.to_string()))?;
    match system.name_servers() {
        [] => Err(SetupError::NoResolver),
        servers => Ok(servers.to_vec()),
    }
}

/// Whom zones are asked through: the configured recursors, else the system's.
///
/// # Errors
/// There is none, or the system's configuration can't be read.
pub fn recursors(config: &config::Resolver) -> Result<Vec<IpAddr>, SetupError> {
    Ok(servers(config)?.into_iter().map(|server| server.ip).collect())
}

/// A recursor that is asked over UDP, and over TCP where the answer was cut short.
fn name_server(address: SocketAddr) -> NameServerConfig {
    let [udp, tcp] = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, vec![udp, tcp])
}

/// How queries reach a recursor. hickory's own transport sends a UDP query again after a third of a second.
#[derive(Clone)]
struct Transport {
    runtime: TokioRuntimeProvider,
    /// What one recursor gets of the time of a query.
    limit: Duration,
}

impl ConnectionProvider for Transport {
    type Conn = Connection;
    type FutureConn = Pin<Box<dyn Future<Output = Result<Connection, NetError>> + Send>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        _: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let server = SocketAddr::new(ip, config.port);
        match config.protocol {
            ProtocolConfig::Udp => {
                let connection = Connection::Udp { server, transport: self.clone() };
                Ok(Box::pin(async move { Ok(connection) }))
            }
            ProtocolConfig::Tcp => {
                let exchange =
                    TcpClientStream::exchange(server, None, self.limit, Some(TCP_QUERIES), self.runtime.clone());
                Ok(Box::pin(async move { exchange.await.map(Connection::Tcp) }))
            }
        }
    }

    fn runtime_provider(&self) -> &TokioRuntimeProvider {
        &self.runtime
    }
}

/// A way to a recursor.
#[derive(Clone)]
enum Connection {
    /// A socket of its own for every query, so that the port is a secret too.
    Udp { server: SocketAddr, transport: Transport },
    /// One connection for many queries.
    Tcp(DnsExchange<TokioRuntimeProvider>),
}

impl DnsHandle for Connection {
    type Response = DnsResponseStream;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> DnsResponseStream {
        match self {
            Self::Udp { server, transport } => UdpClientStream::builder(*server, transport.runtime.clone())
                .with_timeout(Some(transport.limit))
                .with_max_retries(SENDS)
                .with_retry_interval_floor(u64::try_from(RESEND_AFTER.as_millis()).unwrap_or(u64::MAX))
                .build()
                .send_message(request),
            Self::Tcp(exchange) => {
                let answer = exchange.send(request).first_answer();
                Box::pin(answer).into()
            }
        }
    }
}
