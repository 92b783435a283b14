//! The screener's listening sockets and the loop that accepts.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    gate::{Gate, Phase},
    kernel::{save_syn, take_saved_syn},
    screen::{event::Endpoints, syn::Syn},
};

use super::{driver::Driver, keepalive::Keepalive, proxy_wait};

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;
/// After `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a client is told whose addresses can't be found out (spec 1.3).
const NO_ENDPOINTS: &[u8] = b"421 4.3.2 No system resources\r\n";

/// Opens a listening socket. `[::]` takes IPv4 clients too, any other IPv6 address IPv6 alone.
///
/// # Errors
/// The address is taken, is not there, or may not be used; the error names it.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let open = || {
        let socket = prepare(bind(address)?)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// Whether [`listen`] would get the address. No client can meet what tries it.
///
/// # Errors
/// As [`listen`].
pub(crate) fn try_address(address: SocketAddr) -> io::Result<()> {
    bind(address).map(drop)
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if let SocketAddr::V6(v6) = address {
        socket.set_only_v6(*v6.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Gives a socket what accepted ones inherit: set here once, it costs no client anything.
///
/// # Errors
/// It is no TCP socket.
fn prepare(socket: Socket) -> io::Result<Socket> {
    Keepalive::of_this_host().set(&socket)?;
    save_syn(&socket)?;
    Ok(socket)
}

/// Takes a listening socket that somebody else has opened.
///
/// # Errors
/// It is no TCP socket, or does not listen.
pub fn adopt(socket: OwnedFd) -> io::Result<std::net::TcpListener> {
    let socket = Socket::from(socket);
    if socket.protocol()? != Some(Protocol::TCP) || !socket.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "one is no TCP socket that listens"));
    }
    socket.set_nonblocking(true)?;
    prepare(socket).map(Into::into)
}

/// Accepts clients until the gate closes, the last ones out of the listener's queue; every client gets a task of its own.
///
/// # Errors
/// The listener can't be handed to the runtime.
pub async fn accept_all(
    listener: std::net::TcpListener,
    gate: Arc<Gate>,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut closing = pin!(phase.wait_for(|phase| *phase == Phase::Closing));
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            // Only looked at when the queue is empty.
            _ = &mut closing => return Ok(()),
        };
        match accepted {
            Ok((stream, peer)) => welcome(&gate, stream, peer),
            Err(error) if is_ours(&error) => {
                gate.log().warn(format!("accept: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // The client left before it was accepted.
            Err(_) => {}
        }
    }
}

/// Whether `accept` failed for want of something here, rather than because of its client.
fn is_ours(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Opens the session at once, or waits for the PROXY header first.
fn welcome(gate: &Arc<Gate>, stream: TcpStream, peer: SocketAddr) {
    let gate = Arc::clone(gate);
    // Taken of everybody, or it would stay in the kernel as long as the connection.
    let syn = take_saved_syn(&stream, Syn::read).flatten();
    let native = match native_endpoints(&stream, peer) {
        Ok(native) => native,
        Err(problem) => return turn_away(&gate, &stream, &problem),
    };
    if gate.config().proxy_protocol.from.iter().any(|net| net.contains(&native.client.ip())) {
        // It is the proxy's own SYN, and says nothing of the client.
        tokio::spawn(async move { welcome_behind_proxy(gate, stream, native).await });
        return;
    }
    let counted = gate.count_connection();
    if gate.may_recall(native.client.ip()) {
        tokio::spawn(async move {
            gate.recall(native.client.ip()).await;
            let mut driver = Driver::open(Arc::clone(&gate), stream, native, syn);
            driver.screen().await;
            driver.finish().await;
            drop(counted);
        });
        return;
    }
    let mut driver = Driver::open(Arc::clone(&gate), stream, native, syn);
    tokio::spawn(async move {
        driver.screen().await;
        driver.finish().await;
        drop(counted);
    });
}

async fn welcome_behind_proxy(gate: Arc<Gate>, mut stream: TcpStream, native: Endpoints) {
    let _counted = gate.count_connection();
    // Boxed, as its buffer would otherwise be part of the session's task.
    match Box::pin(proxied_endpoints(&gate, &mut stream, native)).await {
        Ok(endpoints) => {
            if gate.may_recall(endpoints.client.ip()) {
                gate.recall(endpoints.client.ip()).await;
            }
            let mut driver = Driver::open(Arc::clone(&gate), stream, endpoints, None);
            driver.screen().await;
            driver.finish().await;
        }
        Err(problem) => turn_away(&gate, &stream, &problem),
    }
}

/// Best effort (spec 1.3): whoever sent no usable header may well not listen either.
fn turn_away(gate: &Gate, stream: &TcpStream, problem: &str) {
    gate.log().warn(problem);
    let _ = stream.try_write(NO_ENDPOINTS);
}

/// Who talks to whom, by the socket (spec 1.3).
fn native_endpoints(stream: &TcpStream, peer: SocketAddr) -> Result<Endpoints, String> {
    let local = stream.local_addr().map_err(|error| format!("getsockname: {error} -- dropping this connection"))?;
    Ok(Endpoints { client: canonical(peer), server: canonical(local) })
}

/// Who talks to whom, by the PROXY header that the peer has to send (spec 1.4).
async fn proxied_endpoints(gate: &Arc<Gate>, stream: &mut TcpStream, native: Endpoints) -> Result<Endpoints, String> {
    let _waiting = gate.count_proxy_wait().ok_or("haproxy read: too many connections wait for their header")?;
    let header = proxy_wait::read(stream, gate.config().proxy_protocol.timeout).await?;
    Ok(header.map_or(native, |(client, server)| Endpoints { client: canonical(client), server: canonical(server) }))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = listen(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn the_unspecified_ipv6_address_takes_ipv4_clients() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:25".parse().unwrap();
        assert_eq!(canonical(mapped), "192.0.2.1:25".parse().unwrap());
    }
}
