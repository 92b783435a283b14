//! The connections of a client, counted and limited.

use std::{io::ErrorKind, net::TcpStream, time::Duration};

use screen_user::kernel::{Expiry, Plan};

use super::{
    place::{HOST, NEIGHBOUR, plan, privileged},
    site::{Site, Taker, reset},
};

#[test]
fn the_count_follows_every_end_of_a_connection() {
    if !privileged() {
        return;
    }
    let site = Site::new(plan());
    for client in ["192.0.2.2", "2001:db8::2"] {
        // First a stranger, whose connections are the screener's, then a known client, whose connections are the mail server's.
        for taker in [Taker::Screener, Taker::Mail] {
            if taker == Taker::Mail {
                site.kernel.pass(client.parse().unwrap(), Expiry::NEVER).unwrap();
            }
            let open = || {
                let connection = site.connect(client);
                let (taken_by, end) = site.taken();
                assert_eq!(taken_by, taker);
                (connection, end)
            };
            let [closes, resets, server_closes, server_resets] = [open(), open(), open(), open()];
            let not_accepted = site.connect(client);
            site.wait_active(client, 5);
            drop(closes.0);
            drop(closes.1);
            site.wait_active(client, 4);
            reset(resets.0);
            site.wait_active(client, 3);
            drop(server_closes.1);
            drop(server_closes.0);
            site.wait_active(client, 2);
            reset(server_resets.1);
            site.wait_active(client, 1);
            reset(not_accepted);
            site.wait_active(client, 0);
            let (_, dead) = site.taken();
            drop(dead);
        }
        let counters = site.kernel.counters(client.parse().unwrap()).unwrap().unwrap();
        assert_eq!((counters.accepted, counters.steered), (10, 5));
    }
}

#[test]
fn a_client_at_its_limit_gets_no_more_until_one_goes() {
    if !privileged() {
        return;
    }
    let site = Site::new(plan());
    let mut standing = Vec::new();
    for client in ["192.0.2.2", "2001:db8::2"] {
        let mut open: Vec<(TcpStream, TcpStream)> = (0..50).map(|_| (site.connect(client), site.taken().1)).collect();
        assert_eq!(site.active(client), 50);
        let error = site.connect_within(client, Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(site.kernel.counters(client.parse().unwrap()).unwrap().unwrap().limited >= 1);
        open.pop();
        site.wait_active(client, 49);
        open.push((site.connect(client), site.taken().1));
        site.connect_within(client, Duration::from_millis(300)).unwrap_err();
        standing.extend(open);
    }
    // One client's connections are not another's; but a /64 is one client.
    drop(site.connect("192.0.2.3"));
    site.connect_within("2001:db8::3", Duration::from_millis(300)).unwrap_err();
}

#[test]
fn a_burst_ahead_of_its_acknowledgements_does_not_overshoot() {
    if !privileged() {
        return;
    }
    let site = Site::new(Plan { limit: 10, ..plan() });
    // The neighbours know each other; then the host sends one packet in 80 ms: all SYNs are there before the second ACK can be.
    drop(site.connect("192.0.2.3"));
    drop(site.taken());
    let slowly =
        ["tc", "qdisc", "add", "dev", "mail0", "root", "tbf", "rate", "8kbit", "burst", "90", "latency", "10s"];
    site.pair.run_in(HOST, &slowly);
    let established: Vec<TcpStream> = std::thread::scope(|scope| {
        let attempts: Vec<_> =
            (0..40).map(|_| scope.spawn(|| site.connect_within("192.0.2.2", Duration::from_secs(4)))).collect();
        attempts.into_iter().filter_map(|attempt| attempt.join().unwrap().ok()).collect()
    });
    assert_eq!(established.len(), 10, "all that the limit allows, and no more");
    assert_eq!(site.active("192.0.2.2"), 10);
}

#[test]
fn a_vanished_host_is_counted_until_its_connections_are_given_up() {
    if !privileged() {
        return;
    }
    let site = Site::new(plan());
    let (_gone, end) = (site.connect("192.0.2.2"), site.taken().1);
    site.pair.run_in(NEIGHBOUR, &["ip", "link", "set", "net0", "down"]);
    assert_eq!(site.active("192.0.2.2"), 1);
    reset(end);
    site.wait_active("192.0.2.2", 0);
}
