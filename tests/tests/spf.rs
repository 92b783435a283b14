//! Entries of the access list that a domain's SPF record fills.

use std::{net::IpAddr, time::Duration};

use screen_tests::{
    dns::{DnsServer, Zone},
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};
use serde_json::Value;

const POSTFIX: &str = "220 mx.example.test ESMTP Postfix (Debian/GNU)";
const TEASER: &str = "220-mx.example.test ESMTP";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn settings(net: &Net) -> Settings {
    Settings::in_place(net)
        .set("dnsbl.resolvers", r#"["127.0.0.1:53"]"#)
        .text("dnsbl.timeout", "1s")
        .set("access.list", r#"["spf:sender.example"]"#)
        .text("access.spf.min_ttl", "1s")
}

fn publishing(name: &str, text: &str) -> Zone {
    Zone::new(name).text(text).ttl(1)
}

/// What `status` says of the only domain.
fn domain(gate: &Gate) -> Value {
    gate.ask(&["status"])["lists"]["spf"][0].clone()
}

fn wait_permitted(gate: &Gate, address: &str) {
    gate.wait(&format!("{address} is permitted"), || {
        let known = gate.ask(&["explain", address]);
        known["access_list"]["rule"] == "spf:sender.example" && known["decided_by"] == "kernel"
    });
}

fn wait_screened(gate: &Gate, address: &str) {
    gate.wait(&format!("{address} is screened"), || gate.ask(&["explain", address])["now"] == "is screened");
}

#[test]
fn a_client_of_the_published_networks_is_spared_until_the_record_changes() {
    let Some(net) = Net::new() else { return };
    let sender = publishing("sender.example", "v=spf1 include:nets.example ~all");
    let nets = "v=spf1 -ip4:198.18.1.9 ip4:198.18.1.0/24 ip6:2001:2:0:1::/64 ip4:198.18.0.0/15 -all";
    let dns = DnsServer::start(&net.edge, vec![sender.clone(), publishing("nets.example", nets)]);
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, settings(&net));

    for address in ["198.18.1.1", "2001:2:0:1::1"] {
        wait_permitted(&gate, address);
        let mut client = Client::connect(net.client(), ip(address));
        assert_eq!(client.line(), POSTFIX, "no teaser");
        gate.wait_log(&format!("ALLOWLISTED {} (kernel)", client.name()));
        client.quit();
    }
    for address in ["198.18.1.9", "198.18.2.1", "2001:2:0:2::1"] {
        assert_eq!(Client::connect(net.client(), ip(address)).line(), TEASER, "{address}");
    }
    let known = domain(&gate);
    assert_eq!((&known["domain"], &known["state"]), (&"sender.example".into(), &"resolved".into()));
    let too_wide = "nets.example: ip4:198.18.0.0/15 is left out: 198.18.0.0/15 is wider than access.spf.widest permits";
    assert_eq!(known["left_out"], serde_json::json!([too_wide]));
    let asked = dns.asked("nets.example");
    gate.wait("it is asked again and again", || dns.asked("nets.example") > asked + 1);
    assert_eq!(gate.logged(too_wide), 1, "said once");

    dns.serve(vec![sender, publishing("nets.example", "v=spf1 ip4:198.18.2.0/24 -all")]);
    wait_permitted(&gate, "198.18.2.1");
    for address in ["198.18.1.1", "2001:2:0:1::1"] {
        wait_screened(&gate, address);
        assert_eq!(Client::connect(net.client(), ip(address)).line(), TEASER, "{address}");
    }
    assert_eq!(Client::connect(net.client(), ip("198.18.2.1")).line(), POSTFIX);
    gate.wait_log("spf:sender.example: 1 networks, 1 new, 9 gone");
    gate.stop();
}

#[test]
fn dns_that_fails_takes_nothing_away() {
    let Some(net) = Net::new() else { return };
    let record = publishing("sender.example", "v=spf1 ip4:198.18.1.0/24 -all");
    let dns = DnsServer::start(&net.edge, vec![record.clone().delayed(Duration::from_secs(60))]);
    let _postfix = Postfix::start(&net);
    // It gets ready, whatever DNS does.
    let gate = Gate::start(&net, settings(&net));
    gate.wait_log("spf:sender.example: sender.example: no answer within 1s: it decides nothing until it is resolved");
    assert_eq!(domain(&gate)["state"], "not resolved, as DNS fails");
    assert_eq!(Client::connect(net.client(), ip("198.18.1.1")).line(), TEASER);

    dns.serve(vec![record.clone()]);
    wait_permitted(&gate, "198.18.1.1");
    gate.wait_log("spf:sender.example: resolved again");

    dns.serve(vec![record.broken()]);
    let kept = "spf:sender.example: sender.example: server failure: the last answer is kept";
    gate.wait_log(kept);
    let asked = dns.asked("sender.example");
    gate.wait("it is asked again and again", || dns.asked("sender.example") > asked + 1);
    // A reload does not lose it either.
    gate.tell(&["reload"]);
    let known = domain(&gate);
    assert_eq!((&known["state"], &known["networks"]), (&"the last answer, as DNS fails".into(), &1.into()));
    assert_eq!(known["failure"], "sender.example: server failure");
    assert_eq!(Client::connect(net.client(), ip("198.18.1.1")).line(), POSTFIX);
    assert_eq!(gate.logged(kept), 1, "said once");

    dns.serve(vec![Zone::new("sender.example").ttl(1)]);
    gate.wait_log("spf:sender.example: sender.example: it has no SPF record");
    gate.wait_log("spf:sender.example: this entry of access.list decides nothing");
    wait_screened(&gate, "198.18.1.1");
    assert_eq!(Client::connect(net.client(), ip("198.18.1.1")).line(), TEASER);
    gate.stop();
}
