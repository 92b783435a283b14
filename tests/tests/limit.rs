//! A client has fifty connections and gets no more until one of them is gone, in whatever way it goes.

use std::net::IpAddr;

use screen_tests::{
    backend::Backend,
    gate::{Gate, Settings},
    net::Net,
    smtp::Client,
};

const CLIENTS: [&str; 2] = ["198.18.1.1", "2001:2:0:1::1"];
/// The default of `limits.client_connections`.
const LIMIT: usize = 50;

fn gate(net: &Net) -> Gate {
    Gate::start(net, Settings::in_place(net).text("kernel.limit_reply", "drop"))
}

/// As many connections as a client may have: strangers' at first, later a known client's. All of them reach the mail server.
fn fill(net: &Net, gate: &Gate, address: IpAddr) -> Vec<Client> {
    let mut standing: Vec<Client> = (0..LIMIT).map(|_| Client::connect(net.client(), address)).collect();
    for client in &mut standing {
        assert!(client.reply().ends_with("220 patient"));
    }
    wait_active(gate, address, LIMIT);
    standing
}

fn wait_active(gate: &Gate, address: IpAddr, count: usize) {
    gate.wait(&format!("{count} connections of {address} are counted"), || {
        let active = gate.pins().client(address).map_or(0, |entry| entry.number("active"));
        usize::try_from(active) == Ok(count)
    });
}

fn assert_full(net: &Net, gate: &Gate, address: IpAddr) {
    let before = gate.pins().total("Limited", "packets");
    Client::assert_dropped(net.client(), address);
    assert!(gate.pins().count("refused", address, "limited") > 0);
    assert!(gate.pins().total("Limited", "packets") > before);
}

fn assert_let_in(net: &Net, gate: &Gate, address: IpAddr) -> Client {
    let mut client = Client::connect(net.client(), address);
    assert!(client.reply().ends_with("220 patient"));
    wait_active(gate, address, LIMIT);
    client
}

#[test]
fn a_connection_that_is_closed_makes_room() {
    let Some(net) = Net::new() else { return };
    let _server = Backend::patient(&net.edge);
    let gate = gate(&net);
    for address in CLIENTS.map(|address| address.parse().unwrap()) {
        let mut standing = fill(&net, &gate, address);
        assert_full(&net, &gate, address);
        drop(standing.pop());
        wait_active(&gate, address, LIMIT - 1);
        standing.push(assert_let_in(&net, &gate, address));
        assert_full(&net, &gate, address);
        drop(standing);
        wait_active(&gate, address, 0);
    }
}

#[test]
fn a_connection_that_is_reset_makes_room() {
    let Some(net) = Net::new() else { return };
    let _server = Backend::patient(&net.edge);
    let gate = gate(&net);
    for address in CLIENTS.map(|address| address.parse().unwrap()) {
        let mut standing = fill(&net, &gate, address);
        assert_full(&net, &gate, address);
        standing.pop().unwrap().reset();
        wait_active(&gate, address, LIMIT - 1);
        standing.push(assert_let_in(&net, &gate, address));
        standing.into_iter().for_each(Client::reset);
        wait_active(&gate, address, 0);
    }
}

#[test]
fn a_host_that_vanishes_makes_room() {
    let Some(net) = Net::new() else { return };
    // The mail server and the gate ask for keep-alive; how often is up to the host. By default it would take two hours.
    net.edge.sysctl("net.ipv4.tcp_keepalive_time", "2");
    net.edge.sysctl("net.ipv4.tcp_keepalive_intvl", "1");
    net.edge.sysctl("net.ipv4.tcp_keepalive_probes", "2");
    net.client().namespace.sysctl("net.ipv6.conf.c0.keep_addr_on_down", "1");
    let _server = Backend::patient(&net.edge);
    let gate = gate(&net);
    for address in CLIENTS.map(|address| address.parse().unwrap()) {
        // At first strangers, whose connections are the gate's; then a known client, whose connections are the mail server's own.
        for steered in [0, LIMIT] {
            let before = gate.pins().client(address).map_or(0, |entry| entry.number("steered"));
            let standing = fill(&net, &gate, address);
            let now = gate.pins().client(address).unwrap().number("steered");
            assert_eq!(now - before, i64::try_from(steered).unwrap());
            assert_full(&net, &gate, address);
            net.client().namespace.ip("link set c0 down");
            wait_active(&gate, address, 0);
            net.client().namespace.ip("link set c0 up");
            drop(standing);
        }
        let again = fill(&net, &gate, address);
        drop(again);
        wait_active(&gate, address, 0);
    }
}

#[test]
fn one_client_at_its_limit_is_no_concern_of_others() {
    let Some(net) = Net::new() else { return };
    let _server = Backend::patient(&net.edge);
    let gate = gate(&net);
    for (address, neighbour, same) in [
        ("198.18.1.1", "198.18.1.2", None),
        // One IPv6 client is a /64: another of its addresses is no way around the limit.
        ("2001:2:0:1::1", "2001:2:0:2::1", Some("2001:2:0:1:ffff::1")),
    ] {
        let address = address.parse().unwrap();
        let standing = fill(&net, &gate, address);
        assert_full(&net, &gate, address);
        if let Some(same) = same {
            Client::assert_dropped(net.client(), same.parse().unwrap());
        }
        assert!(Client::connect(net.client(), neighbour.parse().unwrap()).reply().ends_with("220 patient"));
        drop(standing);
        wait_active(&gate, address, 0);
    }
}
