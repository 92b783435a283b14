//! Opening a mail server for a client that passed.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, UnixStream},
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    config::{Backend, ClientAddress},
    keeper::Keeper,
    kernel::{Kernel, RelayGuard},
    net::tls_facts::TlsFacts,
    screen::event::Endpoints,
};

use super::{
    header,
    pool::{Place, Pool},
    stream::Stream,
    visit::{Target, Visit, target},
};

/// A mail server on this host or nearby answers at once or not at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a client is kept waiting for a place with a mail server, and then for a greeting (spec 5.2 step 5).
const GREETING_LIMIT: Duration = Duration::from_secs(100);
/// Unacknowledged bytes end a connection to a mail server after this time.
const USER_TIMEOUT: Duration = Duration::from_secs(300);
/// How long one mail server is waited for while another one takes clients.
const PATIENCE: Duration = Duration::from_secs(30);
/// So much of a greeting that turns the client away is logged.
const SHOWN_GREETING: usize = 80;

/// A mail server that has taken a client: its greeting waits in the socket.
#[derive(Debug)]
pub struct Opened {
    /// The connection.
    pub stream: Stream,
    /// Which mail server it is.
    pub target: Target,
    /// While it lives, the mail server's `getpeername()` shows the client.
    pub entry: Option<RelayGuard>,
    /// While it lives, the connection counts.
    pub place: Place,
}

/// Why no mail server took a client.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No mail server could be reached.
    #[error("cannot connect to backend {target}: {source}")]
    Unreachable {
        /// The last one tried.
        target: Target,
        /// What the system said of it.
        source: io::Error,
    },
    /// None was free for this client.
    #[error("all backends are full, and no place got free for {} s", GREETING_LIMIT.as_secs())]
    Crowded,
    /// None can be told who the client is, or all have been taken from the list while it waited.
    #[error(
        "no backend is left that could take the client; an IPv6 client can't be shown to one that listens on IPv4 alone"
    )]
    NoneFits,
    /// The last one that was reached did not greet, or did not answer.
    #[error("backend {target} took the connection and {what}")]
    NoAnswer {
        /// Which one.
        target: Target,
        /// What it did instead.
        what: String,
    },
}

/// A client that is to reach a mail server, and who helps with that.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Shows the mail server who the client is.
    pub kernel: Option<&'a Kernel>,
    /// Connects to Unix sockets, whose directories the screener can't enter.
    pub keeper: &'a Keeper,
    /// Who the client is.
    pub endpoints: &'a Endpoints,
    /// How it is protected.
    pub tls: Option<&'a TlsFacts>,
}

/// Opens a mail server and waits for its greeting. The client goes from one that does not take it to the next, each once, until the time is
/// over. The greeting of the last one may turn it away.
///
/// # Errors
/// No mail server could be reached, the last one that was reached did not greet, or all are full.
pub async fn open(pool: &Arc<Pool>, caller: &Caller<'_>) -> Result<Opened, OpenError> {
    let mut visit = Visit::new(caller.endpoints);
    let mut failure = None;
    let mut end = None;
    let mut last_try = Instant::now() + GREETING_LIMIT;
    while Instant::now() < last_try {
        let place = match timeout_at(last_try, pool.place(&visit)).await {
            Ok(Some(place)) => place,
            Ok(None) => return Err(failure.unwrap_or(OpenError::NoneFits)),
            Err(_) => break,
        };
        visit.leave(place.backend());
        // The time for all tries together begins with the first; the last one is to have enough of it.
        let end = *end.get_or_insert_with(|| Instant::now() + CONNECT_LIMIT + GREETING_LIMIT);
        last_try = end - (CONNECT_LIMIT + PATIENCE);
        match open_one(pool, &visit, place, caller, end).await {
            Ok(opened) => return Ok(opened),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or(OpenError::Crowded))
}

/// Opens one mail server for a client that has time until `end`, and tells the pool how it went.
async fn open_one(
    pool: &Pool,
    visit: &Visit,
    mut place: Place,
    caller: &Caller<'_>,
    end: Instant,
) -> Result<Opened, OpenError> {
    let client_address = place.client_address();
    let Endpoints { client, server } = *caller.endpoints;
    let target = target(place.backend(), client_address, client.ip(), server)
        .map_err(|source| OpenError::Unreachable { target: Target::Address(server), source })?;
    let (mut stream, entry) = match caller.connect(&target, client_address).await {
        Ok(connected) => connected,
        Err(error) => {
            if let NoConnection::Theirs(source) = &error {
                place.failed(&format!("connect: {source}"), &target);
            }
            let (NoConnection::Ours(source) | NoConnection::Theirs(source)) = error;
            return Err(OpenError::Unreachable { target, source });
        }
    };
    let patience = || {
        let left = end.saturating_duration_since(Instant::now());
        if pool.another(visit, true) { PATIENCE } else { left.clamp(PATIENCE, GREETING_LIMIT) }
    };
    let refusal = match caller.greeting(&mut stream, client_address, patience).await {
        Ok(greeting) if matches!(greeting.as_bytes().first(), Some(b'4' | b'5')) => {
            Some(format!("turned the client away: {greeting}"))
        }
        Ok(_) => None,
        Err(what) => {
            place.failed(&format!("took the connection and {what}"), &target);
            return Err(OpenError::NoAnswer { target, what });
        }
    };
    match refusal {
        None => place.served(&target),
        Some(what) => {
            place.failed(&format!("took the connection and {what}"), &target);
            if pool.another(visit, false) {
                return Err(OpenError::NoAnswer { target, what });
            }
        }
    }
    Ok(Opened { stream, target, entry, place })
}

/// Opens this mail server, whether it is left out or full, and waits for its greeting, whatever that is.
///
/// # Errors
/// It could not be reached, or did not greet.
pub async fn open_this(
    backend: &Backend,
    client_address: ClientAddress,
    caller: &Caller<'_>,
) -> Result<(Stream, Option<RelayGuard>), OpenError> {
    let (target, mut stream, entry) = reach(backend, client_address, caller).await?;
    match caller.greeting(&mut stream, client_address, || GREETING_LIMIT).await {
        Ok(_) => Ok((stream, entry)),
        Err(what) => Err(OpenError::NoAnswer { target, what }),
    }
}

/// Connects to this mail server, whether it is left out or full, and says nothing.
///
/// # Errors
/// It could not be reached.
pub async fn connect_this(
    backend: &Backend,
    client_address: ClientAddress,
    caller: &Caller<'_>,
) -> Result<(Stream, Option<RelayGuard>), OpenError> {
    reach(backend, client_address, caller).await.map(|(_, stream, entry)| (stream, entry))
}

async fn reach(
    backend: &Backend,
    client_address: ClientAddress,
    caller: &Caller<'_>,
) -> Result<(Target, Stream, Option<RelayGuard>), OpenError> {
    let Endpoints { client, server } = *caller.endpoints;
    let target = target(backend, client_address, client.ip(), server)
        .map_err(|source| OpenError::Unreachable { target: Target::Address(server), source })?;
    match caller.connect(&target, client_address).await {
        Ok((stream, entry)) => Ok((target, stream, entry)),
        Err(NoConnection::Ours(source) | NoConnection::Theirs(source)) => {
            Err(OpenError::Unreachable { target, source })
        }
    }
}

/// Whose failure it is that there is no connection.
enum NoConnection {
    /// This host's.
    Ours(io::Error),
    /// The mail server's, as far as can be seen.
    Theirs(io::Error),
}

impl Caller<'_> {
    async fn connect(
        &self,
        target: &Target,
        client_address: ClientAddress,
    ) -> Result<(Stream, Option<RelayGuard>), NoConnection> {
        let (connected, entry) = match target {
            Target::Address(address) => {
                let (socket, entry) = self.prepare(*address, client_address).map_err(NoConnection::Ours)?;
                let connecting = TcpSocket::from_std_stream(socket.into()).connect(*address);
                (timeout(CONNECT_LIMIT, connecting).await.map(|connected| connected.map(Stream::Tcp)), entry)
            }
            Target::Path(path) => (timeout(CONNECT_LIMIT, self.ask_keeper(path)).await, None),
        };
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        Ok((stream.map_err(NoConnection::Theirs)?, entry))
    }

    /// A connection to a Unix socket, whose directory the screener can't enter.
    async fn ask_keeper(&self, path: &Path) -> io::Result<Stream> {
        let (keeper, path) = (self.keeper.clone(), path.to_owned());
        // The keeper may be busy, and is waited for.
        let asked = spawn_blocking(move || keeper.connect(&path)).await.map_err(io::Error::other)?;
        let connection = asked.map_err(|failure| io::Error::other(failure.message))?;
        UnixStream::from_std(connection).map(Stream::Unix)
    }

    /// A socket by which the mail server will know the client.
    fn prepare(&self, address: SocketAddr, client_address: ClientAddress) -> io::Result<(Socket, Option<RelayGuard>)> {
        let Endpoints { client, server } = *self.endpoints;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        let entry = match (client_address, self.kernel) {
            (ClientAddress::Kernel, Some(kernel)) => {
                // The port must be known before the connect: a mail server that accepts at once would still see this host.
                // The server's own address is the source, so that neither routes nor source-address policies come between.
                socket.bind(&SocketAddr::new(address.ip(), 0).into())?;
                let relay = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
                Some(kernel.relay_begin(relay, client, server).map_err(io::Error::other)?)
            }
            // Without the hooks the mail server would take every stranger for this host, and might relay for it.
            (ClientAddress::Kernel, None) => {
                return Err(io::Error::other("the kernel part that shows it the client is off"));
            }
            (ClientAddress::ProxyV2 | ClientAddress::ProxyV1 | ClientAddress::None, _) => None,
        };
        Ok((socket, entry))
    }

    /// The beginning of the greeting, which stays in the socket; or what the mail server did instead.
    async fn greeting(
        &self,
        stream: &mut Stream,
        client_address: ClientAddress,
        patience: impl FnOnce() -> Duration,
    ) -> Result<String, String> {
        let Endpoints { client, server } = *self.endpoints;
        let header = match client_address {
            ClientAddress::ProxyV2 => header::v2(client, server, self.tls),
            ClientAddress::ProxyV1 => header::v1(client, server),
            ClientAddress::Kernel | ClientAddress::None => Vec::new(),
        };
        stream.write_all(&header).await.map_err(|error| format!("refused its PROXY header: {error}"))?;
        let limit = patience();
        let mut greeting = [0; SHOWN_GREETING];
        match timeout(limit, stream.peek(&mut greeting)).await {
            Ok(Ok(0)) => Err("closed it without a greeting".into()),
            Ok(Ok(count)) => Ok(first_line(greeting.get(..count).unwrap_or_default())),
            Ok(Err(error)) => Err(format!("failed before its greeting: {error}")),
            Err(_) => Err(format!("sent no greeting within {} s", limit.as_secs())),
        }
    }
}

/// What can be logged of a greeting.
fn first_line(greeting: &[u8]) -> String {
    let line = greeting.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    line.escape_ascii().to_string()
}

#[cfg(test)]
mod tests;
