//! Counts, held against the kernel's table of sockets: right whatever comes, and put right where they are not.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use aya::maps::{HashMap, Map, MapData};
use screen_user::kernel::{Corrected, Expiry, Plan, Reason, Recount};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{
    frames::Frame,
    place::{HOST, NEIGHBOUR, is_older_than, plan, privileged},
    site::{Site, Taker, wait_for},
};

/// Of each family one whose connections go to the mail server.
const KNOWN: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// And one that meets the screener. An IPv6 client is an address here.
const STRANGERS: [&str; 2] = ["192.0.2.3", "2001:db8::3"];

type Clients = HashMap<MapData, [u8; 16], [u8; 48]>;

fn site() -> Site {
    let site = Site::new(Plan { client_prefix: screen_user::config::ClientPrefix { ipv4: 32, ipv6: 128 }, ..plan() });
    for known in KNOWN {
        site.kernel.pass(known.parse().unwrap(), Expiry::NEVER).unwrap();
    }
    site
}

/// A connection and the server's end of it.
fn open(site: &Site, client: &str) -> (TcpStream, TcpStream) {
    let connection = site.connect(client);
    let (taker, end) = site.taken();
    assert_eq!(taker, if KNOWN.contains(&client) { Taker::Mail } else { Taker::Screener });
    (connection, end)
}

fn recount(site: &Site) -> Recount {
    site.pair.within(HOST, || site.kernel.installation.recount().unwrap())
}

/// The table behind the gate's back.
fn clients(site: &Site) -> Clients {
    let pinned = MapData::from_pin(site.plan.pin_path.join("maps/clients")).unwrap();
    Clients::try_from(Map::from_map_data(pinned).unwrap()).unwrap()
}

fn key(client: &str) -> [u8; 16] {
    match client.parse().unwrap() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Makes a client's count wrong.
fn falsify(site: &Site, client: &str, active: u64) {
    let mut clients = clients(site);
    let mut value = clients.get(&key(client), 0).unwrap();
    value[..8].copy_from_slice(&active.to_ne_bytes());
    clients.insert(key(client), value, 0).unwrap();
}

fn total(site: &Site, reason: Reason) -> u64 {
    site.kernel.totals().unwrap().into_iter().find(|(known, _)| *known == reason).unwrap().1.packets
}

#[test]
fn counts_that_are_wrong_are_found_and_put_right() {
    if !privileged() {
        return;
    }
    let site = site();
    let everybody: Vec<&str> = KNOWN.into_iter().chain(STRANGERS).collect();
    let standing: Vec<_> = everybody.iter().flat_map(|client| [open(&site, client), open(&site, client)]).collect();
    let right = Recount { connections: 8, clients: 4, ..Recount::default() };
    assert_eq!(recount(&site), right);

    // Too high, too low, and forgotten altogether; and one of a client that has no connection at all.
    falsify(&site, KNOWN[0], 7);
    falsify(&site, KNOWN[1], 0);
    falsify(&site, STRANGERS[0], 3);
    clients(&site).remove(&key(STRANGERS[1])).unwrap();
    let (gone, end) = open(&site, "192.0.2.5");
    drop((gone, end));
    site.wait_active("192.0.2.5", 0);
    falsify(&site, "192.0.2.5", 1);
    let mut found = recount(&site);
    found.corrected.sort_by_key(|corrected| corrected.client);
    let corrected =
        [(KNOWN[0], 7, 2), (STRANGERS[0], 3, 2), ("192.0.2.5", 1, 0), (KNOWN[1], 0, 2), (STRANGERS[1], 0, 2)]
            .map(|(client, counted, connections)| Corrected { client: client.parse().unwrap(), counted, connections })
            .to_vec();
    assert_eq!(found, Recount { corrected, ..right.clone() });
    for client in &everybody {
        assert_eq!(site.active(client), 2, "{client}");
    }
    assert_eq!(recount(&site), right, "all is well now");
    drop(standing);
    for client in everybody {
        site.wait_active(client, 0);
    }
    assert_eq!(recount(&site), Recount::default());
}

#[test]
fn more_wrong_counts_than_one_walk_corrects_are_put_right_as_well() {
    if !privileged() {
        return;
    }
    let site = site();
    let mut clients = clients(&site);
    for last in 0..200u8 {
        let mut value = [0; 48];
        value[..8].copy_from_slice(&3u64.to_ne_bytes());
        clients.insert(key(&format!("198.51.100.{last}")), value, 0).unwrap();
    }
    assert_eq!(recount(&site).corrected.len(), 200);
    assert!(site.kernel.clients().iter().all(|(_, client)| client.active == 0));
}

#[test]
fn a_recount_in_the_midst_of_traffic_touches_nothing_that_is_right() {
    if !privileged() {
        return;
    }
    let site = site();
    let standing: Vec<_> = KNOWN.into_iter().chain(STRANGERS).map(|client| open(&site, client)).collect();
    let made = AtomicU32::new(0);
    thread::scope(|scope| {
        // There is traffic until it is dropped, by a failure too.
        let busy_time = Arc::new(());
        for client in KNOWN.into_iter().chain(STRANGERS) {
            let (site, made, busy_time) = (&site, &made, Arc::downgrade(&busy_time));
            scope.spawn(move || {
                while busy_time.upgrade().is_some() {
                    let connection = site.connect(client);
                    drop((site.taken(), connection));
                    made.fetch_add(1, Ordering::Release);
                }
            });
        }
        for _ in 0..8 {
            let before = made.load(Ordering::Acquire);
            assert_eq!(recount(&site).corrected, []);
            wait_for("traffic", || (made.load(Ordering::Acquire) > before).then_some(()));
        }
    });
    for client in KNOWN.into_iter().chain(STRANGERS) {
        site.wait_active(client, 1);
    }
    drop(standing);
    for client in KNOWN.into_iter().chain(STRANGERS) {
        site.wait_active(client, 0);
    }
}

/// An IP packet with a TCP checksum, as a raw socket takes it.
fn packet(frame: &Frame) -> Vec<u8> {
    const ETHERNET: usize = 14;
    let mut packet = frame.bytes().split_off(ETHERNET);
    let (header, addresses) = if frame.client.is_ipv4() { (20, 12..20) } else { (40, 8..40) };
    let length = packet.len() - header;
    let pseudo = [packet[addresses].to_vec(), (length as u32).to_be_bytes().to_vec(), vec![0, 0, 0, 6]].concat();
    let words = pseudo.chunks(2).chain(packet[header..].chunks(2));
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    packet[header + 16..header + 18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}

#[test]
fn a_flood_of_syns_with_forged_sources_leaves_counts_and_table_as_they_are() {
    const SYNS: u16 = 4_000;
    if !privileged() {
        return;
    }
    let site = site();
    // What the host answers to nobody goes to the neighbour, and ends there.
    site.pair.run_in(HOST, &["ip", "route", "add", "default", "via", "192.0.2.2"]);
    site.pair.run_in(HOST, &["ip", "-6", "route", "add", "default", "via", "2001:db8::2"]);
    site.pair.run_in(HOST, &["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.mail0.rp_filter=0"]);
    let everybody: Vec<&str> = KNOWN.into_iter().chain(STRANGERS).collect();
    let standing: Vec<_> = everybody.iter().map(|client| open(&site, client)).collect();
    let before = total(&site, Reason::Admitted);
    site.pair.within(NEIGHBOUR, || {
        for (domain, server) in [(Domain::IPV4, "192.0.2.1:0"), (Domain::IPV6, "[2001:db8::1]:0")] {
            // Of this protocol number, the header is the sender's.
            let raw = Socket::new(domain, Type::RAW, Some(Protocol::from(255))).unwrap();
            let server = SockAddr::from(server.parse::<SocketAddr>().unwrap());
            for number in 0..SYNS {
                let [high, low] = number.to_be_bytes();
                let source = match domain {
                    Domain::IPV4 => format!("198.18.{high}.{low}"),
                    _ => format!("2001:db8:{number:x}::1"),
                };
                raw.send_to(&packet(&Frame { sequence: 7, ..Frame::syn(&source) }), &server).unwrap();
            }
        }
    });
    let come = || total(&site, Reason::Admitted) - before;
    wait_for("the flood to have come through", || (come() == 2 * u64::from(SYNS)).then_some(()));
    assert_eq!(site.kernel.clients().len(), everybody.len(), "no forged source has an entry");
    let right = Recount { connections: 4, clients: 4, ..Recount::default() };
    assert_eq!(recount(&site), right);
    // Whoever is real gets in, and is counted.
    let more: Vec<_> = everybody.iter().map(|client| open(&site, client)).collect();
    for client in &everybody {
        assert_eq!(site.active(client), 2, "{client}");
    }
    assert_eq!(recount(&site), Recount { connections: 8, ..right });
    drop((standing, more));
    for client in everybody {
        site.wait_active(client, 0);
    }
}

#[test]
fn a_full_table_keeps_every_live_count_and_turns_nobody_away() {
    if !privileged() {
        return;
    }
    let site = site();
    let standing: Vec<_> = [KNOWN[0], STRANGERS[1]].map(|client| open(&site, client)).into();
    let mut table = clients(&site);
    let filler = |number: u32| (0xfd_u128 << 120 | u128::from(number)).to_be_bytes();
    let fillers = (0..).take_while(|&number| table.insert(filler(number), [0; 48], 0).is_ok()).count() as u32;

    let late: Vec<_> = [KNOWN[1], STRANGERS[0]].map(|client| open(&site, client)).into();
    assert_eq!(total(&site, Reason::ClientsFull), 2, "let in, and the operator is told");
    assert_eq!(site.kernel.no_room(), [("clients", 2)]);
    assert!([KNOWN[1], STRANGERS[0]].iter().all(|client| site.active(client) == 0));
    let more: Vec<_> = [KNOWN[0], STRANGERS[1]].map(|client| open(&site, client)).into();
    assert!([KNOWN[0], STRANGERS[1]].iter().all(|client| site.active(client) == 2), "who is counted stays counted");
    assert_eq!(recount(&site), Recount { connections: 4, clients: 2, ..Recount::default() });

    for number in 0..fillers {
        table.remove(&filler(number)).unwrap();
    }
    // With room again, the next walk finds who was left out, where the kernel lets it hear of the end.
    site.pair.within(HOST, || site.kernel.installation.look_at_sockets().unwrap());
    let found = u64::from(!is_older_than(6, 12));
    assert!([KNOWN[1], STRANGERS[0]].iter().all(|client| site.active(client) == found));
    drop((standing, late, more));
    for client in KNOWN.into_iter().chain(STRANGERS) {
        site.wait_active(client, 0);
    }
}

#[test]
fn connections_of_a_host_that_vanished_are_counted_until_keep_alive_gives_them_up() {
    if !privileged() {
        return;
    }
    let site = site();
    for (name, value) in [("time", 1), ("intvl", 1), ("probes", 2)] {
        site.pair.run_in(HOST, &["sysctl", "-qw", &format!("net.ipv4.tcp_keepalive_{name}={value}")]);
    }
    let everybody: Vec<&str> = KNOWN.into_iter().chain(STRANGERS).collect();
    let standing: Vec<_> = everybody.iter().map(|client| open(&site, client)).collect();
    site.pair.run_in(NEIGHBOUR, &["ip", "link", "set", "net0", "down"]);
    assert_eq!(recount(&site), Recount { connections: 4, clients: 4, ..Recount::default() });
    for (_, end) in &standing {
        socket2::SockRef::from(end).set_keepalive(true).unwrap();
    }
    for client in everybody {
        site.wait_active(client, 0);
    }
    assert_eq!(recount(&site), Recount::default());
}
