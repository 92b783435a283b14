//! A pool of mail servers takes the deep tests once.

use std::net::IpAddr;

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};

const TEASER: &str = "220-mx.example.test ESMTP";
const SCREENER: &str = "220 mx.example.test ESMTP";
const POSTFIX: &str = "220 mx.example.test ESMTP Postfix (Debian/GNU)";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A new client that waits to be greeted, and who greets it.
fn greeted(net: &Net, client: &str) -> (Client, String) {
    let mut client = Client::connect(net.client(), ip(client));
    assert_eq!(client.line(), TEASER, "nobody is spared the greet wait");
    let greeting = client.line();
    (client, greeting)
}

/// Takes the deep tests and passes them.
fn passes_deep_tests(net: &Net, gate: &Gate, address: &str) {
    let (mut client, greeting) = greeted(net, address);
    assert_eq!(greeting, SCREENER, "{address}");
    client.command("EHLO client.example.test", "250");
    client.command("MAIL FROM:<sender@client.example.test>", "250");
    client.command("RCPT TO:<inbox@example.test>", "450");
    let passes = format!("PASS NEW {}", client.name());
    client.quit();
    gate.wait_log(&passes);
}

#[test]
fn a_neighbour_goes_on_without_deep_tests_until_somebody_fails() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let mut settings = Settings::in_place(&net)
        .set("cache.pool_credit", "{ ipv4 = 24, ipv6 = 56 }")
        .text("forward.after_deep_tests", "reconnect")
        .text("pregreet.action", "enforce");
    for test in ["pipelining", "non_smtp_command", "bare_newline"] {
        settings = settings.set(&format!("{test}.enable"), "true");
    }
    let gate = Gate::start(&net, settings);
    let pools = [
        ["198.18.1.1", "198.18.1.2", "198.18.2.1", "198.18.1.3", "198.18.1.4"],
        ["2001:2:0:1::1", "2001:2:0:2::1", "2001:2:0:100::1", "2001:2:0:3::1", "2001:2:0:4::1"],
    ];
    for [first, neighbour, stranger, early, last] in pools {
        passes_deep_tests(&net, &gate, first);
        let credit = gate.ask(&["explain", neighbour])["pool_credit"].clone();
        assert_eq!(credit["earned_by"], gate.client_net(ip(first)));
        let (mut spared, greeting) = greeted(&net, neighbour);
        assert_eq!(greeting, POSTFIX);
        spared.deliver("Subject: from the pool\r\n\r\nbody\r\n");
        gate.wait_log(&format!("PASS NEW {}", spared.name()));
        spared.quit();
        // It is known now, as any client that has passed.
        assert_eq!(Client::connect(net.client(), ip(neighbour)).line(), POSTFIX);
        assert_eq!(greeted(&net, stranger).1, SCREENER, "another network");

        let mut talker = Client::connect(net.client(), ip(early));
        assert_eq!(talker.line(), TEASER);
        talker.send("EHLO early\r\n");
        gate.wait_log(&format!("from {}: EHLO early", talker.name()));
        assert!(gate.ask(&["explain", neighbour])["pool_credit"].is_null());
        passes_deep_tests(&net, &gate, last);
    }
    assert_eq!(gate.ask(&["status"])["screening"]["credits"], 2);
    let settings = gate.settings().clone();
    gate.stop();
    // Records outlive the gate, credit does not.
    let gate = Gate::start(&net, settings);
    assert_eq!(gate.ask(&["status"])["screening"]["credits"], 0);
    assert_eq!(Client::connect(net.client(), ip("198.18.1.2")).line(), POSTFIX);
    assert_eq!(greeted(&net, "198.18.1.5").1, SCREENER);
    gate.stop();
}
