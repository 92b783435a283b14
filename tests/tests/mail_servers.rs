//! Real mail servers behind the gate: each knows its clients by their true addresses, and nothing is configured in it.

use std::net::{IpAddr, SocketAddr};

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    privilege,
    server::{Kind, Server},
    smtp::Client,
};

/// A client, and one that the server turns away, of each family.
const CLIENTS: [[&str; 2]; 2] = [["198.18.1.1", "198.18.9.1"], ["2001:2:0:1::1", "2001:2:0:9::1"]];
const TEASER: &str = "220-mx.example.test ESMTP";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The way of a client to the mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Through the screener, which relays.
    Relayed,
    /// By the kernel.
    Steered,
}

fn visit(net: &Net, gate: &Gate, kind: Kind, client: &str, way: Way) -> Client {
    let mut client = Client::connect(net.client(), ip(client));
    if way == Way::Relayed {
        assert_eq!(client.line(), TEASER);
    }
    let greeting = client.line();
    assert!(greeting.starts_with("220 ") && greeting.contains(kind.name()), "{greeting}");
    match way {
        Way::Relayed => gate.wait_log(&format!("PASS NEW {}", client.name())),
        Way::Steered => gate.wait_log(&format!("PASS OLD {} (kernel)", client.name())),
    };
    client
}

/// Each client comes twice: relayed at first, and then steered.
fn each_client_is_known(kind: Kind, net: &Net, gate: &Gate, server: &Server) {
    let mut delivered = 0;
    for [client, barred] in CLIENTS {
        for way in [Way::Relayed, Way::Steered] {
            let mut good = visit(net, gate, kind, client, way);
            good.deliver(&format!("Subject: {way:?}\r\n\r\nbody\r\n"));
            server.wait_client(good.local());
            good.quit();
            delivered += 1;
            let mail = server.wait_mail(delivered);
            let newest =
                mail.iter().find(|mail| mail.contains(&format!("Subject: {way:?}\n")) && mail.contains(client));
            let headers = newest.and_then(|mail| mail.split("\n\n").next());
            assert!(headers.is_some_and(|headers| headers.contains("Received: from")), "{client} {way:?}: {mail:?}");

            let mut bad = visit(net, gate, kind, barred, way);
            bad.command("EHLO client.example.test", "250");
            bad.command("MAIL FROM:<sender@client.example.test>", "250");
            bad.command("RCPT TO:<inbox@example.test>", "55");
            bad.quit();
        }
        for address in [client, barred] {
            let counted = gate.pins().client(ip(address)).expect("the client in the map clients");
            assert_eq!((counted.number("accepted"), counted.number("steered")), (2, 1), "{address}");
        }
    }
    gate.wait("the relay's entries are gone with its connections", || gate.pins().dump("relay_clients").is_empty());
}

fn in_place(kind: Kind) {
    let Some(net) = Net::new().filter(|_| privilege::has_mail_programs()) else { return };
    let server = Server::start(&net, kind, &[]);
    let gate = Gate::start(&net, Settings::in_place(&net));
    each_client_is_known(kind, &net, &gate, &server);
}

fn in_front(kind: Kind) {
    let Some(net) = Net::new().filter(|_| privilege::has_mail_programs()) else { return };
    let listen: [SocketAddr; 2] = ["127.0.0.1:10025", "[::1]:10025"].map(|address| address.parse().unwrap());
    let server = Server::start(&net, kind, &listen);
    let gate = Gate::start(&net, Settings::front(&net, "127.0.0.1:10025"));
    each_client_is_known(kind, &net, &gate, &server);
}

#[test]
fn postfix_in_place() {
    in_place(Kind::Postfix);
}

#[test]
fn postfix_behind_the_gate() {
    in_front(Kind::Postfix);
}

#[test]
fn exim_in_place() {
    in_place(Kind::Exim);
}

#[test]
fn exim_behind_the_gate() {
    in_front(Kind::Exim);
}

#[test]
fn opensmtpd_in_place() {
    in_place(Kind::OpenSmtpd);
}

#[test]
fn opensmtpd_behind_the_gate() {
    in_front(Kind::OpenSmtpd);
}

#[test]
fn haraka_in_place() {
    in_place(Kind::Haraka);
}

#[test]
fn haraka_behind_the_gate() {
    in_front(Kind::Haraka);
}
