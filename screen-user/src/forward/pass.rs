//! Handing a client's live socket to Postfix: its `pass` service takes the descriptor and is the client's server from then on (spec 5).

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream as Connection,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::{
    fs::{OFlags, fcntl_getfl},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use tokio::{
    net::{TcpStream, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use crate::{keeper::Keeper, screen::event::Endpoints};

/// The keeper connects within microseconds, unless it is reading a large configuration.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long Postfix may leave a descriptor in its queue (spec 5.2 step 5).
const TAKING_LIMIT: Duration = Duration::from_secs(100);

/// What is under way to Postfix.
#[derive(Debug)]
pub struct Passes {
    /// The keeper answers one question after the other. Asked by one thread at a time, clients stay in order, and others who need such a thread
    /// find one.
    asking: Arc<Semaphore>,
    outstanding: AtomicU32,
}

impl Default for Passes {
    fn default() -> Self {
        Self { asking: Arc::new(Semaphore::new(1)), outstanding: AtomicU32::new(0) }
    }
}

/// A client that was not handed over.
#[derive(Debug)]
pub struct NotPassed {
    /// Why.
    pub error: PassError,
    /// The client's socket, if nobody else may have it.
    pub client: Option<TcpStream>,
}

/// Why a client was not handed over. The words are postscreen's (spec 5.5).
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The service did not take the connection that is to carry the client.
    #[error("cannot connect to service {}: {reason}", .service.display())]
    Unreachable {
        /// Where it should be.
        service: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It took the connection, and the client did not get through.
    #[error("cannot pass connection to service {}: {source}", .service.display())]
    Failed {
        /// Where it is.
        service: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It has taken nothing for too long, and may still do so.
    #[error("timeout sending connection to service {}", .service.display())]
    TimedOut {
        /// Where it is.
        service: PathBuf,
    },
}

/// Hands a client to the service at `service`, and returns when the service has taken it. At most `limit` clients are under way at a time; 0 is
/// no limit. A client whose socket can't be had, as other bytes still go over it, stays where it is.
///
/// # Errors
/// The client was not handed over, or perhaps not.
pub async fn pass(
    passes: &Passes,
    limit: u32,
    keeper: &Keeper,
    service: &Path,
    client: Option<TcpStream>,
    endpoints: &Endpoints,
) -> Result<(), NotPassed> {
    let Some(client) = client else {
        let source = io::ErrorKind::ResourceBusy.into();
        return Err(NotPassed { error: PassError::Failed { service: service.to_owned(), source }, client: None });
    };
    let unreachable = |client, reason| {
        Err(NotPassed { error: PassError::Unreachable { service: service.to_owned(), reason }, client: Some(client) })
    };
    let Some(_place) = passes.enter(limit) else {
        return unreachable(client, format!("{limit} clients wait for it already"));
    };
    match passes.connect(keeper, service).await {
        Ok(connection) => hand_over(connection, service, client, endpoints).await,
        Err(reason) => unreachable(client, reason),
    }
}

/// A client that is under way, while it is.
struct Place<'a>(&'a AtomicU32);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Passes {
    fn enter(&self, limit: u32) -> Option<Place<'_>> {
        let before = self.outstanding.fetch_add(1, Ordering::Relaxed);
        let place = Place(&self.outstanding);
        (limit == 0 || before < limit).then_some(place)
    }

    async fn connect(&self, keeper: &Keeper, service: &Path) -> Result<Connection, String> {
        let (asking, keeper, service) = (Arc::clone(&self.asking), keeper.clone(), service.to_owned());
        let connecting = async move {
            let turn = asking.acquire_owned().await.map_err(|error| error.to_string())?;
            let asked = tokio::task::spawn_blocking(move || {
                let connection = keeper.connect(&service);
                // A keeper that does not answer holds one thread, however many clients wait.
                drop(turn);
                connection
            });
            asked.await.map_err(|error| error.to_string())?.map_err(|failure| failure.message)
        };
        timeout(CONNECT_LIMIT, connecting).await.unwrap_or_else(|_| Err("the keeper does not answer".to_owned()))
    }
}

/// Sends the client over a fresh connection and waits until it is taken.
async fn hand_over(
    connection: Connection,
    service: &Path,
    client: TcpStream,
    endpoints: &Endpoints,
) -> Result<(), NotPassed> {
    let failed =
        |source, client| Err(NotPassed { error: PassError::Failed { service: service.to_owned(), source }, client });
    let connection = match UnixStream::from_std(connection) {
        Ok(connection) => connection,
        Err(error) => return failed(error, Some(client)),
    };
    // Whoever gets the descriptor shares the socket with its flags: it must be nobody's here when it leaves.
    let client = match client.into_std() {
        Ok(client) => OwnedFd::from(client),
        Err(error) => return failed(error, None),
    };
    if let Err(error) = send(&connection, &client, endpoints) {
        return failed(error, taken_back(client));
    }
    match timeout(TAKING_LIMIT, closed(&connection)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => failed(error, taken_back(client)),
        Err(_) => Err(NotPassed { error: PassError::TimedOut { service: service.to_owned() }, client: None }),
    }
}

/// The descriptor and the attributes at once: the receiver holds the lock of the whole service while it waits for them.
fn send(connection: &UnixStream, client: &OwnedFd, endpoints: &Endpoints) -> io::Result<()> {
    let message = message(endpoints);
    let descriptors = [client.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for the descriptor"));
    }
    let sent = sendmsg(connection, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL)?;
    // Without its end the list is of no use: the receiver drops its copy of the socket.
    if sent < message.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
}

/// The byte that carries the descriptor, and the attributes (spec 5.3).
fn message(endpoints: &Endpoints) -> Vec<u8> {
    let Endpoints { client, server } = endpoints;
    let text = format!(
        "\0client_address\0{}\0client_port\0{}\0server_address\0{}\0server_port\0{}\0\0",
        client.ip(),
        client.port(),
        server.ip(),
        server.port()
    );
    text.into_bytes()
}

/// Waits for the receiver to close the connection: it has everything then. A reset says that it went away with something unread, or before it
/// accepted the connection.
async fn closed(connection: &UnixStream) -> io::Result<()> {
    loop {
        connection.readable().await?;
        match connection.try_read(&mut [0; 1]) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The socket of a client that was not taken. Postfix makes it blocking when it has everything: such a one is somebody else's.
fn taken_back(client: OwnedFd) -> Option<TcpStream> {
    let ours = fcntl_getfl(&client).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK));
    if !ours {
        return None;
    }
    TcpStream::from_std(client.into()).ok()
}

#[cfg(test)]
mod tests;
