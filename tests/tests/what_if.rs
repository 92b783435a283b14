//! What was found in the sessions of the last days answers questions: why a client was refused, and who would be refused by other settings.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use screen_tests::{
    dns::{DnsServer, Zone},
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    privilege::mxscreen,
    smtp::Client,
};
use serde_json::Value;

const EARLY: &str = "198.18.1.1";
const LISTED: &str = "198.18.1.2";
const GOOD: &str = "2001:2:0:1::1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Everybody passes: early talk is ignored, and one zone alone is not enough.
fn settings(net: &Net) -> Settings {
    Settings::in_place(net)
        .text("pregreet.wait", "6s")
        .set("dnsbl.resolvers", r#"["127.0.0.1:53"]"#)
        .set("dnsbl.sites", r#"["heavy.example*2", "light.example"]"#)
        .set("dnsbl.threshold", "3")
        .text("dnsbl.action", "drop")
}

/// Three clients that are tested at one time and all get to the mail server.
fn visit(net: &Net) {
    let mut clients = [EARLY, LISTED, GOOD].map(|client| Client::connect(net.client(), ip(client)));
    for client in &mut clients {
        assert_eq!(client.line(), "220-mx.example.test ESMTP");
    }
    clients[0].send("EHLO early\r\n");
    for client in &mut clients {
        assert_eq!(client.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
    }
}

/// The configuration of `new`, beside the one of `gate`.
fn beside(gate: &Gate, new: &Settings) -> PathBuf {
    let path = new.write();
    let beside = path.with_file_name("new.toml");
    fs::rename(&path, &beside).unwrap();
    assert_eq!(gate.settings().write(), path, "the gate's own is there again");
    beside
}

fn what_if(gate: &Gate, new: &Settings) -> Value {
    let new = beside(gate, new);
    let present = gate.settings().directory().join("mxscreen.toml");
    gate.ask(&["what-if", new.to_str().unwrap(), "--config", present.to_str().unwrap()])
}

/// The one change that there is.
fn only_change(said: &Value) -> (&str, &str, &str, u64) {
    let changes = said["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1, "{said}");
    let word = |name: &str| changes[0][name].as_str().unwrap();
    (word("from"), word("to"), word("would_be"), changes[0]["sessions"].as_u64().unwrap())
}

#[test]
fn who_would_change_sides_by_other_settings_is_known_before_they_are_in_force() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let zones = vec![Zone::new("heavy.example").list(ip(LISTED), 2), Zone::new("light.example")];
    let dns = DnsServer::start(&net.edge, zones);
    let settings = settings(&net);
    let gate = Gate::start(&net, settings.clone());
    visit(&net);
    gate.wait("the sessions are in the journal", || what_if(&gate, &settings)["sessions"] == 3);

    let said = what_if(&gate, &settings);
    assert_eq!((said["changed"].as_u64(), said["unknown"].as_u64()), (Some(0), Some(0)), "{said}");
    let said = what_if(&gate, &settings.clone().text("pregreet.action", "drop"));
    assert_eq!(only_change(&said), ("passed", "refused", "failed pregreet", 1));
    assert_eq!(said["networks"][0]["network"], "198.18.1.0/24");
    let said = what_if(&gate, &settings.clone().set("dnsbl.threshold", "2"));
    assert_eq!(only_change(&said), ("passed", "refused", "failed dnsbl", 1));
    let said = what_if(&gate, &settings.clone().set("dnsbl.sites", r#"["heavy.example=127.0.0.3*3"]"#));
    assert_eq!(said["unchanged"], 3, "it has another code: {said}");

    // Nobody knows what a new zone would have said; but who is refused without it is refused with it.
    let sites = r#"["heavy.example*3", "new.example"]"#;
    let said = what_if(&gate, &settings.clone().set("dnsbl.sites", sites));
    assert_eq!(only_change(&said), ("passed", "refused", "failed dnsbl", 1));
    assert_eq!(said["unknown_because"][0]["reason"], "the zone new.example was not asked");
    assert_eq!(said["unknown"], 2);
    assert_eq!(dns.asked("new.example"), 0, "and nobody asks it now");

    let rejects = settings
        .clone()
        .set("access.list", r#"[{ cidr = ["2001:2::/48 reject"] }]"#)
        .text("access.denylist_action", "drop");
    let said = what_if(&gate, &rejects);
    assert_eq!(only_change(&said), ("passed", "refused", "denied", 1));
    assert_eq!(said["networks"][0]["network"], "2001:2:0:1::/64");
    let said = what_if(&gate, &settings.clone().text("pregreet.wait", "60s"));
    assert_eq!(said["unknown_because"][0]["reason"], "the greet wait is longer than the client was watched");
    assert_eq!((said["unknown"].as_u64(), said["unchanged"].as_u64()), (Some(2), Some(1)), "{said}");
    let said = what_if(&gate, &settings.clone().set("pipelining.enable", "true"));
    assert_eq!(said["unknown"], 3, "the mail server heard what they said: {said}");

    // No gate is needed for it.
    let new = beside(&gate, &settings.text("pregreet.action", "drop"));
    let present = gate.settings().directory().join("mxscreen.toml");
    gate.stop();
    let output = Command::new(mxscreen()).arg("what-if").arg(new).arg("--config").arg(present).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let first = "1 of 3 sessions would change sides, 2 would not, of 0 it can't be known.\n";
    assert!(output.status.success() && text.starts_with(first), "{output:?}");
}

#[test]
fn why_a_client_was_refused_is_said_in_one_sentence_days_later_too() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let settings = Settings::in_place(&net).text("pregreet.wait", "6s").text("pregreet.action", "drop");
    let gate = Gate::start(&net, settings);
    let mut client = Client::connect(net.client(), ip(EARLY));
    assert_eq!(client.line(), "220-mx.example.test ESMTP");
    client.send("EHLO early\r\n");
    client.wait_closed();
    gate.wait_denied(ip(EARLY));
    let sessions = |gate: &Gate| gate.ask(&["explain", EARLY])["past"]["sessions"].as_u64();
    gate.wait("the session is in the journal", || sessions(&gate).is_some_and(|sessions| sessions > 0));
    let said = gate.ask(&["explain", EARLY]);
    assert_eq!((&said["kernel_says"], &said["decided_by"]), (&Value::from("denied"), &Value::from("kernel")), "{said}");
    let text = gate.tell(&["explain", EARLY]);
    let first = format!("{EARLY} is turned away: it has failed a test (pregreet: EHLO early\\r\\n), for ");
    assert!(text.starts_with(&first), "{text}");

    // What is in memory goes with the process, in the middle of a line if need be.
    let settings = gate.kill();
    let segment = only_segment(&settings.state());
    fs::write(&segment, [&fs::read(&segment).unwrap()[..], b"{\"time\":17"].concat()).unwrap();
    let gate = Gate::start(&net, settings);
    gate.tell(&["forget", EARLY]);
    drop(Client::connect(net.client(), ip(GOOD)));
    let good = || gate.ask(&["explain", GOOD])["past"]["sessions"] == 1;
    gate.wait("the next session is behind the torn line", good);
    let text = gate.tell(&["explain", EARLY]);
    assert!(text.starts_with(&format!("{EARLY} is screened: no list knows it")), "{text}");
    assert!(text.contains("rejected  failed pregreet  pregreet: EHLO early\\r\\n"), "{text}");
}

fn only_segment(state: &Path) -> PathBuf {
    let mut segments: Vec<PathBuf> =
        fs::read_dir(state.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(segments.len(), 1, "{segments:?}");
    segments.remove(0)
}

#[test]
fn what_the_kernel_turns_away_is_in_the_journal_and_without_one_nothing_is() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net).text("kernel.deny_reply", "drop"));
    gate.tell(&["deny", LISTED]);
    gate.wait_denied(ip(LISTED));
    Client::assert_dropped(net.client(), ip(LISTED));
    let last = || gate.ask(&["explain", LISTED])["past"]["last"][0]["kernel"].clone();
    gate.wait("the kernel's decision is in the journal", || last() == "operator");
    gate.stop();

    let off = Settings::in_place(&net)
        .set("journal.max_size", "0")
        .text("state.directory", &net.directory().join("other").display().to_string());
    let gate = Gate::start(&net, off);
    assert_eq!(Client::connect(net.client(), ip(GOOD)).line(), "220-mx.example.test ESMTP");
    gate.wait("the session is over", || !gate.ask(&["explain", GOOD])["last_sessions"][0].is_null());
    assert_eq!(gate.ask(&["status"])["journal"]["kept"], false);
    gate.stop();
    assert!(net.directory().join("other").is_dir() && !net.directory().join("other/journal").exists());
}
