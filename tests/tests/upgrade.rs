//! Another version of the program takes over while mail flows, and nobody notices.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    program::{copy_mxscreen, write_script},
    smtp::Client,
    wait::{SOON, wait_for},
};

const KNOWN: [&str; 2] = ["198.18.1.1", "2001:2:0:1::1"];
const DENIED: &str = "198.18.1.7";
const POSTFIX: &str = "220 mx.example.test ESMTP Postfix (Debian/GNU)";
const TEASER: &str = "220-mx.example.test ESMTP";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn deliver_as_stranger(net: &Net, client: IpAddr) {
    let mut client = Client::connect(net.client(), client);
    assert_eq!((client.line().as_str(), client.line().as_str()), (TEASER, POSTFIX));
    client.deliver("Subject: from a stranger\r\n\r\nbody\r\n");
    client.quit();
}

fn gone(pid: i32) {
    wait_for("the process has ended", SOON, || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}

/// In the middle of a message that the screener relays.
fn amid_a_message(net: &Net, client: &str) -> Client {
    let mut client = Client::connect(net.client(), ip(client));
    assert_eq!((client.line().as_str(), client.line().as_str()), (TEASER, POSTFIX));
    client.command("EHLO client.example.test", "250");
    client.command("MAIL FROM:<sender@client.example.test>", "250");
    client.command("RCPT TO:<inbox@example.test>", "250");
    client.command("DATA", "354");
    client.send("Subject: long\r\n\r\nbegun under one version\r\n");
    client
}

#[test]
fn an_upgrade_under_load_is_noticed_by_nobody() {
    let Some(net) = Net::new() else { return };
    let net = Arc::new(net);
    let postfix = Postfix::start(&net);
    let (settings, program) = Settings::in_place(&net).text("kernel.deny_reply", "drop").copied();
    let gate = Gate::start(&net, settings);
    KNOWN.iter().for_each(|client| deliver_as_stranger(&net, ip(client)));
    gate.tell(&["deny", DENIED]);
    gate.wait_denied(ip(DENIED));
    let mut relayed = amid_a_message(&net, "198.18.1.2");

    let stop = Arc::new(AtomicBool::new(false));
    let strangers = thread::spawn({
        let (net, stop) = (Arc::clone(&net), Arc::clone(&stop));
        move || {
            let mut visits = 0;
            while !stop.load(Ordering::Relaxed) {
                thread::scope(|scope| {
                    for host in 0..4 {
                        let client = IpAddr::from([198, 18, 2, 4 * (visits % 60) + host]);
                        let net = &net;
                        scope.spawn(move || deliver_as_stranger(net, client));
                    }
                });
                visits += 1;
            }
            4 * usize::from(visits)
        }
    });
    let (keeper, mut screener) = (gate.pid(), gate.screener());
    for _ in 0..2 {
        // As a package does it: the old file is unlinked, the running program goes on with it.
        fs::remove_file(&program).unwrap();
        copy_mxscreen(&program);
        let said = gate.tell(&["upgrade"]);
        assert!(said.contains("understands the configuration: it takes over"), "{said}");
        assert!(said.contains("serves; sessions that were open go on"), "{said}");
        assert_eq!(gate.pid(), keeper, "it is the same process");
        let status = gate.ask(&["status"]);
        let next = i32::try_from(status["screener"].as_i64().unwrap()).unwrap();
        assert_ne!(next, screener, "with another screener");
        assert!(Path::new(&format!("/proc/{screener}")).exists(), "the former one has a session left");
        screener = next;
        for client in KNOWN {
            let mut client = Client::connect(net.client(), ip(client));
            assert_eq!(client.line(), POSTFIX);
            client.deliver("Subject: from a friend\r\n\r\nbody\r\n");
            client.quit();
        }
        Client::assert_dropped(net.client(), ip(DENIED));
    }
    stop.store(true, Ordering::Relaxed);
    let visits = strangers.join().unwrap();
    relayed.command(".", "250");
    let mail = postfix.wait_mail(1 + 2 * 3 + visits);
    assert_eq!(mail.len(), 1 + 2 * 3 + visits, "each message once");
    assert_eq!(mail.iter().filter(|mail| mail.contains("begun under one version")).count(), 1);
    postfix.wait_log("client=unknown[198.18.1.2]");
    relayed.quit();
    gate.wait_log("which was relieved, has ended");
    gate.wait("the relay's entries are gone with its connections", || gate.pins().dump("relay_clients").is_empty());
    gate.stop();
}

#[test]
fn who_has_retired_ends_with_the_gate() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net));
    let mut relayed = amid_a_message(&net, "198.18.1.2");
    let (first, keeper) = (gate.screener(), gate.pid());
    gate.tell(&["upgrade"]);
    let second = i32::try_from(gate.ask(&["status"])["screener"].as_i64().unwrap()).unwrap();
    assert_ne!(second, first);
    // The first order lets sessions go on for a while, and so does the gate; the second one ends them.
    gate.tell(&["stop"]);
    assert!(Path::new(&format!("/proc/{first}")).exists() && Path::new(&format!("/proc/{keeper}")).exists());
    relayed.command(".", "250");
    relayed.quit();
    gone(first);
    gone(second);
    gate.wait_end();
}

#[test]
fn what_can_not_take_over_does_not() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let (settings, program) = Settings::in_place(&net).copied();
    let gate = Gate::start(&net, settings);
    let screener = gate.screener();
    let refused = |why: &str| {
        let output = gate.control(&["upgrade"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(69), "{said}");
        assert!(said.contains(&program.display().to_string()) && said.contains(why), "{said}");
        assert_eq!(gate.screener(), screener, "nothing has changed");
    };
    fs::remove_file(&program).unwrap();
    refused("can't be executed");
    write_script(&program, "#!/bin/sh\necho no such word >&2; exit 3\n");
    refused("no such word");
    fs::remove_file(&program).unwrap();
    copy_mxscreen(&program);
    let config = gate.settings().directory().join("mxscreen.toml");
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{good}\nno_such_key = 1\n")).unwrap();
    refused("no_such_key");
    fs::write(&config, good).unwrap();
    deliver_as_stranger(&net, ip("198.18.1.3"));
    assert!(gate.tell(&["upgrade"]).contains("serves"));
    deliver_as_stranger(&net, ip("198.18.1.4"));
    gate.stop();
}
