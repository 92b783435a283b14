//! DNS lists have a say, by score.

use std::{net::IpAddr, time::Duration};

use screen_tests::{
    dns::{DnsServer, Zone},
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};
use serde_json::{Value, json};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two zones, of which one alone is not enough for a threshold of 3.
fn settings(net: &Net) -> Settings {
    Settings::in_place(net)
        .set("dnsbl.resolvers", r#"["127.0.0.1:53"]"#)
        .set("dnsbl.sites", r#"["heavy.example*2", "light.example=127.0.0.[4..7]*1"]"#)
        .set("dnsbl.threshold", "3")
        .text("kernel.deny_reply", "drop")
}

#[test]
fn a_client_on_two_lists_is_dropped_and_on_one_is_not() {
    let Some(net) = Net::new() else { return };
    let (both4, both6) = (ip("198.18.1.1"), ip("2001:2:0:1::1"));
    let (one4, one6, filtered) = (ip("198.18.1.2"), ip("2001:2:0:2::1"), ip("198.18.1.3"));
    let heavy =
        [both4, both6, one4, one6, filtered].into_iter().fold(Zone::new("heavy.example"), |zone, at| zone.list(at, 2));
    let light = Zone::new("light.example").list(both4, 4).list(both6, 7).list(filtered, 9);
    let dns = DnsServer::start(&net.edge, vec![heavy, light]);
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, settings(&net).text("dnsbl.action", "drop"));
    for address in [both4, both6] {
        let mut client = Client::connect(net.client(), address);
        assert_eq!(client.line(), "220-mx.example.test ESMTP");
        assert_eq!(
            client.line(),
            format!("521 5.7.1 Service unavailable; client [{address}] blocked using heavy.example")
        );
        client.wait_closed();
        gate.wait_log(&format!("DNSBL rank 3 for {}", client.name()));
        gate.wait_denied(address);
        Client::assert_dropped(net.client(), address);
    }
    for address in [one4, one6, filtered] {
        let mut client = Client::connect(net.client(), address);
        assert_eq!(client.line(), "220-mx.example.test ESMTP");
        assert_eq!(client.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
        gate.wait_log(&format!("PASS NEW {}", client.name()));
        assert_eq!(gate.logged(&format!("for {}", client.name())), 0, "no rank below the threshold");
        client.quit();
    }
    assert_eq!(dns.asked("1.1.18.198.light.example"), 1, "one question for each client and zone");
}

#[test]
fn enforce_names_the_zone_as_the_reply_map_says() {
    let Some(net) = Net::new() else { return };
    let listed = ip("198.18.1.1");
    let zones = ["secret-key.heavy.example", "light.example"].map(|name| Zone::new(name).list(listed, 4));
    let dns = DnsServer::start(&net.edge, zones.to_vec());
    let _postfix = Postfix::start(&net);
    let settings = settings(&net)
        .set("dnsbl.sites", r#"["secret-key.heavy.example*2", "light.example"]"#)
        .set("dnsbl.reply_map", r#"{ "secret-key.heavy.example" = "heavy.example" }"#)
        .text("dnsbl.action", "enforce");
    let gate = Gate::start(&net, settings);
    let mut client = Client::connect(net.client(), listed);
    assert_eq!(client.line(), "220-mx.example.test ESMTP");
    assert_eq!(client.line(), "220 mx.example.test ESMTP");
    client.command("HELO listed", "250");
    client.command("MAIL FROM:<a@client.example.test>", "250");
    let refused = "550 5.7.1 Service unavailable; client [198.18.1.1] blocked using heavy.example";
    assert_eq!(client.command("RCPT TO:<inbox@example.test>", "550"), refused);
    gate.wait_log(&format!("DNSBL rank 3 for {}", client.name()));
    gate.wait_log(&format!("NOQUEUE: reject: RCPT from {}: {refused}; from=<a@client.example.test>", client.name()));
    client.quit();
    assert_eq!(gate.logged("secret-key"), 0, "a zone's key is nobody's business");

    // Who asks why is told without a question, after a reload too.
    gate.tell(&["reload"]);
    let known = gate.ask(&["explain", "198.18.1.1"])["dnsbl"].clone();
    assert_eq!(known["listed_by"], json!(["heavy.example", "light.example"]), "{known}");
    assert_eq!((&known["score"], &known["threshold"], &known["blocked"]), (&json!(3), &json!(3), &json!(true)));
    assert_eq!(known["zones"][0]["codes"], json!(["127.0.0.4"]));
    let listed_until = known["asked"].as_u64().unwrap() + 300;
    assert_eq!(known["zones"][0]["until"], listed_until, "the TTL of the listing");
    let text = gate.tell(&["explain", "198.18.1.1"]);
    assert!(
        text.contains(": score 3, threshold 3\n") && text.contains("\nheavy.example  listed: 127.0.0.4  2"),
        "{text}"
    );
    assert!(!text.contains("secret-key"), "{text}");
    assert_eq!(gate.ask(&["explain", "198.18.1.2"])["dnsbl"], Value::Null);
    assert_eq!(dns.asked(".18.198.secret-key.heavy.example"), 1, "one question, by the client itself");
}

#[test]
fn a_broken_zone_and_a_late_one_let_mail_through() {
    let Some(net) = Net::new() else { return };
    let client = ip("198.18.1.1");
    let zones = vec![
        Zone::new("heavy.example").list(client, 2).delayed(Duration::from_secs(4)),
        Zone::new("light.example").list(client, 4).broken(),
    ];
    let _dns = DnsServer::start(&net.edge, zones);
    let _postfix = Postfix::start(&net);
    let _gate = Gate::start(&net, settings(&net).set("dnsbl.threshold", "1").text("dnsbl.action", "drop"));
    let mut client = Client::connect(net.client(), client);
    assert_eq!(client.line(), "220-mx.example.test ESMTP");
    assert_eq!(client.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
    client.quit();
}
