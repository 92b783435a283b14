//! A mail server and a screener behind the gate, with a neighbour that connects.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use screen_user::kernel::{Family, Plan};
use socket2::{Domain, SockAddr, Socket, Type};

use super::place::{HOST, NEIGHBOUR, Pair, Started};

/// How long anything may take that is expected to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A mail server's listener, the screener's, and the gate that chooses between them.
pub(crate) struct Site {
    // Dropped first: programs go before the namespaces they are attached in.
    pub(crate) kernel: Started,
    pub(crate) mail: [TcpListener; 2],
    pub(crate) screener: [TcpListener; 2],
    pub(crate) pair: Pair,
    pub(crate) plan: Plan,
}

/// Whose listener took a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taker {
    Mail,
    Screener,
}

impl Site {
    pub(crate) fn new(plan: Plan) -> Self {
        let pair = Pair::new();
        let listen = |address: &str| TcpListener::bind(address).unwrap();
        let (kernel, mail, screener) = pair.within(HOST, || {
            let mail = [listen("192.0.2.1:25"), listen("[2001:db8::1]:25")];
            let screener = [listen("127.0.0.1:2526"), listen("[::1]:2526")];
            let kernel = Started::new(&plan).unwrap();
            kernel.installation.register_listener(screener[0].as_fd(), Family::Ipv4).unwrap();
            kernel.installation.register_listener(screener[1].as_fd(), Family::Ipv6).unwrap();
            kernel.begin_steering().unwrap();
            (kernel, mail, screener)
        });
        for listener in mail.iter().chain(&screener) {
            listener.set_nonblocking(true).unwrap();
        }
        Self { kernel, mail, screener, pair, plan }
    }

    /// A connection of `client`, made within `patience`.
    pub(crate) fn connect_within(&self, client: &str, patience: Duration) -> io::Result<TcpStream> {
        let client: IpAddr = client.parse().unwrap();
        let server: IpAddr = if client.is_ipv4() { [192, 0, 2, 1].into() } else { "2001:db8::1".parse().unwrap() };
        self.pair.within(NEIGHBOUR, || {
            let domain = if client.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
            let socket = Socket::new(domain, Type::STREAM, None)?;
            socket.bind(&SockAddr::from(SocketAddr::new(client, 0)))?;
            socket.connect_timeout(&SockAddr::from(SocketAddr::new(server, 25)), patience)?;
            Ok(socket.into())
        })
    }

    pub(crate) fn connect(&self, client: &str) -> TcpStream {
        self.connect_within(client, PATIENCE).unwrap()
    }

    /// Whoever took the next connection, with the server's end of it.
    pub(crate) fn taken(&self) -> (Taker, TcpStream) {
        wait_for("a connection", || {
            for (taker, listeners) in [(Taker::Mail, &self.mail), (Taker::Screener, &self.screener)] {
                for listener in listeners {
                    match listener.accept() {
                        Ok((stream, _)) => return Some((taker, stream)),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    }
                }
            }
            None
        })
    }

    /// As [`Site::taken`], of the next connection that is this client's.
    pub(crate) fn taken_from(&self, client: &str) -> (Taker, TcpStream) {
        let client: IpAddr = client.parse().unwrap();
        wait_for("a connection of the client", || {
            let (taker, stream) = self.taken();
            (stream.peer_addr().unwrap().ip() == client).then_some((taker, stream))
        })
    }

    pub(crate) fn active(&self, client: &str) -> u64 {
        self.kernel.counters(client.parse().unwrap()).unwrap().map_or(0, |client| client.active)
    }

    pub(crate) fn wait_active(&self, client: &str, expected: u64) {
        wait_for(&format!("{expected} connections of {client}"), || (self.active(client) == expected).then_some(()));
    }
}

pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn reset(stream: TcpStream) {
    let socket = Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}
