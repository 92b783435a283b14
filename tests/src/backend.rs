//! A scripted mail server, where a real one would not say or do what the test needs.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    netns::Namespace,
    wait::{SOON, wait_for},
};

/// A server that hands every connection to a function of the test. Dropping it ends it; connections end with their function.
#[derive(Debug)]
pub struct Backend {
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    /// Listens on `addresses` in the namespace.
    ///
    /// # Panics
    ///
    /// When an address is taken, and stays so.
    #[must_use]
    pub fn start(
        namespace: &Namespace,
        addresses: &[SocketAddr],
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listeners: Vec<TcpListener> = addresses
            .iter()
            .map(|address| {
                // What listened there a moment ago may still be open in a child that another test starts just now.
                wait_for(&format!("{address} is free"), SOON, || match namespace.enter(|| listen(*address)) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
                    listener => Some(listener.expect("the backend's address")),
                })
            })
            .collect();
        let accepted = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (accepted, stop, serve) = (Arc::clone(&accepted), Arc::clone(&stop), Arc::new(serve));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    for (stream, _) in listeners.iter().filter_map(|listener| listener.accept().ok()) {
                        accepted.fetch_add(1, Ordering::Relaxed);
                        let serve = Arc::clone(&serve);
                        // A test that fails closes its connections, and with them ends these threads.
                        thread::spawn(move || {
                            let ready =
                                stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(SOON)));
                            ready.and_then(|()| serve(stream))
                        });
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Self { accepted, stop, thread: Some(thread) }
    }

    /// Listens on port 25 of all addresses; greets with `220 patient`, and then only waits for the client's end.
    ///
    /// # Panics
    ///
    /// When the port is taken.
    #[must_use]
    pub fn patient(namespace: &Namespace) -> Self {
        let anywhere: [SocketAddr; 2] = [(Ipv4Addr::UNSPECIFIED, 25).into(), (Ipv6Addr::UNSPECIFIED, 25).into()];
        Self::start(namespace, &anywhere, |mut stream| {
            stream.set_read_timeout(None)?;
            stream.write_all(b"220 patient\r\n")?;
            io::copy(&mut stream, &mut io::sink()).map(drop)
        })
    }

    /// Listens on a port of all addresses; speaks SMTP, and takes no recipient.
    ///
    /// # Panics
    ///
    /// When the port is taken.
    #[must_use]
    pub fn refusing(namespace: &Namespace, port: u16) -> Self {
        let anywhere: [SocketAddr; 2] = [(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()];
        Self::start(namespace, &anywhere, |mut stream| {
            stream.write_all(b"220 refusing\r\n")?;
            for command in BufReader::new(stream.try_clone()?).lines() {
                let reply = match command?.get(..4) {
                    Some("RCPT") => "454 4.7.1 no recipient",
                    Some("QUIT") => "221 bye",
                    _ => "250 refusing",
                };
                stream.write_all(format!("{reply}\r\n").as_bytes())?;
            }
            Ok(())
        })
    }

    /// How many connections it has taken.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// An IPv6 socket takes IPv6 alone, so that both families can have one; accepted connections find out when their client has vanished.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_keepalive(true)?;
    socket.bind(&address.into())?;
    socket.listen(512)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
