//! Keeper and screener: who has which rights, and what happens when one of them ends.

use std::{net::IpAddr, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    privilege::mxscreen,
    process::Process,
    smtp::Client,
    wait::{SOON, wait_for},
};

const CLIENTS: [&str; 2] = ["198.18.1.1", "2001:2:0:1::1"];
const DENIED: &str = "198.18.1.7";
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

/// A gate that knows good clients of both families, and a denied one.
fn experienced(net: &Net, settings: Settings) -> Gate {
    let gate = Gate::start(net, settings.text("kernel.deny_reply", "drop"));
    for client in CLIENTS {
        deliver(net, client, TEASER);
    }
    gate.tell(&["deny", DENIED]);
    gate.wait_denied(ip(DENIED));
    gate
}

/// The known good reach the mail server, the denied nobody.
fn assert_kernel_decides(net: &Net) {
    for client in CLIENTS {
        deliver(net, client, POSTFIX);
    }
    Client::assert_dropped(net.client(), ip(DENIED));
}

fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

fn gone(pid: i32) {
    wait_for("the process has ended", SOON, || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}

/// A line of `/proc/PID/status`.
fn status(pid: i32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn the_screener_has_no_privilege() {
    let Some(net) = Net::new() else { return };
    for user in ["nobody", "root"] {
        let gate = Gate::start(&net, Settings::in_place(&net).text("user", user));
        let screener = gate.screener();
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(screener, set), "0000000000000000", "{user}: {set}");
        }
        assert_eq!((status(screener, "NoNewPrivs"), status(screener, "Seccomp")), ("1".into(), "2".into()));
        let uid = nix::unistd::User::from_name(user).unwrap().unwrap().uid.to_string();
        assert!(status(screener, "Uid").split_whitespace().all(|id| id == uid), "{user}");
        gate.stop();
    }
}

#[test]
fn an_account_that_is_not_there_is_nobody_and_a_warning() {
    let Some(net) = Net::new() else { return };
    let gate = Gate::start(&net, Settings::in_place(&net).text("user", "no.such.account"));
    gate.wait_log("warning: user: there is no account no.such.account, the screener runs as nobody");
    assert_eq!(status(gate.screener(), "Uid").split_whitespace().next(), Some("65534"));
}

#[test]
fn a_killed_screener_is_followed_by_the_next_one() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start(&net);
    let gate = experienced(&net, Settings::in_place(&net));
    let mut standing = Client::connect(net.client(), ip(CLIENTS[0]));
    assert_eq!(standing.line(), POSTFIX);

    let first = gate.screener();
    end(first);
    // Whoever comes now waits in the socket's queue, or is taken already by the next one.
    let mut stranger = Client::connect(net.client(), ip("198.18.1.8"));
    assert_kernel_decides(&net);
    assert_eq!((stranger.line().as_str(), stranger.line().as_str()), (TEASER, POSTFIX));
    stranger.deliver("Subject: from a stranger\r\n\r\nbody\r\n");
    stranger.quit();
    gate.wait_log("the screener was ended by signal 9; the next one begins");
    assert_ne!(gate.screener(), first);
    assert_kernel_decides(&net);
    standing.deliver("Subject: all along\r\n\r\nbody\r\n");
    standing.quit();
    gate.wait("every connection is accounted for", || {
        gate.pins().client(ip(CLIENTS[0])).is_some_and(|entry| entry.number("active") == 0)
    });
    let explained = gate.ask(&["explain", DENIED]);
    assert_eq!(explained["now"], "is turned away", "{explained}");
    assert_eq!(postfix.wait_mail(8).len(), 8);
}

#[test]
fn a_screener_that_ends_again_and_again_is_no_gate() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    // Strangers knock so often here that the limit would answer them.
    let gate = experienced(&net, Settings::in_place(&net).set("limits.client_connections", "0"));
    // From the second time on there is a pause, in which strangers are not kept waiting.
    wait_for("strangers are refused", SOON, || {
        if let Some(screener) = gate.screener_if_any() {
            end(screener);
            gone(screener);
        }
        let edge = net.client().edge(ip("198.18.1.8"));
        Client::try_connect(net.client(), ip("198.18.1.8"), edge, SOON).err()
    });
    assert_kernel_decides(&net);
    // And it comes back by itself.
    wait_for("strangers are screened again", SOON, || {
        let edge = net.client().edge(ip("198.18.1.9"));
        let mut client = Client::try_connect(net.client(), ip("198.18.1.9"), edge, SOON).ok()?;
        client.try_line(SOON).ok()?.filter(|line| line == TEASER)
    });
    assert_kernel_decides(&net);
}

#[test]
fn a_killed_keeper_leaves_the_kernel_at_work_and_its_sockets_to_the_next_one() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start(&net);
    let gate = experienced(&net, Settings::in_place(&net));
    let mut across = Client::connect(net.client(), ip("198.18.1.8"));
    assert_eq!((across.line().as_str(), across.line().as_str()), (TEASER, POSTFIX));
    let screener = gate.screener();

    let settings = gate.kill_keeper();
    assert_kernel_decides(&net);
    wait_for("strangers are refused", SOON, || {
        let edge = net.client().edge(ip("198.18.1.9"));
        Client::try_connect(net.client(), ip("198.18.1.9"), edge, SOON).err()
    });
    // The former screener still has a session; the next gate does not mind.
    let gate = Gate::start(&net, settings);
    assert_kernel_decides(&net);
    deliver(&net, "198.18.1.9", TEASER);
    across.deliver("Subject: across\r\n\r\nbody\r\n");
    across.quit();
    gone(screener);
    assert_eq!(gate.ask(&["status"])["cache"]["store"]["failing"], serde_json::Value::Null);
    assert_eq!(postfix.wait_mail(8).len(), 8);
}

#[test]
fn the_next_screener_has_the_configuration_in_force_whatever_stands_on_the_disk() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let table = net.directory().join("access.cidr");
    std::fs::write(&table, "198.18.1.20 permit\n").unwrap();
    let settings = Settings::in_place(&net).set("access.list", &format!("[\"cidr:{}\"]", table.display()));
    let gate = Gate::start(&net, settings);
    deliver(&net, "198.18.1.20", POSTFIX);

    std::fs::write(&table, "198.18.1.21 permit\n").unwrap();
    gate.tell(&["reload"]);
    deliver(&net, "198.18.1.21", POSTFIX);

    std::fs::write(gate.settings().directory().join("mxscreen.toml"), "nonsense").unwrap();
    assert!(!gate.control(&["reload"]).status.success());
    std::fs::remove_file(&table).unwrap();
    let first = gate.screener();
    end(first);
    gate.wait("the next screener answers", || {
        gate.screener_if_any().is_some_and(|pid| pid != first) && gate.control(&["status"]).status.success()
    });
    let standing = gate.ask(&["explain", "198.18.1.21"]);
    assert_eq!(standing["access_list"]["verdict"], "permit", "{standing}");
    deliver(&net, "198.18.1.21", POSTFIX);
}

#[test]
fn a_screener_that_hangs_does_not_keep_the_gate_from_stopping() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let mut gate = experienced(&net, Settings::in_place(&net));
    let screener = gate.screener();
    kill(Pid::from_raw(screener), Signal::SIGSTOP).unwrap();
    assert_kernel_decides(&net);
    gate.signal(Signal::SIGTERM);
    gone(screener);
    gate.wait_end_within(SOON);
    // The mail server has everybody again.
    deliver(&net, "198.18.1.8", POSTFIX);
}

#[test]
fn as_many_descriptors_are_taken_as_may_be_had() {
    let Some(net) = Net::new() else { return };
    let settings = Settings::front(&net, "127.0.0.1:10025").text("kernel.mode", "off");
    let (program, config) = (mxscreen().display().to_string(), settings.write().display().to_string());
    let words = ["--nofile=256:4096", &program, "run", "--config", &config];
    let keeper = Process::start(&net.edge, Path::new("prlimit"), &words, &settings.directory().join("output"));
    let log = || std::fs::read_to_string(settings.log()).unwrap_or_default();
    wait_for("the gate is ready", SOON, || log().contains("]: ready\n").then_some(()));
    let screener = keeper.children();
    assert_eq!(screener.len(), 1, "{screener:?}");
    for process in [keeper.pid(), screener[0]] {
        let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
        let open = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(open.split_whitespace().skip(3).collect::<Vec<_>>(), ["4096", "4096", "files"]);
    }
}
