//! The mail server's listeners: found before and after the start, in both layouts, whoever else listens; and connections older than the gate.

use std::{
    io::{self, BufRead as _, BufReader, ErrorKind},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use screen_user::{
    config::Layout,
    kernel::{Expiry, Family, ListId, Plan},
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{
    place::{HOST, NEIGHBOUR, Pair, Started, is_older_than, plan, privileged},
    site::{PATIENCE, Site, Taker, wait_for},
};

pub(super) const KNOWN: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const STRANGER: &str = "192.0.2.3";

pub(super) fn listener(pair: &Pair, address: &str, shared: bool) -> TcpListener {
    let address: SocketAddr = address.parse().unwrap();
    pair.within(HOST, || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(shared).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(64).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.into()
    })
}

pub(super) fn allow(kernel: &Started) {
    for client in KNOWN {
        kernel
            .allow(
                format!("{client}/{}", if client.contains(':') { 128 } else { 32 }).parse().unwrap(),
                ListId::OPERATOR,
                Expiry::NEVER,
            )
            .unwrap();
    }
}

/// Waits until the kernel knows so many listeners. One that was dropped here may live on for a moment in a process that another test has
/// forked and that has not executed its program yet.
fn wait_for_listeners(pair: &Pair, kernel: &Started, count: usize) {
    wait_for("the listeners that are left", || {
        pair.within(HOST, || (kernel.installation.servers().unwrap().len() == count).then_some(()))
    });
}

#[test]
fn in_place_the_screener_answers_while_the_mail_server_is_away() {
    if !privileged() {
        return;
    }
    let mut site = Site::new(plan());
    allow(&site.kernel);
    let servers = |site: &Site| site.pair.within(HOST, || site.kernel.installation.servers().unwrap());
    assert_eq!(servers(&site).len(), 2, "they listened before the gate was there");
    for client in KNOWN {
        let _open = site.connect(client);
        assert_eq!(site.taken().0, Taker::Mail);
    }
    let away = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| listener(&site.pair, address, false));
    drop(std::mem::replace(&mut site.mail, away));
    wait_for_listeners(&site.pair, &site.kernel, 0);
    for client in KNOWN {
        let _open = site.connect(client);
        assert_eq!(site.taken().0, Taker::Screener, "{client}");
    }
    // Back again, on all addresses this time; nobody has to tell the gate.
    site.mail = ["0.0.0.0:25", "[::]:25"].map(|address| {
        let address: SocketAddr = address.parse().unwrap();
        site.pair.within(HOST, || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            if address.is_ipv6() {
                socket.set_only_v6(true).unwrap();
            }
            socket.bind(&address.into()).unwrap();
            socket.listen(64).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.into()
        })
    });
    for client in KNOWN {
        let _open = site.connect(client);
        assert_eq!(site.taken().0, Taker::Mail, "{client}");
    }
    let _open = site.connect(STRANGER);
    assert_eq!(site.taken().0, Taker::Screener);
}

/// A host in layout front: the screener owns port 25, and the mail server port 10025.
pub(super) struct Front {
    pub(super) kernel: Started,
    pub(super) screener: TcpListener,
    pub(super) pair: Pair,
    pub(super) plan: Plan,
}

impl Front {
    pub(super) fn new() -> Self {
        let pair = Pair::new();
        let screener = listener(&pair, "[::]:25", false);
        let steer_to = Some("127.0.0.1:10025".parse().unwrap());
        let plan = Plan { layout: Layout::Front, steer_to, limit: 0, ..plan() };
        let kernel = pair.within(HOST, || {
            let kernel = Started::new(&plan).unwrap();
            kernel.installation.register_listener(screener.as_fd(), Family::Ipv4).unwrap();
            kernel.installation.register_listener(screener.as_fd(), Family::Ipv6).unwrap();
            kernel.begin_steering().unwrap();
            kernel
        });
        allow(&kernel);
        Self { kernel, screener, pair, plan }
    }

    pub(super) fn connect(&self, client: &str) -> TcpStream {
        self.try_connect(client, PATIENCE).unwrap()
    }

    pub(super) fn try_connect(&self, client: &str, patience: Duration) -> io::Result<TcpStream> {
        let client: SocketAddr = SocketAddr::new(client.parse().unwrap(), 0);
        let server = if client.is_ipv4() { "192.0.2.1:25" } else { "[2001:db8::1]:25" };
        self.pair.within(NEIGHBOUR, || {
            let socket = Socket::new(Domain::for_address(client), Type::STREAM, None)?;
            socket.bind(&client.into())?;
            socket.connect_timeout(&SockAddr::from(server.parse::<SocketAddr>().unwrap()), patience)?;
            Ok(socket.into())
        })
    }

    /// Connects as the relay does; the entry is gone when this returns.
    fn relay(&self, to: &str) -> io::Result<TcpStream> {
        let to: SocketAddr = to.parse().unwrap();
        self.pair.within(HOST, || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(to.ip(), 0).into())?;
            let relay = socket.local_addr()?.as_socket().unwrap();
            let (client, server) = ("192.0.2.3:40001".parse().unwrap(), "192.0.2.1:25".parse().unwrap());
            let _guard = self.kernel.relay_begin(relay, client, server).unwrap();
            socket.connect(&to.into())?;
            Ok(socket.into())
        })
    }

    /// Connects and finds out who takes it: the number of a server, or none for the screener.
    pub(super) fn goes_to(&self, client: &str, servers: &[TcpListener]) -> Option<usize> {
        let open = self.connect(client);
        wait_for("somebody who takes it", || {
            let all = servers.iter().enumerate().map(|(number, server)| (Some(number), server));
            for (number, listener) in all.chain([(None, &self.screener)]) {
                match listener.accept() {
                    Ok((taken, _)) => {
                        let (here, there) = (taken.local_addr().unwrap(), open.peer_addr().unwrap());
                        assert_eq!((here.ip().to_canonical(), here.port()), (there.ip(), 25), "as the client meant it");
                        let peer = taken.peer_addr().unwrap();
                        let own = open.local_addr().unwrap();
                        assert_eq!((peer.ip().to_canonical(), peer.port()), (own.ip(), own.port()));
                        return Some(number);
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            None
        })
    }
}

#[test]
fn in_front_known_good_clients_reach_the_other_listener_whatever_it_is_bound_to() {
    if !privileged() {
        return;
    }
    let front = Front::new();
    for (address, families) in [
        ("127.0.0.1:10025", [true, false]),
        ("0.0.0.0:10025", [true, false]),
        ("[::1]:10025", [false, true]),
        ("[::]:10025", [true, true]),
    ] {
        let servers = [listener(&front.pair, address, false)];
        for (client, reached) in KNOWN.into_iter().zip(families) {
            let expected = reached.then_some(0);
            assert_eq!(front.goes_to(client, &servers), expected, "{client} and a server on {address}");
        }
        assert_eq!(front.goes_to(STRANGER, &servers), None);
        drop(servers);
        wait_for_listeners(&front.pair, &front.kernel, 0);
        // Gone: the screener answers.
        assert_eq!(front.goes_to(KNOWN[0], &[]), None);
    }
    let steered = front.kernel.counters(KNOWN[0].parse().unwrap()).unwrap().unwrap();
    assert_eq!((steered.steered, steered.accepted), (3, 8), "counted by where they landed");
}

#[test]
fn of_several_listeners_on_one_address_any_may_go() {
    if !privileged() {
        return;
    }
    let front = Front::new();
    let mut servers: Vec<TcpListener> = (0..3).map(|_| listener(&front.pair, "127.0.0.1:10025", true)).collect();
    while !servers.is_empty() {
        for _ in 0..8 {
            assert!(front.goes_to(KNOWN[0], &servers).is_some(), "{} listeners", servers.len());
        }
        servers.remove(0);
        wait_for_listeners(&front.pair, &front.kernel, servers.len());
    }
    assert_eq!(front.goes_to(KNOWN[0], &servers), None);
}

#[test]
fn a_listener_beyond_those_that_are_known_gets_its_turn() {
    if !privileged() {
        return;
    }
    let front = Front::new();
    let mut servers: Vec<TcpListener> = (0..5).map(|_| listener(&front.pair, "127.0.0.1:10025", true)).collect();
    let found = || front.pair.within(HOST, || front.kernel.installation.servers().unwrap().len());
    assert_eq!(found(), 4);
    servers.drain(..4);
    wait_for_listeners(&front.pair, &front.kernel, 0);
    assert_eq!(front.goes_to(KNOWN[0], &servers), None, "it is not known yet");
    front.pair.within(HOST, || front.kernel.installation.look_at_sockets().unwrap());
    assert_eq!((found(), front.goes_to(KNOWN[0], &servers)), (1, Some(0)));
    front.pair.within(HOST, || front.kernel.installation.look_at_sockets().unwrap());
    assert_eq!(found(), 1, "it has one place");
}

/// A process of another user that listens where the mail server would.
struct Usurper(Child);

impl Usurper {
    fn new(pair: &Pair) -> Self {
        let listen = "use Socket; $| = 1; socket(S, PF_INET, SOCK_STREAM, 6) or die; \
                      bind(S, sockaddr_in(10025, INADDR_LOOPBACK)) or die; listen(S, 9) or die; print \"up\\n\"; sleep 600";
        let mut child = Command::new("ip")
            .args([
                "netns",
                "exec",
                pair.name(HOST),
                "setpriv",
                "--reuid=65534",
                "--clear-groups",
                "perl",
                "-e",
                listen,
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Self(child)
    }
}

impl Drop for Usurper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn no_other_user_can_take_the_mail() {
    if !privileged() {
        return;
    }
    let front = Front::new();
    let usurper = Usurper::new(&front.pair);
    assert_eq!(front.goes_to(KNOWN[0], &[]), None, "it began to listen under the gate's eyes");
    front.pair.within(HOST, || front.kernel.installation.look_at_sockets().unwrap());
    assert_eq!(front.pair.within(HOST, || front.kernel.installation.servers().unwrap()), []);
    let said = front.pair.within(HOST, || front.kernel.installation.look_at_servers().unwrap());
    assert!(said.len() == 1 && said[0].starts_with("127.0.0.1:10025 was bound by user 65534,"), "{said:?}");
    assert_eq!(front.relay("127.0.0.1:10025").unwrap_err().kind(), ErrorKind::ConnectionRefused, "nor what is relayed");
    drop(usurper);
    let server = [listener(&front.pair, "127.0.0.1:10025", false)];
    assert_eq!(front.goes_to(KNOWN[0], &server), Some(0), "root's is taken");
    front.relay("127.0.0.1:10025").unwrap();
}

#[test]
fn connections_older_than_the_gate_are_counted_until_they_end() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let server = listener(&pair, "[::]:25", false);
    let connect = |client: &str, server: &str| {
        let (client, server): (SocketAddr, SocketAddr) = (client.parse().unwrap(), server.parse().unwrap());
        pair.within(NEIGHBOUR, || {
            let socket = Socket::new(Domain::for_address(client), Type::STREAM, None).unwrap();
            socket.bind(&client.into()).unwrap();
            socket.connect_timeout(&server.into(), PATIENCE).unwrap();
            TcpStream::from(socket)
        })
    };
    let mut ends = Vec::new();
    for (client, to) in
        [("192.0.2.2:0", "192.0.2.1:25"), ("192.0.2.2:0", "192.0.2.1:25"), ("[2001:db8::2]:0", "[2001:db8::1]:25")]
    {
        let open = connect(client, to);
        ends.push((open, wait_for("the server", || server.accept().ok()).0));
    }
    let kernel = pair.within(HOST, || Started::new(&plan()).unwrap());
    let active = |client: &str| kernel.counters(client.parse().unwrap()).unwrap().map_or(0, |client| client.active);
    // Before Linux 6.12 their ends can't be heard, and they are left out.
    let found = if is_older_than(6, 12) { (0, 0) } else { (2, 1) };
    assert_eq!((active("192.0.2.2"), active("2001:db8::2")), found);
    pair.within(HOST, || kernel.installation.look_at_sockets().unwrap());
    assert_eq!((active("192.0.2.2"), active("2001:db8::2")), found, "nothing is counted twice");
    drop(ends);
    wait_for("the ends to be noticed", || (active("192.0.2.2") + active("2001:db8::2") == 0).then_some(()));
}
