//! Mail servers that do not accept any more: their clients meet the screener until they do.

use std::{
    io::ErrorKind,
    net::{TcpListener, TcpStream},
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData};
use socket2::SockRef;

use super::{
    place::{HOST, Pair, Started, plan, privileged},
    servers::{Front, KNOWN, allow, listener},
    site::{Site, wait_for},
};

/// Room for one connection more than the kernel counts as the backlog.
fn shorten(server: &TcpListener) {
    SockRef::from(server).listen(1).unwrap();
}

/// Looks until something has changed, and returns what.
fn change(pair: &Pair, kernel: &Started) -> Vec<String> {
    wait_for("a change of the queues", || {
        let said = pair.within(HOST, || kernel.installation.look_at_servers().unwrap());
        (!said.is_empty()).then_some(said)
    })
}

fn accept(listener: &TcpListener) -> TcpStream {
    wait_for("a connection", || listener.accept().ok()).0
}

#[test]
fn a_server_that_hangs_loses_its_clients_to_the_screener_and_gets_them_back() {
    if !privileged() {
        return;
    }
    let site = Site::new(plan());
    allow(&site.kernel);
    for (number, client) in KNOWN.into_iter().enumerate() {
        let (server, screener) = (&site.mail[number], &site.screener[number]);
        shorten(server);
        let _waiting = [site.connect(client), site.connect(client)];
        let dropped = site.connect_within(client, Duration::from_millis(300)).unwrap_err();
        assert_eq!(dropped.kind(), ErrorKind::TimedOut, "the queue is full");

        let said = change(&site.pair, &site.kernel);
        let address = server.local_addr().unwrap();
        assert!(
            said.len() == 1 && said[0].starts_with(&format!("mail server listener {address} hangs: 2 ")),
            "{said:?}"
        );
        let hung = site.kernel.installation.hung_servers();
        assert_eq!(hung.iter().map(|server| server.listener).collect::<Vec<_>>(), [address]);
        for _ in 0..3 {
            let known = site.connect(client);
            assert_eq!(accept(screener).peer_addr().unwrap(), known.local_addr().unwrap());
        }

        let taken = [accept(server), accept(server)];
        let said = change(&site.pair, &site.kernel);
        assert_eq!(said, [format!("mail server listener {address}, which hung, accepts again")]);
        assert_eq!(site.kernel.installation.hung_servers(), []);
        let known = site.connect(client);
        assert_eq!(accept(server).peer_addr().unwrap(), known.local_addr().unwrap());
        let counters = site.kernel.counters(client.parse().unwrap()).unwrap().unwrap();
        assert_eq!((counters.accepted, counters.steered), (6, 3), "counted by where they landed");
        drop(taken);
    }
}

#[test]
fn of_several_listeners_on_one_address_only_those_that_accept_are_chosen() {
    if !privileged() {
        return;
    }
    // One more than are known: the last one has no place.
    for hanging in [0, 4] {
        let front = Front::new();
        let mut servers: Vec<TcpListener> = (0..5).map(|_| listener(&front.pair, "127.0.0.1:10025", true)).collect();
        let hung = servers.remove(hanging);
        shorten(&hung);
        // The kernel spreads connections over all of them, and this one takes none.
        let mut open = Vec::new();
        wait_for("a full queue", || {
            open.extend(front.try_connect(KNOWN[0], Duration::from_millis(50)).ok());
            for server in &servers {
                open.extend(server.accept().map(|(taken, _)| taken).ok());
            }
            let said = front.pair.within(HOST, || front.kernel.installation.look_at_servers().unwrap());
            (!said.is_empty()).then_some(())
        });
        for server in &servers {
            open.extend(std::iter::from_fn(|| server.accept().ok()).map(|(taken, _)| taken));
        }
        for _ in 0..16 {
            assert!(front.goes_to(KNOWN[0], &servers).is_some(), "{hanging} hangs");
        }
    }
}

#[test]
fn what_was_said_of_a_queue_is_forgotten_when_nobody_says_it_again() {
    if !privileged() {
        return;
    }
    let front = Front::new();
    let server = [listener(&front.pair, "127.0.0.1:10025", false)];
    shorten(&server[0]);
    let _waiting = [front.connect(KNOWN[0]), front.connect(KNOWN[0])];
    change(&front.pair, &front.kernel);
    assert_eq!(front.goes_to(KNOWN[0], &[]), None);

    // As it is when the gate was killed and some time has passed.
    let map = MapData::from_pin(front.plan.pin_path.join("maps/hung")).unwrap();
    let mut hung: HashMap<_, [u8; 24], [u8; 16]> = Map::HashMap(map).try_into().unwrap();
    let (key, mut value) = hung.iter().next().unwrap().unwrap();
    value[..8].copy_from_slice(&1_u64.to_ne_bytes());
    hung.insert(key, value, 0).unwrap();
    let _taken = [accept(&server[0]), accept(&server[0])];
    assert_eq!(front.goes_to(KNOWN[0], &server), Some(0));
}
