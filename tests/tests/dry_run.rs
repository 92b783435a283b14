//! Nobody is turned away in a dry run, whatever speaks against him; when it is over, the same clients are.

use std::net::IpAddr;

use screen_tests::{
    backend::Backend,
    dns::{DnsServer, Zone},
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};

const CLIENTS: [&str; 2] = ["198.18.1.1", "2001:2:0:1::1"];
const GREETING: &str = "220 mx.example.test ESMTP Postfix (Debian/GNU)";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn dry(net: &Net) -> Settings {
    Settings::in_place(net).set("dry_run", "true").text("kernel.deny_reply", "drop").text("kernel.limit_reply", "drop")
}

/// How many sessions `status` says would have ended for `reason`.
fn spared(gate: &Gate, reason: &str) -> u64 {
    let status = gate.ask(&["status"]);
    assert_eq!(status["dry_run"], true);
    let rows = status["would_have_blocked"].as_array().unwrap();
    rows.iter().filter(|row| row["reason"] == reason).filter_map(|row| row["sessions"].as_u64()).sum()
}

/// Ends the dry run.
fn end(gate: &Gate) {
    let _ = gate.settings().clone().set("dry_run", "false").write();
    gate.tell(&["reload"]);
    assert_eq!(gate.ask(&["status"])["dry_run"], false);
}

/// A client that is denied goes straight to the mail server, and is known for one that would not.
fn assert_let_in(net: &Net, gate: &Gate, address: IpAddr) {
    gate.wait(&format!("{address} is known to be denied"), || {
        gate.ask(&["explain", &address.to_string()])["without_dry_run"] == "is turned away"
    });
    let mut client = Client::connect(net.client(), address);
    assert_eq!(client.line(), GREETING, "{address}: no teaser");
    client.deliver("Subject: denied\r\n\r\nbody\r\n");
    gate.wait_log(&format!("DENYLISTED {} (kernel) (dry run)", client.name()));
    client.quit();
}

#[test]
fn the_denied_deliver_until_it_is_over() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start(&net);
    let gate = Gate::start(&net, dry(&net));
    for address in CLIENTS.map(ip) {
        gate.tell(&["deny", &address.to_string()]);
        assert_let_in(&net, &gate, address);
        let explained = gate.ask(&["explain", &address.to_string()]);
        assert_eq!(explained["now"], "goes to the mail server, as nobody is turned away");
        assert!(gate.pins().count("refused", address, "denied") > 0);
        let past = || gate.ask(&["explain", &address.to_string()])["past"]["last"].clone();
        gate.wait("the kernel's decision is in the journal", || past()[0]["kernel"] == "operator");
        let entries = past();
        assert_eq!(entries.as_array().map(Vec::len), Some(1), "as the denied and as the let in it is one: {entries}");
        assert_eq!((&entries[0]["verdict"], &entries[0]["objection"]), (&"forwarded".into(), &"barred".into()));
    }
    assert_eq!(postfix.wait_mail(CLIENTS.len()).len(), CLIENTS.len());
    for reason in ["Denied", "Spared", "LetIn"] {
        assert!(gate.pins().total(reason, "packets") >= 2, "{reason}");
    }
    assert_eq!(gate.pins().total("LetIn", "packets"), 2);
    end(&gate);
    for address in CLIENTS.map(ip) {
        gate.wait_denied(address);
        Client::assert_dropped(net.client(), address);
    }
}

#[test]
fn no_client_has_too_many_connections_until_it_is_over() {
    let Some(net) = Net::new() else { return };
    let _server = Backend::patient(&net.edge);
    let gate = Gate::start(&net, dry(&net).set("limits.client_connections", "2"));
    let mut standing = Vec::new();
    for address in CLIENTS.map(ip) {
        for _ in 0..4 {
            let mut client = Client::connect(net.client(), address);
            assert!(client.reply().ends_with("220 patient"));
            standing.push(client);
        }
        gate.wait(&format!("{address}: a SYN over the limit was counted"), || {
            gate.pins().count("refused", address, "limited") > 0
        });
    }
    gate.wait_log("too many connections (kernel) (dry run)");
    end(&gate);
    for address in CLIENTS.map(ip) {
        Client::assert_dropped(net.client(), address);
    }
    drop(standing);
}

#[test]
fn a_connection_too_many_is_told_once() {
    let Some(net) = Net::new() else { return };
    let _server = Backend::patient(&net.edge);
    // Nobody has passed before all have come.
    let gate = Gate::start(&net, dry(&net).set("limits.client_connections", "2").text("pregreet.wait", "6s"));
    let address = ip(CLIENTS[0]);
    let mut standing: Vec<Client> = (0..4).map(|_| Client::connect(net.client(), address)).collect();
    for client in &mut standing {
        assert_eq!(client.line(), "220-mx.example.test ESMTP");
    }
    assert!(gate.pins().count("refused", address, "limited") > 0, "the kernel has seen it");
    drop(standing);
    let past = || gate.ask(&["explain", &address.to_string()])["past"]["last"].as_array().cloned().unwrap_or_default();
    gate.wait("all sessions are in the journal", || past().len() >= 4);
    let objections = past().iter().filter(|entry| entry["objection"] == "too-many-connections").count();
    assert_eq!((past().len(), objections), (4, 2), "{:?}", past());
    assert_eq!(gate.logged(": too many connections (dry run)"), 2);
    assert_eq!(gate.logged("too many connections (kernel)"), 0);
    end(&gate);
}

#[test]
fn early_talkers_deliver_and_their_failures_count_when_it_is_over() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start(&net);
    let gate = Gate::start(&net, dry(&net).text("pregreet.action", "drop"));
    for address in CLIENTS.map(ip) {
        let mut client = Client::connect(net.client(), address);
        assert_eq!(client.line(), "220-mx.example.test ESMTP");
        client.send("EHLO early\r\n");
        assert_eq!(client.line(), GREETING);
        assert!(client.reply().starts_with("250-mx.example.test\n"), "the answer to the early EHLO");
        client.deliver("Subject: early\r\n\r\nbody\r\n");
        let line = gate.wait_log(&format!(" from {}: EHLO early", client.name()));
        assert!(line.contains("PREGREET 12 after ") && line.ends_with("\\r\\n (dry run)"), "{line}");
        client.quit();
        assert_let_in(&net, &gate, address);
        let evidence = gate.ask(&["explain", &address.to_string()])["deny_entry"]["reason"].clone();
        assert_eq!(evidence, "pregreet: EHLO early\\r\\n");
    }
    gate.wait("both sessions are counted", || spared(&gate, "failed pregreet") == 2);
    assert_eq!(postfix.wait_mail(4).len(), 4);
    end(&gate);
    for address in CLIENTS.map(ip) {
        gate.wait_denied(address);
        Client::assert_dropped(net.client(), address);
    }
}

#[test]
fn listed_clients_deliver_until_it_is_over() {
    let Some(net) = Net::new() else { return };
    let zone = CLIENTS.map(ip).into_iter().fold(Zone::new("list.example"), |zone, at| zone.list(at, 2).ttl(3600));
    let _dns = DnsServer::start(&net.edge, vec![zone]);
    let postfix = Postfix::start(&net);
    let settings = dry(&net)
        .set("dnsbl.resolvers", r#"["127.0.0.1:53"]"#)
        .set("dnsbl.sites", r#"["list.example"]"#)
        .set("dnsbl.timeout", "\"30s\"")
        .text("dnsbl.max_ttl", "1h")
        .text("pregreet.wait", "6s")
        .text("dnsbl.action", "drop");
    let gate = Gate::start(&net, settings);
    for address in CLIENTS.map(ip) {
        let mut client = Client::connect(net.client(), address);
        assert_eq!(client.line(), "220-mx.example.test ESMTP");
        assert_eq!(client.line(), GREETING);
        client.deliver("Subject: listed\r\n\r\nbody\r\n");
        gate.wait_log(&format!("DNSBL rank 1 for {} (dry run)", client.name()));
        client.quit();
        assert_let_in(&net, &gate, address);
    }
    gate.wait("both sessions are counted", || spared(&gate, "failed dnsbl") == 2);
    assert_eq!(postfix.wait_mail(4).len(), 4);
    end(&gate);
    for address in CLIENTS.map(ip) {
        gate.wait_denied(address);
        Client::assert_dropped(net.client(), address);
    }
}

/// A way to fail a deep test: what is sent after EHLO, how many answers the mail server has to it, and the log's word.
const DEEDS: [(&str, &str, usize, &str); 3] = [
    ("198.18.1.1", "RSET\r\nRSET\r\n", 2, "COMMAND PIPELINING"),
    ("198.18.1.2", "RSET\n", 1, "BARE NEWLINE"),
    ("2001:2:0:1::1", "HOLA spam\r\n", 1, "NON-SMTP COMMAND"),
];

#[test]
fn who_fails_a_deep_test_delivers_until_it_is_over() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start(&net);
    let settings = ["pipelining", "non_smtp_command", "bare_newline"].into_iter().fold(dry(&net), |settings, test| {
        settings.set(&format!("{test}.enable"), "true").text(&format!("{test}.action"), "drop")
    });
    // What Postfix would not hang up on by itself.
    let gate = Gate::start(&net, settings.set("non_smtp_command.forbidden", r#"["HOLA"]"#));
    for (address, said, answers, word) in DEEDS {
        let mut client = Client::connect(net.client(), ip(address));
        assert!(client.reply().ends_with("220 mx.example.test ESMTP"), "the dummy engine greets who takes deep tests");
        client.command("EHLO client.example.test", "250");
        client.send(said);
        for _ in 0..answers {
            client.reply();
        }
        client.deliver("Subject: deep\r\n\r\nbody\r\n");
        let line = gate.wait_log(&format!("{word} from {}", client.name()));
        assert!(line.ends_with(" (dry run)"), "{line}");
        client.quit();
        assert_let_in(&net, &gate, ip(address));
    }
    let failed = |test: &str| spared(&gate, &format!("failed {test}"));
    gate.wait("all sessions are counted", || {
        ["pipelining", "bare-newline", "non-smtp-command"].iter().all(|test| failed(test) == 1)
    });
    assert_eq!(postfix.wait_mail(2 * DEEDS.len()).len(), 2 * DEEDS.len());
    assert_eq!(gate.logged("NOQUEUE: reject"), 0);
    end(&gate);
    for (address, ..) in DEEDS {
        gate.wait_denied(ip(address));
        Client::assert_dropped(net.client(), ip(address));
    }
}
