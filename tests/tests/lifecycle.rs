//! Gates come and go, by intention and by accident, and mail flows.

use std::net::IpAddr;

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    netns::run,
    postfix::Postfix,
    smtp::Client,
    wait::{SOON, wait_for},
};

const CLIENTS: [&str; 2] = ["198.18.1.1", "2001:2:0:1::1"];
const POSTFIX: &str = "220 mx.example.test ESMTP Postfix (Debian/GNU)";
const TEASER: &str = "220-mx.example.test ESMTP";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn deliver(net: &Net, from: &str, greeting: &str) {
    let mut client = Client::connect(net.client(), ip(from));
    assert_eq!(client.line(), greeting, "{from}");
    if greeting == TEASER {
        assert_eq!(client.line(), POSTFIX, "{from}");
    }
    client.deliver("Subject: hello\r\n\r\nbody\r\n");
    client.quit();
}

/// Whether an XDP program is on the edge's interface.
fn guarded(net: &Net) -> bool {
    run("ip", ["-n", net.edge.name(), "link", "show", "mx0"]).contains("xdp")
}

#[test]
fn the_gate_comes_and_leaves_while_mail_flows() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start(&net);
    for client in CLIENTS {
        deliver(&net, client, POSTFIX);
    }
    let mut from_before = Client::connect(net.client(), ip("198.18.1.9"));
    assert_eq!(from_before.line(), POSTFIX);

    let gate = Gate::start(&net, Settings::in_place(&net));
    assert!(guarded(&net));
    for client in CLIENTS {
        deliver(&net, client, TEASER);
    }
    from_before.deliver("Subject: from before\r\n\r\nbody\r\n");
    from_before.quit();
    let mut across = Client::connect(net.client(), ip("198.18.1.10"));
    assert_eq!((across.line().as_str(), across.line().as_str()), (TEASER, POSTFIX));

    // The port is given back at once; the session under way goes on to its end.
    gate.tell(&["stop"]);
    gate.wait_log("stopping");
    for client in ["198.18.1.11", "2001:2:0:11::1"] {
        deliver(&net, client, POSTFIX);
    }
    across.deliver("Subject: across\r\n\r\nbody\r\n");
    across.quit();
    gate.wait_end();
    // A link whose pin is gone is taken off by a worker of the kernel's, in its own time.
    wait_for("the programs to be taken off", SOON, || (!guarded(&net)).then_some(()));
    for client in ["198.18.1.12", "2001:2:0:12::1"] {
        deliver(&net, client, POSTFIX);
    }
    assert_eq!(postfix.wait_mail(10).len(), 10);
}

#[test]
fn mail_and_denials_go_on_without_the_process_and_the_next_one_takes_over() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let settings = Settings::in_place(&net).text("kernel.deny_reply", "drop");
    let gate = Gate::start(&net, settings);
    for client in CLIENTS {
        deliver(&net, client, TEASER);
    }
    let mut standing = Client::connect(net.client(), ip(CLIENTS[0]));
    assert_eq!(standing.line(), POSTFIX);
    gate.tell(&["deny", "198.18.1.7"]);
    gate.wait_denied(ip("198.18.1.7"));
    // What is written behind has to be written for the next process to know it.
    gate.wait_written();

    let settings = gate.kill();
    for client in CLIENTS {
        deliver(&net, client, POSTFIX);
    }
    Client::assert_dropped(net.client(), ip("198.18.1.7"));
    let stranger = Client::try_connect(net.client(), ip("198.18.1.8"), net.client().edge(ip("198.18.1.8")), SOON);
    assert!(stranger.is_err(), "kernel.on_screener_down = \"refuse\"");

    let gate = Gate::start(&net, settings);
    assert!(guarded(&net));
    Client::assert_dropped(net.client(), ip("198.18.1.7"));
    assert!(gate.pins().count("refused", ip("198.18.1.7"), "denied") > 0);
    deliver(&net, "198.18.1.8", TEASER);
    for client in CLIENTS {
        deliver(&net, client, POSTFIX);
    }
    standing.deliver("Subject: all along\r\n\r\nbody\r\n");
    standing.quit();
    gate.wait("every connection is accounted for", || {
        gate.pins().client(ip(CLIENTS[0])).is_some_and(|entry| entry.number("active") == 0)
    });
    gate.tell(&["forget", "198.18.1.7"]);
    deliver(&net, "198.18.1.7", TEASER);
}

#[test]
fn while_no_screener_runs_strangers_may_be_let_through() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net).text("kernel.on_screener_down", "pass"));
    let pins = gate.pins();
    gate.kill();
    for client in CLIENTS {
        deliver(&net, client, POSTFIX);
    }
    pins.remove();
}

#[test]
fn what_was_learned_survives_a_restart() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let settings = Settings::in_place(&net).text("kernel.deny_reply", "drop");
    let gate = Gate::start(&net, settings.clone());
    for client in CLIENTS {
        deliver(&net, client, TEASER);
    }
    gate.tell(&["deny", "198.18.1.7", "--reason", "hammers us"]);
    gate.stop();

    let gate = Gate::start(&net, settings);
    for client in CLIENTS {
        deliver(&net, client, POSTFIX);
    }
    let denied = gate.ask(&["list", "deny"]);
    assert_eq!((&denied[0]["net"], &denied[0]["reason"]), (&"198.18.1.7/32".into(), &"hammers us".into()));
    Client::assert_dropped(net.client(), ip("198.18.1.7"));
}

#[test]
fn a_damaged_cache_costs_only_what_it_knew() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let settings = Settings::in_place(&net);
    let gate = Gate::start(&net, settings.clone());
    deliver(&net, CLIENTS[0], TEASER);
    gate.stop();

    let files: Vec<_> =
        std::fs::read_dir(settings.state()).unwrap().flatten().filter(|entry| entry.path().is_file()).collect();
    assert!(!files.is_empty(), "the cache is a file under the state directory");
    for file in files {
        std::fs::write(file.path(), b"this is no database\n".repeat(4096)).unwrap();
    }
    let gate = Gate::start(&net, settings.clone());
    assert!(gate.logged("warning: ") > 0 && gate.log().contains("cache"), "it says that the cache is lost");
    deliver(&net, CLIENTS[0], TEASER);
    gate.stop();

    // From then on it is remembered again.
    let _gate = Gate::start(&net, settings);
    deliver(&net, CLIENTS[0], POSTFIX);
}

#[test]
fn gates_side_by_side_do_not_meet() {
    let Some((here, there)) = Net::new().zip(Net::new()) else { return };
    let _servers = (Postfix::start(&here), Postfix::start(&there));
    let gate_here = Gate::start(&here, Settings::in_place(&here).text("kernel.deny_reply", "drop"));
    let gate_there = Gate::start(&there, Settings::in_place(&there).text("kernel.deny_reply", "drop"));
    for client in CLIENTS {
        gate_here.tell(&["deny", client]);
        gate_here.wait_denied(ip(client));
        Client::assert_dropped(here.client(), ip(client));
        deliver(&there, client, TEASER);
        assert!(gate_here.pins().client(ip(client)).is_none_or(|entry| entry.number("accepted") == 0));
        assert_eq!(gate_there.pins().client(ip(client)).unwrap().number("accepted"), 1);
        assert_eq!(gate_there.pins().count("refused", ip(client), "denied"), 0);
    }
    gate_here.stop();
    deliver(&here, CLIENTS[0], POSTFIX);
    deliver(&there, CLIENTS[0], POSTFIX);
    deliver(&there, "198.18.1.8", TEASER);
    assert_eq!(gate_there.ask(&["status"])["connections"]["accepted"], 3, "two strangers at first, and one now");
}
