//! The counts of connections are those of the kernel's table of sockets: whoever ends, and even where somebody has made them wrong.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use nix::sys::signal::Signal;
use screen_tests::{
    backend::Backend,
    bpf::network_of,
    gate::{Gate, Settings},
    net::Net,
    smtp::Client,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn connect(net: &Net, address: IpAddr) -> Client {
    let mut client = Client::connect(net.client(), address);
    assert!(client.reply().ends_with("220 patient"), "{address}");
    client
}

fn active(gate: &Gate, address: IpAddr) -> i64 {
    gate.pins().client(address).map_or(0, |entry| entry.number("active"))
}

fn wait_active(gate: &Gate, address: IpAddr, count: i64) {
    gate.wait(&format!("{count} connections of {address} are counted"), || active(gate, address) == count);
}

/// A client's connections: the first one is the screener's, the others, as it has passed by then, are the mail server's own.
fn open(net: &Net, gate: &Gate, address: IpAddr) -> (Client, [Client; 2]) {
    let screened = connect(net, address);
    let steered = [connect(net, address), connect(net, address)];
    wait_active(gate, address, 3);
    assert_eq!(gate.pins().client(address).unwrap().number("steered"), 2, "{address}");
    (screened, steered)
}

/// Nothing was counted wrong, neither when the gate began nor now.
fn assert_right(gate: &Gate, connections: usize, clients: usize) {
    assert_eq!(gate.tell(&["recount"]), format!("{connections} connections of {clients} clients\n"));
    assert_eq!(gate.logged("were counted"), 0, "there was nothing to correct");
}

#[test]
fn counts_are_right_after_both_processes_were_killed() {
    let Some(net) = Net::new() else { return };
    let _server = Backend::patient(&net.edge);
    let mut gate = Gate::start(&net, Settings::in_place(&net));
    for client in ["198.18.1.1", "2001:2:0:1::1"].map(ip) {
        let (screened, steered) = open(&net, &gate, client);
        gate = Gate::start(&net, gate.kill());
        // Its connections have ended with the screener, the mail server's have not.
        wait_active(&gate, client, 2);
        assert_right(&gate, 2, 1);
        drop(steered);
        wait_active(&gate, client, 0);
        assert_right(&gate, 0, 0);
        drop(screened);
    }
}

#[test]
fn counts_are_right_after_the_screener_was_killed() {
    let Some(net) = Net::new() else { return };
    let _server = Backend::patient(&net.edge);
    let gate = Gate::start(&net, Settings::in_place(&net));
    for client in ["198.18.1.1", "2001:2:0:1::1"].map(ip) {
        let (screened, steered) = open(&net, &gate, client);
        let killed = gate.screener();
        gate.signal_screener(Signal::SIGKILL);
        gate.wait("another screener is at work", || {
            gate.screener_if_any().is_some_and(|screener| screener != killed)
                && gate.control(&["status"]).status.success()
        });
        wait_active(&gate, client, 2);
        assert_right(&gate, 2, 1);
        drop(steered);
        wait_active(&gate, client, 0);
        assert_right(&gate, 0, 0);
        drop(screened);
    }
}

#[test]
fn counts_are_right_after_the_keeper_was_killed() {
    let Some(net) = Net::new() else { return };
    let _server = Backend::patient(&net.edge);
    let mut gate = Gate::start(&net, Settings::in_place(&net));
    for client in ["198.18.1.1", "2001:2:0:1::1"].map(ip) {
        let (screened, steered) = open(&net, &gate, client);
        gate = Gate::start(&net, gate.kill_keeper());
        // The former screener goes on with the client that it has.
        assert_eq!(active(&gate, client), 3);
        assert_right(&gate, 3, 1);
        drop(screened);
        wait_active(&gate, client, 2);
        drop(steered);
        wait_active(&gate, client, 0);
        assert_right(&gate, 0, 0);
    }
}

#[test]
fn a_count_that_is_wrong_is_put_right_and_no_other_while_clients_come_and_go() {
    let Some(net) = Net::new() else { return };
    let _server = Backend::patient(&net.edge);
    let gate = Gate::start(&net, Settings::in_place(&net));
    let (wrong, right) = (["198.18.1.1", "2001:2:0:1::1"].map(ip), ["198.18.1.2", "2001:2:0:2::1"].map(ip));
    let busy = ["198.18.1.3", "2001:2:0:3::1"].map(ip);
    let standing: Vec<_> = wrong.into_iter().chain(right).map(|client| open(&net, &gate, client)).collect();
    let come = AtomicU32::new(0);
    thread::scope(|scope| {
        // Clients come until it is dropped, by a failure too.
        let busy_time = Arc::new(());
        for client in busy {
            let (net, come, busy_time) = (&net, &come, Arc::downgrade(&busy_time));
            scope.spawn(move || {
                while busy_time.upgrade().is_some() {
                    drop(connect(net, client));
                    come.fetch_add(1, Ordering::Release);
                }
            });
        }
        // Too many, and too few.
        for (client, falsified) in wrong.into_iter().flat_map(|client| [(client, 7), (client, 1)]) {
            let before = come.load(Ordering::Acquire);
            gate.wait("clients come and go", || come.load(Ordering::Acquire) > before);
            gate.pins().falsify_active(client, falsified);
            let said = gate.tell(&["recount"]);
            let sentence = format!("{}: {falsified} were counted, 3 are there: corrected", network_of(client));
            assert!(said.lines().any(|line| line == sentence), "{said}");
            assert_eq!(said.matches("corrected").count(), 1, "{said}");
            gate.wait_log(&format!("connections of {sentence}"));
            wrong.into_iter().chain(right).for_each(|client| assert_eq!(active(&gate, client), 3, "{client}"));
        }
    });
    assert_eq!(gate.logged("were counted"), 4, "what was made wrong, and nothing else");
    for client in busy {
        wait_active(&gate, client, 0);
    }
    assert_eq!(gate.tell(&["recount"]), "12 connections of 4 clients\n");
    drop(standing);
    for client in wrong.into_iter().chain(right) {
        wait_active(&gate, client, 0);
    }
}

#[test]
fn where_nothing_is_counted_nothing_is_counted_anew() {
    let Some(net) = Net::new() else { return };
    let gate = Gate::start(&net, Settings::front(&net, "127.0.0.1:2525").text("kernel.mode", "off"));
    let refused = gate.control(&["recount"]);
    assert_eq!(refused.status.code(), Some(69));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("the kernel part does not run"), "{said}");
}
