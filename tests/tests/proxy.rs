//! Behind a proxy, the client is who the PROXY header says.

use std::{net::IpAddr, thread, time::Duration};

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};

const BACKEND: &str = "127.0.0.1:10025";
const PROXIES: [&str; 2] = ["198.18.0.80", "2001:2::80"];
const STRANGER: &str = "198.18.0.9";
const TEASER: &str = "220-mx.example.test ESMTP";
const POSTFIX: &str = "220 mx.example.test ESMTP Postfix (Debian/GNU)";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn scene() -> Option<(Net, Postfix, Gate)> {
    let net = Net::new()?;
    let postfix = Postfix::start_with(&net, &[(BACKEND, "smtpd_upstream_proxy_protocol=haproxy")]);
    let settings = Settings::front(&net, BACKEND)
        .text("forward.client_address", "proxy-v2")
        .set("proxy_protocol.from", r#"["198.18.0.80", "2001:2::80/128"]"#)
        .text("proxy_protocol.timeout", "2s");
    let gate = Gate::start(&net, settings);
    Some((net, postfix, gate))
}

/// A version 2 header: command, family, address block, extensions.
fn version_2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &length, block].concat()
}

fn block(client: &str, server: &str) -> Vec<u8> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    [octets(ip(client)), octets(ip(server)), vec![0x9c, 0x40, 0, 25]].concat()
}

/// A client's visit through the proxy, under the name that the header gave it.
fn visit(gate: &Gate, postfix: &Postfix, connection: &mut Client, name: &str, shown: &str) {
    assert_eq!((connection.line().as_str(), connection.line().as_str()), (TEASER, POSTFIX), "{name}");
    connection.deliver("Subject: through a proxy\r\n\r\nbody\r\n");
    gate.wait_log(&format!("PASS NEW {name}"));
    postfix.wait_log(&format!("client=unknown{shown}"));
}

#[test]
fn both_versions_name_the_client_in_whatever_pieces_they_come() {
    let Some((net, postfix, gate)) = scene() else { return };
    let tlv = [3, 0, 4, 0xde, 0xad, 0xbe, 0xef, 0xee, 0, 3, b'a', b'b', b'c'];
    let with_tlv = [block("203.0.113.3", "198.18.0.1"), tlv.to_vec()].concat();
    let mut many = block("203.0.113.4", "198.18.0.1");
    many.extend([0xee, 0x0b, 0xb8].into_iter().chain([0x55; 3000]));
    for (proxy, header, client) in [
        (PROXIES[0], b"PROXY TCP4 203.0.113.1 198.18.0.1 40000 25\r\n".to_vec(), "203.0.113.1"),
        (PROXIES[1], b"PROXY TCP6 2001:db8:1::1 2001:2::1 40000 25\r\n".to_vec(), "2001:db8:1::1"),
        (PROXIES[0], version_2(0x21, 0x11, &block("203.0.113.2", "198.18.0.1")), "203.0.113.2"),
        (PROXIES[1], version_2(0x21, 0x21, &block("2001:db8:2::1", "2001:2::1")), "2001:db8:2::1"),
        (PROXIES[0], version_2(0x21, 0x11, &with_tlv), "203.0.113.3"),
        (PROXIES[0], version_2(0x21, 0x11, &many), "203.0.113.4"),
    ] {
        let mut connection = Client::connect(net.client(), ip(proxy));
        // No piece ends where a field ends. The pauses only make it likely that pieces come as such; the answer is the same.
        for piece in header.chunks(header.len() / 5 + 1) {
            connection.send(piece);
            thread::sleep(Duration::from_millis(20));
        }
        visit(&gate, &postfix, &mut connection, &format!("[{client}]:40000"), &format!("[{client}]:40000"));
        connection.quit();
        // The proxy was no client at any time.
        assert_eq!(gate.logged(&format!("[{proxy}]")), 0);

        let mut again = Client::connect(net.client(), ip(proxy));
        // What comes together with the header is the client's.
        again.send([header.as_slice(), b"EHLO client.example.test\r\n"].concat());
        assert_eq!(again.line(), POSTFIX, "{client} is known by its own address");
        gate.wait_log(&format!("PASS OLD [{client}]:40000"));
    }
}

#[test]
fn a_client_behind_the_proxy_that_talks_early_is_caught() {
    let Some((net, _postfix, gate)) = scene() else { return };
    let mut connection = Client::connect(net.client(), ip(PROXIES[0]));
    connection.send("PROXY TCP4 203.0.113.9 198.18.0.1 40000 25\r\nEHLO early\r\n");
    assert_eq!(connection.line(), TEASER);
    let line = gate.wait_log("PREGREET 12 after ");
    assert!(line.ends_with(r"from [203.0.113.9]:40000: EHLO early\r\n"), "{line}");
}

#[test]
fn the_proxy_may_speak_for_itself() {
    let Some((net, postfix, gate)) = scene() else { return };
    for (proxy, header) in [(PROXIES[0], version_2(0x20, 0, &[])), (PROXIES[1], version_2(0x20, 0x11, &[1; 12]))] {
        let mut connection = Client::connect(net.client(), ip(proxy));
        connection.send(header);
        let name = connection.name();
        visit(&gate, &postfix, &mut connection, &name, &name);
        connection.quit();
    }
}

#[test]
fn a_proxy_without_a_header_is_sent_away() {
    let Some((net, _postfix, gate)) = scene() else { return };
    let mut silent = Client::connect(net.client(), ip(PROXIES[0]));
    let mut halfway = Client::connect(net.client(), ip(PROXIES[1]));
    halfway.send("PROXY TCP6 2001:db8");
    for connection in [&mut silent, &mut halfway] {
        assert_eq!(connection.line(), "421 4.3.2 No system resources");
        connection.wait_closed();
    }
    gate.wait("both are logged", || gate.logged("warning: haproxy read: time limit exceeded") == 2);
    let mut direct = Client::connect(net.client(), ip(PROXIES[0]));
    direct.send("EHLO not.a.proxy.example.test\r\n");
    assert_eq!(direct.line(), "421 4.3.2 No system resources");
    gate.wait_log("warning: haproxy read: unrecognized protocol header: EHLO not.a.proxy");
    assert_eq!(gate.logged("CONNECT from"), 0);
}

#[test]
fn others_are_taken_as_they_are() {
    let Some((net, postfix, gate)) = scene() else { return };
    let mut plain = Client::connect(net.client(), ip(STRANGER));
    let name = plain.name();
    visit(&gate, &postfix, &mut plain, &name, &name);
    // Who is not on the list can't say that it is somebody else.
    let mut liar = Client::connect(net.client(), ip("198.18.0.10"));
    liar.send("PROXY TCP4 203.0.113.1 198.18.0.1 40000 25\r\n");
    let line = gate.wait_log("PREGREET 44 after ");
    assert!(line.contains(&format!("from {}: PROXY TCP4 203.0.113.1", liar.name())), "{line}");
    assert_eq!(gate.logged("[203.0.113.1]:"), 0);
}
