//! Who gets a connection, and what is reported of it.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use screen_user::{
    config::ScreenerDown,
    kernel::{DenyEntry, Expiry, KernelEvent, ListId, Plan, Reason},
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{
    place::{HOST, NEIGHBOUR, plan, privileged},
    site::{PATIENCE, Site, Taker, wait_for},
};

#[test]
fn strangers_meet_the_screener_and_known_good_clients_the_mail_server() {
    if !privileged() {
        return;
    }
    let site = Site::new(plan());
    for (client, other) in [("192.0.2.2", "192.0.2.3"), ("2001:db8::2", "192.0.2.4")] {
        let address: IpAddr = client.parse().unwrap();
        let _stranger = site.connect(client);
        let (taker, end) = site.taken();
        assert_eq!(
            (taker, end.peer_addr().unwrap().ip(), end.local_addr().unwrap().port()),
            (Taker::Screener, address, 25)
        );

        let until = Expiry::after(Duration::from_secs(3_600));
        site.kernel.pass_all([(address, until), ([192, 0, 2, 200].into(), until)]).unwrap();
        let _known = site.connect(client);
        let (taker, end) = site.taken();
        assert_eq!((taker, end.peer_addr().unwrap().ip()), (Taker::Mail, address));
        let _stranger = site.connect(other);
        assert_eq!(site.taken().0, Taker::Screener);

        assert!(site.kernel.unpass(address).unwrap());
        site.kernel.allow(address.into(), ListId::ACCESS, Expiry::NEVER).unwrap();
        let _allowed = site.connect(client);
        assert_eq!(site.taken().0, Taker::Mail);
        site.kernel.disallow(address.into(), ListId::ACCESS).unwrap();

        site.kernel.pass(address, Expiry::from_nanos(1)).unwrap();
        let _expired = site.connect(client);
        assert_eq!(site.taken().0, Taker::Screener);
        let counters = site.kernel.counters(address).unwrap().unwrap();
        assert_eq!((counters.accepted, counters.steered), (4, 2));
    }
}

#[test]
fn connections_to_the_mail_server_are_reported_once() {
    if !privileged() {
        return;
    }
    let site = Site::new(plan());
    site.kernel.pass([192, 0, 2, 2].into(), Expiry::NEVER).unwrap();
    site.kernel.allow("192.0.2.3/32".parse().unwrap(), ListId::ACCESS, Expiry::NEVER).unwrap();
    let entry = DenyEntry { expires: Expiry::NEVER, list: ListId::OPERATOR };
    site.kernel.deny("192.0.2.4/32".parse().unwrap(), entry).unwrap();
    let known = site.connect("192.0.2.2");
    let _allowed = site.connect("192.0.2.3");
    let _stranger = site.connect("192.0.2.5");
    site.connect_within("192.0.2.4", Duration::from_millis(300)).unwrap_err();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let events: Vec<KernelEvent> = runtime.block_on(async {
        let mut events = site.kernel.events().unwrap().unwrap();
        assert!(site.kernel.events().unwrap().is_none(), "one reader");
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(tokio::time::timeout(PATIENCE, events.next()).await.unwrap());
        }
        seen
    });
    let of = |reason: Reason| events.iter().find(|event| event.reason == reason).unwrap();
    assert_eq!(of(Reason::PassOld).client, known.local_addr().unwrap());
    assert_eq!(of(Reason::PassOld).server, "192.0.2.1:25".parse().unwrap());
    assert_eq!(of(Reason::Allowed).client.ip(), IpAddr::from([192, 0, 2, 3]));
    assert_eq!(of(Reason::Denied).client.ip(), IpAddr::from([192, 0, 2, 4]));
    assert_eq!((of(Reason::Denied).list, of(Reason::Denied).suppressed), (Some(ListId::OPERATOR), 0));
}

#[test]
fn in_a_dry_run_the_denied_meet_the_mail_server_and_strangers_need_no_screener() {
    if !privileged() {
        return;
    }
    let mut site = Site::new(Plan { dry_run: true, ..plan() });
    let entry = DenyEntry { expires: Expiry::NEVER, list: ListId::OPERATOR };
    for client in ["192.0.2.4", "2001:db8::2"] {
        let address: IpAddr = client.parse().unwrap();
        site.kernel.deny(address.into(), entry).unwrap();
        // A pass is no reason to report it as known good.
        site.kernel.pass(address, Expiry::NEVER).unwrap();
        let _denied = site.connect(client);
        assert_eq!(site.taken().0, Taker::Mail);
    }
    let count = |site: &Site, wanted| {
        let totals = site.kernel.totals().unwrap();
        totals.into_iter().find(|(reason, _)| *reason == wanted).unwrap().1.packets
    };
    assert_eq!((count(&site, Reason::LetIn), count(&site, Reason::PassOld)), (2, 0));
    assert!(count(&site, Reason::Spared) >= 2);
    let _stranger = site.connect("192.0.2.5");
    assert_eq!(site.taken().0, Taker::Screener);
    site.screener = ["127.0.0.1:0", "[::1]:0"].map(|address| TcpListener::bind(address).unwrap());
    site.screener.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
    let _stranger = site.connect("192.0.2.5");
    assert_eq!(site.taken().0, Taker::Mail, "whatever kernel.on_screener_down says");

    site.kernel.reconfigure(&plan()).unwrap();
    site.connect_within("192.0.2.4", Duration::from_millis(300)).unwrap_err();
    assert_eq!(count(&site, Reason::LetIn), 2);
}

#[test]
fn neither_a_repeated_syn_nor_a_cookie_makes_a_second_report() {
    if !privileged() {
        return;
    }
    let site = Site::new(plan());
    site.kernel.pass([192, 0, 2, 2].into(), Expiry::NEVER).unwrap();
    site.kernel.allow("192.0.2.3/32".parse().unwrap(), ListId::ACCESS, Expiry::NEVER).unwrap();
    let admitted = || {
        let totals = site.kernel.totals().unwrap();
        totals.into_iter().find(|(reason, _)| *reason == Reason::Admitted).unwrap().1.packets
    };
    // The answers go astray until the SYN has come again.
    let astray = ["192.0.2.2", "dev", "mail0", "lladdr", "02:00:00:00:00:99", "nud", "permanent"];
    site.pair.run_in(HOST, &[&["ip", "neigh", "replace"], astray.as_slice()].concat());
    let repeated = std::thread::scope(|scope| {
        let attempt = scope.spawn(|| site.connect("192.0.2.2"));
        wait_for("the SYN to come again", || (admitted() >= 2).then_some(()));
        site.pair.run_in(HOST, &["ip", "neigh", "del", "192.0.2.2", "dev", "mail0"]);
        attempt.join().unwrap()
    });
    site.pair.run_in(HOST, &["sysctl", "-qw", "net.ipv4.tcp_syncookies=2"]);
    let cookie = site.connect("192.0.2.2");
    let last = site.connect("192.0.2.3");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reported: Vec<SocketAddr> = runtime.block_on(async {
        let mut events = site.kernel.events().unwrap().unwrap();
        let mut seen = Vec::new();
        while seen.last() != Some(&last.local_addr().unwrap()) {
            seen.push(tokio::time::timeout(PATIENCE, events.next()).await.unwrap().client);
        }
        seen
    });
    assert_eq!(reported, [&repeated, &cookie, &last].map(|connection| connection.local_addr().unwrap()));
}

#[test]
fn a_denied_client_never_completes_a_handshake() {
    if !privileged() {
        return;
    }
    let site = Site::new(plan());
    for (net, client) in
        [("192.0.2.2/32", "192.0.2.2"), ("192.0.2.0/24", "192.0.2.3"), ("2001:db8::/48", "2001:db8::2")]
    {
        let net = net.parse().unwrap();
        site.kernel.deny(net, DenyEntry { expires: Expiry::NEVER, list: ListId::ACCESS }).unwrap();
        let error = site.connect_within(client, Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let refused = site.kernel.refused(client.parse().unwrap()).unwrap().unwrap();
        assert!(refused.denied >= 1 && refused.list == ListId::ACCESS.0);
        site.kernel.undeny(net, ListId::ACCESS).unwrap();
        drop(site.connect(client));
        assert_eq!(site.taken().0, Taker::Screener);
    }
}

#[test]
fn without_a_screener_strangers_get_what_the_plan_says() {
    if !privileged() {
        return;
    }
    let Site { kernel, mail, screener, pair, plan } = Site::new(plan());
    drop(screener);
    let site = Site {
        kernel,
        mail,
        screener: pair.within(HOST, || [0, 0].map(|_| TcpListener::bind("127.0.0.1:0").unwrap())),
        pair,
        plan,
    };
    for listener in &site.screener {
        listener.set_nonblocking(true).unwrap();
    }
    assert_eq!(site.connect_within("192.0.2.2", PATIENCE).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    site.kernel.pass([192, 0, 2, 3].into(), Expiry::NEVER).unwrap();
    let _known = site.connect("192.0.2.3");
    assert_eq!(site.taken().0, Taker::Mail);
    site.kernel.reconfigure(&Plan { on_screener_down: ScreenerDown::Pass, ..site.plan.clone() }).unwrap();
    let _let_through = site.connect("192.0.2.2");
    assert_eq!(site.taken().0, Taker::Mail);
}

#[test]
fn stopping_gives_the_port_back() {
    if !privileged() {
        return;
    }
    let Site { kernel, mail, screener, pair, plan } = Site::new(plan());
    kernel.installation.release_port();
    let stranger = pair.within(NEIGHBOUR, || TcpStream::connect("192.0.2.1:25").unwrap());
    let accepted = wait_for("the mail server's connection", || mail[0].accept().ok());
    assert_eq!(accepted.1, stranger.local_addr().unwrap());
    assert!(plan.pin_path.join("links/peername4").exists(), "relayed connections still show their clients");
    drop(kernel);
    assert!(!plan.pin_path.exists());
    drop(screener);
}

#[test]
fn other_protocols_and_ports_are_left_alone() {
    if !privileged() {
        return;
    }
    let site = Site::new(plan());
    let (datagrams, other) = site
        .pair
        .within(HOST, || (UdpSocket::bind("192.0.2.1:25").unwrap(), TcpListener::bind("192.0.2.1:26").unwrap()));
    datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
    site.pair.within(NEIGHBOUR, || {
        UdpSocket::bind("192.0.2.2:0").unwrap().send_to(b"datagram", "192.0.2.1:25").unwrap();
        drop(TcpStream::connect("192.0.2.1:26").unwrap());
    });
    assert_eq!(datagrams.recv(&mut [0; 16]).unwrap(), b"datagram".len());
    other.accept().unwrap();
    assert!(site.kernel.clients().is_empty(), "only the protected port is counted");
}

#[test]
fn a_proxy_meets_the_screener_whatever_is_said_of_its_address() {
    if !privileged() {
        return;
    }
    let proxies = ["192.0.2.2/31", "2001:db8::2/128"].map(|net| net.parse().unwrap()).to_vec();
    let site = Site::new(Plan { limit: 1, proxies, on_screener_down: ScreenerDown::Pass, ..plan() });
    let entry = DenyEntry { expires: Expiry::NEVER, list: ListId::OPERATOR };
    for proxy in ["192.0.2.2", "192.0.2.3", "2001:db8::2"] {
        let address: IpAddr = proxy.parse().unwrap();
        site.kernel.pass(address, Expiry::NEVER).unwrap();
        let passed = (site.connect(proxy), site.taken());
        site.kernel.allow(address.into(), ListId::OPERATOR, Expiry::NEVER).unwrap();
        let allowed = (site.connect(proxy), site.taken());
        site.kernel.disallow(address.into(), ListId::OPERATOR).unwrap();
        site.kernel.deny(address.into(), entry).unwrap();
        let denied = (site.connect(proxy), site.taken());
        for (client, (taker, end)) in [passed, allowed, denied] {
            assert_eq!((taker, end.peer_addr().unwrap()), (Taker::Screener, client.local_addr().unwrap()));
        }
        assert!(site.kernel.counters(address).unwrap().is_none(), "it is not counted as a client");
    }
    let steered = |reason: Reason| site.kernel.totals().unwrap().into_iter().find(|(known, _)| *known == reason);
    for reason in [Reason::PassOld, Reason::Allowed, Reason::Denied, Reason::Limited] {
        assert_eq!(steered(reason).unwrap().1.packets, 0, "{reason:?}");
    }

    let Site { kernel, mail, screener, pair, .. } = site;
    drop(screener);
    let connect = |client: [u8; 4]| {
        pair.within(NEIGHBOUR, || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SockAddr::from(SocketAddr::from((client, 0)))).unwrap();
            socket.connect(&SockAddr::from(SocketAddr::from(([192, 0, 2, 1], 25)))).map(|()| socket)
        })
    };
    assert!(connect([192, 0, 2, 5]).is_ok(), "a stranger is let through");
    assert_eq!(connect([192, 0, 2, 2]).unwrap_err().kind(), ErrorKind::ConnectionRefused, "its header would confuse");
    drop((kernel, mail));
}
