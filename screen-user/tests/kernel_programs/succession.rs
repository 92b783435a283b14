//! A gate that goes and the one that comes after it: what was at work goes on, and nothing falls between the two.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use screen_user::{
    config::Layout,
    kernel::{DenyEntry, Expiry, ListId, Plan},
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{
    place::{HOST, NEIGHBOUR, Pair, Started, is_older_than, plan, privileged, run},
    site::{PATIENCE, wait_for},
};

const DENIED: &str = "192.0.2.4";
const KNOWN: &str = "192.0.2.2";

/// Starts a gate that denies one client and knows another.
fn start(pair: &Pair, plan: &Plan) -> Started {
    pair.within(HOST, || {
        let gate = Started::staged(plan).unwrap();
        let entry = DenyEntry { expires: Expiry::NEVER, list: ListId::OPERATOR };
        gate.deny(format!("{DENIED}/32").parse().unwrap(), entry).unwrap();
        gate.pass(KNOWN.parse().unwrap(), Expiry::after(Duration::from_secs(3600))).unwrap();
        gate.begin_steering().unwrap();
        gate.installation.look_at_sockets().unwrap();
        gate.installation.activate().unwrap();
        gate.installation.look_at_sockets().unwrap();
        gate
    })
}

fn connect(pair: &Pair, client: &str, patience: Duration) -> io::Result<TcpStream> {
    let client = SocketAddr::new(client.parse().unwrap(), 0);
    pair.within(NEIGHBOUR, || {
        let socket = Socket::new(Domain::for_address(client), Type::STREAM, None)?;
        socket.bind(&SockAddr::from(client))?;
        socket.connect_timeout(&SockAddr::from(SocketAddr::from(([192, 0, 2, 1], 25))), patience)?;
        Ok(socket.into())
    })
}

/// As a gate that is killed: its lock goes, its programs stay.
fn vanish(gate: Started) {
    gate.installation.leave();
    drop(gate);
}

fn active(gate: &Started, client: &str) -> u64 {
    gate.counters(client.parse().unwrap()).unwrap().map_or(0, |client| client.active)
}

#[test]
fn a_successor_goes_on_with_counts_and_lets_nobody_slip_through() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let plan = plan();
    let mail = pair.within(HOST, || TcpListener::bind("192.0.2.1:25").unwrap());
    let mut gate = start(&pair, &plan);
    let known = connect(&pair, KNOWN, PATIENCE).unwrap();
    let served = mail.accept().unwrap();
    let link = |pair: &Pair| {
        pair.within(HOST, || {
            run("bpftool", &["-j", "link", "show", "pinned", plan.pin_path.join("links/steer").to_str().unwrap()])
        })
    };
    let id = |shown: String| {
        shown.split("\"id\":").nth(1).and_then(|rest| rest.split(',').next().map(str::to_owned)).unwrap()
    };
    let steered_by = id(link(&pair));

    let (over, tries, slipped) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let gate = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                slipped
                    .fetch_add(u32::from(connect(&pair, DENIED, Duration::from_millis(5)).is_ok()), Ordering::Relaxed);
                tries.fetch_add(1, Ordering::Release);
            }
        });
        for _ in 0..3 {
            let before = tries.load(Ordering::Acquire);
            vanish(gate);
            wait_for("somebody to knock while nobody is there", || {
                (tries.load(Ordering::Acquire) > before + 3).then_some(())
            });
            gate = start(&pair, &plan);
            assert_eq!(active(&gate, KNOWN), 1, "the connection is still counted, once");
            let recount = pair.within(HOST, || gate.installation.recount().unwrap());
            assert_eq!((recount.connections, recount.corrected), (1, vec![]), "as the table of sockets says");
        }
        over.store(true, Ordering::Release);
        flood.join().unwrap();
        gate
    });
    assert_eq!(slipped.load(Ordering::Relaxed), 0);
    let refused = gate.refused(DENIED.parse().unwrap()).unwrap().unwrap().denied;
    assert!(refused >= u64::from(tries.load(Ordering::Relaxed)), "every knock is counted, before and after");
    assert_eq!(id(link(&pair)), steered_by, "the same link, with a new program");
    drop((known, served));
    wait_for("the end of the connection", || (active(&gate, KNOWN) == 0).then_some(()));
    let path = plan.pin_path;
    drop(gate);
    assert!(!path.exists(), "a gate that is not told to leave it takes all away");
}

/// Puts a map of another layout in the place of `clients`: four bytes less, and one client in it.
fn make_older(pins: &Path) {
    let clients = pins.join("maps/clients");
    let older = pins.join("maps/older");
    let map = |words: &[&str]| run("bpftool", &[&["map"], words].concat());
    let older = older.to_str().unwrap();
    map(&["create", older, "type", "hash", "key", "16", "value", "40", "entries", "16", "name", "clients"]);
    // ::ffff:192.0.2.2: active 1, pending 0, accepted 5, steered 5, limited 2.
    let key = ["00"; 10].into_iter().chain(["ff", "ff", "c0", "00", "02", "02"]);
    let value = [1, 0, 5, 5, 2]
        .into_iter()
        .flat_map(|number: u8| [format!("{number:02x}")].into_iter().chain(std::iter::repeat_n("00".to_owned(), 7)));
    let words: Vec<String> = ["update", "pinned", older, "key", "hex"]
        .into_iter()
        .chain(key)
        .chain(["value", "hex"])
        .map(str::to_owned)
        .chain(value)
        .collect();
    map(&words.iter().map(String::as_str).collect::<Vec<_>>());
    std::fs::rename(older, clients).unwrap();
}

#[test]
fn maps_of_another_layout_are_carried_over_with_their_contents() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let plan = plan();
    let mail = pair.within(HOST, || TcpListener::bind("192.0.2.1:25").unwrap());
    let gate = start(&pair, &plan);
    let known = connect(&pair, KNOWN, PATIENCE).unwrap();
    let served = mail.accept().unwrap();
    vanish(gate);
    make_older(&plan.pin_path);
    assert!(connect(&pair, DENIED, Duration::from_millis(50)).is_err());
    let gate = start(&pair, &plan);
    let counters = gate.counters(KNOWN.parse().unwrap()).unwrap().unwrap();
    // Before Linux 6.12 the end of a connection that others counted can't be heard.
    let found = u64::from(!is_older_than(6, 12));
    assert_eq!(
        (counters.active, counters.limited),
        (found, 2),
        "counted anew by the sockets that are there; the past is kept"
    );
    assert_eq!((counters.accepted, counters.steered), (5 + found, 5));
    let shown = run("bpftool", &["-j", "map", "show", "pinned", plan.pin_path.join("maps/clients").to_str().unwrap()]);
    assert!(shown.contains("\"bytes_value\":48"), "{shown}");
    drop((known, served));
    wait_for("the end of the connection", || (active(&gate, KNOWN) == 0).then_some(()));
}

#[test]
fn relayed_connections_keep_their_clients_and_ended_ones_are_forgotten() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let plan = Plan { layout: Layout::Front, ..plan() };
    let client: SocketAddr = "198.51.100.7:40001".parse().unwrap();
    let server: SocketAddr = "192.0.2.1:25".parse().unwrap();
    pair.within(HOST, || {
        let backend = TcpListener::bind("127.0.0.1:2525").unwrap();
        let bound = |address: SocketAddr| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&SockAddr::from(address)).unwrap();
            let own = socket.local_addr().unwrap().as_socket().unwrap();
            (socket, own)
        };
        let connect = |socket: &Socket| socket.connect(&SockAddr::from(backend.local_addr().unwrap())).unwrap();
        let gate = Started::new(&plan).unwrap();
        let (relay, own) = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        let (unused, ended) = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        // As of a gate that is killed: nobody takes them back.
        std::mem::forget([own, ended].map(|relay| gate.relay_begin(relay, client, server).unwrap()));
        connect(&relay);
        let (end, _) = backend.accept().unwrap();
        drop(unused);
        vanish(gate);

        let next = Started::new(&plan).unwrap();
        next.installation.forget_former_relays().unwrap();
        assert_eq!(end.peer_addr().unwrap(), client, "a relay that goes on");
        let (again, same) = bound(ended);
        connect(&again);
        assert_eq!(backend.accept().unwrap().1, same, "somebody else by now");
    });
}
