//! Opening the mail server for a client that passed.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    config::{Backend, ClientAddress},
    kernel::{Kernel, RelayGuard},
    net::tls_facts::TlsFacts,
    screen::event::Endpoints,
};

use super::header;

/// A mail server on this host or nearby answers at once or not at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a mail server may keep a client waiting for its greeting (spec 5.2 step 5).
const GREETING_LIMIT: Duration = Duration::from_secs(100);

/// Clients that may wait for a mail server's greeting at one time; further ones come after them, in order. Mail servers' listening sockets
/// have room for some 100, and what comes beyond that waits for the kernel to repeat its SYN, for seconds.
const OPENINGS: usize = 64;

/// The places of clients that wait for a greeting.
#[derive(Debug)]
pub struct Openings(Semaphore);

impl Default for Openings {
    fn default() -> Self {
        Self(Semaphore::new(OPENINGS))
    }
}

/// A mail server that has taken a client: its greeting waits in the socket.
#[derive(Debug)]
pub struct Opened {
    /// The connection.
    pub stream: TcpStream,
    /// Which mail server it is.
    pub address: SocketAddr,
    /// While it lives, the mail server's `getpeername()` shows the client.
    pub entry: Option<RelayGuard>,
}

/// Why a mail server could not take a client.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No mail server could be reached.
    #[error("cannot connect to backend {address}: {source}")]
    Unreachable {
        /// The last one tried.
        address: SocketAddr,
        /// What the system said of it.
        source: io::Error,
    },
    /// Too many clients wait for their greeting already.
    #[error("{OPENINGS} clients wait for a backend's greeting, and none got one for {} s", GREETING_LIMIT.as_secs())]
    Crowded,
    /// It was reached, and did not greet, or did not answer.
    #[error("backend {address} took the connection and {what}")]
    NoAnswer {
        /// Which one.
        address: SocketAddr,
        /// What it did instead.
        what: String,
    },
}

/// Opens the first mail server that can be reached and waits for its greeting.
///
/// # Errors
/// No mail server could be reached, the one that was reached did not greet, or too many clients wait already.
pub async fn open(
    openings: &Openings,
    backends: &[Backend],
    client_address: ClientAddress,
    kernel: Option<&Kernel>,
    endpoints: &Endpoints,
    tls: Option<&TlsFacts>,
) -> Result<Opened, OpenError> {
    let Ok(Ok(_place)) = timeout(GREETING_LIMIT, openings.0.acquire()).await else { return Err(OpenError::Crowded) };
    let mut failure =
        OpenError::Unreachable { address: endpoints.server, source: io::ErrorKind::AddrNotAvailable.into() };
    for backend in backends {
        let address = match backend {
            Backend::Local => endpoints.server,
            Backend::At(address) => *address,
            // No relay leads there: the configuration sees to that.
            Backend::Socket(_) => continue,
        };
        match timeout(CONNECT_LIMIT, connect(address, client_address, kernel, endpoints)).await {
            Ok(Ok(opened)) => return greeted(opened, address, client_address, endpoints, tls).await,
            Ok(Err(source)) => failure = OpenError::Unreachable { address, source },
            Err(_) => failure = OpenError::Unreachable { address, source: io::ErrorKind::TimedOut.into() },
        }
    }
    Err(failure)
}

async fn connect(
    address: SocketAddr,
    client_address: ClientAddress,
    kernel: Option<&Kernel>,
    endpoints: &Endpoints,
) -> io::Result<Opened> {
    let address = match client_address {
        ClientAddress::Kernel => where_the_client_fits(address, endpoints.client.ip())?,
        ClientAddress::ProxyV2 | ClientAddress::ProxyV1 | ClientAddress::None => address,
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    let entry = match (client_address, kernel) {
        (ClientAddress::Kernel, Some(kernel)) => {
            // The port must be known before the connect: a mail server that accepts at once would still see this host.
            // The server's own address is the source, so that neither routes nor source-address policies come between.
            socket.bind(&SocketAddr::new(address.ip(), 0).into())?;
            let relay = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
            Some(kernel.relay_begin(relay, endpoints.client, endpoints.server).map_err(io::Error::other)?)
        }
        // Without the hooks the mail server would take every stranger for this host, and might relay for it.
        (ClientAddress::Kernel, None) => {
            return Err(io::Error::other("the kernel part that shows it the client is off"));
        }
        (ClientAddress::ProxyV2 | ClientAddress::ProxyV1 | ClientAddress::None, _) => None,
    };
    let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
    Ok(Opened { stream, address, entry })
}

/// An IPv6 client can't be shown on an IPv4 socket: it goes to the same port of the IPv6 loopback address.
fn where_the_client_fits(address: SocketAddr, client: IpAddr) -> io::Result<SocketAddr> {
    match (client, address.ip()) {
        (IpAddr::V6(_), IpAddr::V4(server)) if server.is_loopback() => {
            Ok(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()))
        }
        (IpAddr::V6(_), IpAddr::V4(_)) => {
            Err(io::Error::other("an IPv6 client can't be shown to a mail server that listens on IPv4 alone"))
        }
        _ => Ok(address),
    }
}

async fn greeted(
    mut opened: Opened,
    address: SocketAddr,
    client_address: ClientAddress,
    endpoints: &Endpoints,
    tls: Option<&TlsFacts>,
) -> Result<Opened, OpenError> {
    let no_greeting = |what: String| OpenError::NoAnswer { address, what };
    let header = match client_address {
        ClientAddress::ProxyV2 => header::v2(endpoints.client, endpoints.server, tls),
        ClientAddress::ProxyV1 => header::v1(endpoints.client, endpoints.server),
        ClientAddress::Kernel | ClientAddress::None => Vec::new(),
    };
    opened
        .stream
        .write_all(&header)
        .await
        .map_err(|error| no_greeting(format!("refused its PROXY header: {error}")))?;
    match timeout(GREETING_LIMIT, opened.stream.peek(&mut [0; 1])).await {
        Ok(Ok(0)) => Err(no_greeting("closed it without a greeting".into())),
        Ok(Ok(_)) => Ok(opened),
        Ok(Err(error)) => Err(no_greeting(format!("failed before its greeting: {error}"))),
        Err(_) => Err(no_greeting(format!("sent no greeting within {} s", GREETING_LIMIT.as_secs()))),
    }
}
