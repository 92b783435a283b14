//! Clients of the kernel's own stack that are told why they are turned away.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use screen_user::{
    config::{Layout, XdpMode},
    kernel::{ListId, Plan},
};

use super::{
    place::{HOST, NEIGHBOUR, Started, plan, privileged},
    refusing::{REFUSAL, deny, outspoken},
    site::{PATIENCE, Site},
};

const BUSY: &str = "421 4.7.0 Error: too many connections\r\n";

fn host(client: &str) -> String {
    format!("{client}/{}", if client.contains(':') { 128 } else { 32 })
}

/// All that the client hears until the end, after it has said `first`.
fn heard(mut stream: &TcpStream, first: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(first.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn clients_of_a_real_stack_are_told_and_let_go_in_order() {
    if !privileged() {
        return;
    }
    for xdp in [XdpMode::Generic, XdpMode::Native] {
        let site = Site::new(Plan { xdp, limit: 4, ..outspoken() });
        // What the gate sends natively over a veth arrives only where the other end runs XDP as well.
        let neighbour = site.pair.within(NEIGHBOUR, || {
            Started::new(&Plan { xdp, layout: Layout::Front, ports: vec![26], ..plan() }).unwrap()
        });
        // Nothing tells a namespace of what happens in another.
        site.pair.within(HOST, || site.kernel.installation.refresh_interfaces()).unwrap();
        for client in ["192.0.2.4", "2001:db8::4"] {
            deny(&site.kernel, &host(client), ListId::OPERATOR);
            for first in ["", "EHLO early\r\n"] {
                for _ in 0..20 {
                    let stream = site.connect(client);
                    assert_eq!(heard(&stream, first), REFUSAL, "{client} {xdp:?}");
                    // Its QUIT is taken, although nobody listens any more.
                    (&stream).write_all(b"QUIT\r\n").unwrap();
                }
            }
        }
        for client in ["192.0.2.2", "2001:db8::2"] {
            let kept: Vec<TcpStream> = (0..4).map(|_| site.connect(client)).collect();
            site.wait_active(client, 4);
            assert_eq!(heard(&site.connect(client), ""), BUSY, "{client} {xdp:?}");
            drop(kept);
        }
        // A connection that was there before its client was denied is nobody's to cut.
        let open = site.connect("192.0.2.3");
        let (_, mut served) = site.taken_from("192.0.2.3");
        deny(&site.kernel, "192.0.2.3/32", ListId::OPERATOR);
        (&open).write_all(b"MAIL\r\n").unwrap();
        let mut line = [0; 6];
        served.set_nonblocking(false).unwrap();
        served.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"MAIL\r\n");
        assert_eq!(heard(&site.connect("192.0.2.3"), ""), REFUSAL);
        drop(neighbour);
    }
}

#[test]
fn small_segments_carry_the_text() {
    if !privileged() {
        return;
    }
    let site = Site::new(outspoken());
    deny(&site.kernel, "192.0.2.4/32", ListId::OPERATOR);
    // The least that Linux announces.
    site.pair.run_in(NEIGHBOUR, &["ip", "route", "replace", "192.0.2.1/32", "dev", "net0", "advmss", "88"]);
    let stream = site.connect("192.0.2.4");
    assert_eq!(heard(&stream, ""), REFUSAL);
}
