//! Relayed connections and whom they show.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
};

use screen_user::{
    config::Layout,
    kernel::{Plan, Reason},
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{
    place::{HOST, Pair, Started, plan, privileged},
    site::{Site, Taker},
};

/// Relays as the forwarder does: bound first, entered, then connected to the very address that the client meant.
fn relayed(site: &Site, from: &str, to: &str, client: SocketAddr, server: SocketAddr) -> (SocketAddr, SocketAddr, u64) {
    let to: SocketAddr = to.parse().unwrap();
    let (peer, own) = site.pair.within(HOST, || {
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::from(from.parse::<SocketAddr>().unwrap())).unwrap();
        let relay = socket.local_addr().unwrap().as_socket().unwrap();
        let _guard = site.kernel.relay_begin(relay, client, server).unwrap();
        socket.connect(&SockAddr::from(to)).unwrap();
        let (taker, mut end) = site.taken();
        assert_eq!(taker, Taker::Mail);
        let mut ours = TcpStream::from(socket);
        assert_eq!(
            (ours.peer_addr().unwrap(), ours.local_addr().unwrap()),
            (to, relay),
            "the relay sees itself as it is"
        );
        end.set_nonblocking(false).unwrap();
        end.write_all(b"220 ready\r\n").unwrap();
        end.shutdown(Shutdown::Write).unwrap();
        let mut greeting = String::new();
        ours.read_to_string(&mut greeting).unwrap();
        assert_eq!(greeting, "220 ready\r\n");
        (end.peer_addr().unwrap(), end.local_addr().unwrap())
    });
    (peer, own, site.active(&client.ip().to_string()))
}

#[test]
fn a_relayed_connection_shows_its_client_and_is_not_counted() {
    if !privileged() {
        return;
    }
    let site = Site::new(plan());
    let v4: SocketAddr = "198.51.100.7:40001".parse().unwrap();
    let v6: SocketAddr = "[2001:db8:1::7]:40002".parse().unwrap();
    let server4: SocketAddr = "192.0.2.1:25".parse().unwrap();
    let server6: SocketAddr = "[2001:db8::1]:25".parse().unwrap();
    assert_eq!(relayed(&site, "192.0.2.1:0", "192.0.2.1:25", v4, server4), (v4, server4, 0));
    assert_eq!(relayed(&site, "[2001:db8::1]:0", "[2001:db8::1]:25", v6, server6), (v6, server6, 0));
    assert_eq!(site.active("192.0.2.1"), 0, "nor is the relay");
    let totals = site.kernel.totals().unwrap();
    assert!(totals.iter().any(|(reason, total)| *reason == Reason::Relayed && total.packets >= 2));
    // Without an entry, a connection from the same place is a stranger's.
    let _stranger = site.pair.within(HOST, || TcpStream::connect("192.0.2.1:25").unwrap());
    assert_eq!(site.taken().0, Taker::Screener);
}

#[test]
fn in_front_the_relay_shows_the_address_that_the_client_meant() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let front = Plan { layout: Layout::Front, ..plan() };
    let client: SocketAddr = "198.51.100.7:40001".parse().unwrap();
    let server: SocketAddr = "192.0.2.1:25".parse().unwrap();
    pair.within(HOST, || {
        let backend = TcpListener::bind("[::]:2525").unwrap();
        let kernel = Started::new(&front).unwrap();
        assert!(!kernel.installation.attached().programs.iter().any(|program| program == "steer"));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let relay = socket.local_addr().unwrap().as_socket().unwrap();
        let guard = kernel.relay_begin(relay, client, server).unwrap();
        socket.connect(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 2525)))).unwrap();
        let (end, peer) = backend.accept().unwrap();
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        assert_eq!((canonical(peer), canonical(end.peer_addr().unwrap())), (client, client));
        assert_eq!(canonical(end.local_addr().unwrap()), server);
        drop(guard);
        assert_eq!(canonical(end.peer_addr().unwrap()), relay, "the entry is gone with its guard");
    });
}
