//! Failures that count: longer for who fails again, and as long as DNS says for who is listed.

use std::{cell::Cell, net::IpAddr};

use screen_tests::{
    dns::{DnsServer, Zone},
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
    wait::{SOON, wait_for},
};
use serde_json::Value;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Waits until the client has an entry other than the one of version `former`. Its version, for how many seconds it denies the client, to a
/// second, and why.
fn wait_denied_again(gate: &Gate, client: IpAddr, former: u64) -> (u64, u64, String) {
    let key = format!("failure:{}", gate.client_net(client));
    // Unlike lists, an export has the entry also when it only is remembered.
    let entry = wait_for("the client to be denied", SOON, || {
        let exported = gate.tell(&["cache", "export"]);
        let line = exported.lines().find(|line| line.contains(&key))?;
        let entry = serde_json::from_str::<Value>(line).unwrap()["entry"].take();
        (entry["version"].as_u64() > Some(former)).then_some(entry)
    });
    let version = entry["version"].as_u64().unwrap();
    // The version is milliseconds of Unix time and a counter of 16 bits.
    let begun = (version >> 16) / 1000;
    (version, entry["until"].as_u64().unwrap() - begun, entry["reason"].as_str().unwrap().to_owned())
}

/// A client that has come again and again until nobody refused it: the kernel's clock is coarse.
fn wait_let_in(gate: &Gate, net: &Net, client: IpAddr) -> Client {
    let heard = Cell::new(None);
    gate.wait("the deny to end", || {
        let mut visit = Client::connect(net.client(), client);
        let greeted = visit.line() == "220-mx.example.test ESMTP";
        heard.set(greeted.then_some(visit));
        greeted
    });
    heard.take().expect("a client that was greeted")
}

fn talks_early(mut early: Client) {
    early.send("EHLO early\r\n");
    assert_eq!(early.line(), "521 5.5.1 Protocol error");
}

#[test]
fn who_fails_again_is_denied_for_longer_until_it_passes() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let settings = Settings::in_place(&net).text("pregreet.action", "drop").text("kernel.remember_failures", "2s");
    let gate = Gate::start(&net, settings.text("kernel.repeat_limit", "6s"));
    let client = ip("198.18.1.1");
    let mut version = 0;
    for (number, seconds) in [2, 4, 6].into_iter().enumerate() {
        talks_early(wait_let_in(&gate, &net, client));
        let (lasts, reason);
        (version, lasts, reason) = wait_denied_again(&gate, client, version);
        assert!(lasts.abs_diff(seconds) <= 1, "{lasts} s, at the failure number {number}");
        assert!(reason.starts_with("pregreet: EHLO early"), "{reason}");
    }
    let remembered = || gate.ask(&["explain", "198.18.1.1"])["failures_remembered"].as_u64();
    assert_eq!(remembered(), Some(3));
    // A client that behaves is no offender any more.
    let mut good = wait_let_in(&gate, &net, client);
    assert!(gate.ask(&["list", "deny"]).as_array().unwrap().is_empty(), "it is remembered and does nothing");
    assert_eq!(good.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
    gate.wait("it to be forgiven", || remembered() == Some(0));
}

#[test]
fn who_is_listed_is_denied_as_long_as_dns_says_and_asked_about_again() {
    let Some(net) = Net::new() else { return };
    let client = ip("198.18.1.1");
    let zone = || Zone::new("bl.example").ttl(4);
    let dns = DnsServer::start(&net.edge, vec![zone().list(client, 2)]);
    let _postfix = Postfix::start(&net);
    let settings = Settings::in_place(&net)
        .set("dnsbl.resolvers", r#"["127.0.0.1:53"]"#)
        .set("dnsbl.sites", r#"["bl.example"]"#)
        .text("dnsbl.min_ttl", "1s")
        .text("dnsbl.action", "drop");
    let gate = Gate::start(&net, settings);
    let mut version = 0;
    for time in 1..=2 {
        let mut listed = wait_let_in(&gate, &net, client);
        assert!(listed.line().starts_with("521 5.7.1 Service unavailable"));
        let (lasts, reason);
        (version, lasts, reason) = wait_denied_again(&gate, client, version);
        assert!(lasts.abs_diff(4) <= 1, "{lasts} s, whether it is the first time or not");
        assert_eq!(reason, "dnsbl: score 1, bl.example");
        assert_eq!(dns.asked("1.1.18.198.bl.example"), time);
        if time == 2 {
            dns.serve(vec![zone()]);
        }
    }
    let mut delisted = wait_let_in(&gate, &net, client);
    assert_eq!(delisted.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
}
