//! Block lists: imported whole, enforced in the kernel, kept over a restart, and never against this host.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::IpAddr,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    privilege::mxscreen,
    smtp::Client,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn assert_screened(net: &Net, address: IpAddr) {
    assert_eq!(Client::connect(net.client(), address).line(), "220-mx.example.test ESMTP", "{address}");
}

#[test]
fn a_list_is_replaced_whole_and_outlives_the_gate() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net).text("kernel.deny_reply", "drop"));
    let file = net.directory().join("drop.txt");
    let import = |gate: &Gate, more: &[&str]| {
        let words = ["blocklist", "import", file.to_str().unwrap(), "--list", "drop"];
        gate.control(&[&words, more].concat())
    };

    fs::write(&file, "; a list\n198.18.1.0/24 ; SBL1\nnot an address\n2001:2:0:50::/60\n").unwrap();
    let tried = import(&gate, &["--dry-run"]);
    assert!(tried.status.success());
    assert!(String::from_utf8_lossy(&tried.stdout).contains("2 networks, 2 new, 0 gone; nothing was changed"));
    assert_screened(&net, ip("198.18.1.7"));

    let done = import(&gate, &["--expires", "1h"]);
    assert!(done.status.success());
    let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(complaint.contains("drop.txt:3: refused"), "{complaint}");
    for denied in ["198.18.1.7", "2001:2:0:5f::1"] {
        Client::assert_dropped(net.client(), ip(denied));
        assert!(gate.pins().count("refused", ip(denied), "denied") > 0);
        let explained = gate.ask(&["explain", denied]);
        assert_eq!(explained["imported_list"], "drop");
        assert_eq!(explained["kernel_refused"]["list"], "drop");
    }
    // An allow entry wins over every list.
    gate.tell(&["allow", "198.18.1.9"]);
    let mut allowed = Client::connect(net.client(), ip("198.18.1.9"));
    assert_eq!(allowed.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");

    fs::write(&file, "198.18.2.0/24\n2001:2:0:50::/60\n").unwrap();
    let replaced = import(&gate, &[]);
    assert!(String::from_utf8_lossy(&replaced.stdout).contains("2 networks, 1 new, 1 gone"));
    assert_screened(&net, ip("198.18.1.7"));
    Client::assert_dropped(net.client(), ip("198.18.2.7"));
    assert_eq!(gate.tell(&["blocklist", "export", "--list", "drop"]), "198.18.2.0/24\n2001:2:0:50::/60\n");

    let settings = gate.settings().clone();
    gate.stop();
    let gate = Gate::start(&net, settings);
    Client::assert_dropped(net.client(), ip("198.18.2.7"));
    let lists = gate.ask(&["blocklist", "list"]);
    assert_eq!((&lists[0]["list"], &lists[0]["networks"]), (&"drop".into(), &2.into()));
    gate.tell(&["blocklist", "remove", "--list", "drop"]);
    assert_screened(&net, ip("198.18.2.7"));
    gate.stop();
}

#[test]
fn a_list_that_would_do_harm_is_refused_and_says_why() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net).text("kernel.deny_reply", "drop"));
    let file = net.directory().join("list.txt");
    for (content, why) in [
        ("127.0.0.0/8\n", "this host's own"),
        ("32.0.0.0/4\n", "of an address space"),
        ("<html>\n", "nothing in it"),
        ("# nothing\n", "is empty"),
    ] {
        fs::write(&file, content).unwrap();
        let refused = gate.control(&["blocklist", "import", file.to_str().unwrap(), "--list", "bad"]);
        assert_eq!(refused.status.code(), Some(64), "{content}");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(gate.ask(&["blocklist", "list"]), serde_json::json!([]));
    gate.stop();
}

#[test]
fn how_much_a_list_may_deny_is_configured_and_force_is_stronger() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let settings = Settings::in_place(&net).text("kernel.deny_reply", "drop").set("blocklists.max_share", "1");
    let gate = Gate::start(&net, settings);
    let file = net.directory().join("list.txt");
    fs::write(&file, "198.18.0.0/24\n").unwrap();
    let import = |more: &[&str]| {
        let words = ["blocklist", "import", file.to_str().unwrap(), "--list", "wide"];
        gate.control(&[&words, more].concat())
    };
    let own = String::from_utf8_lossy(&import(&[]).stderr).into_owned();
    assert!(own.contains("would deny 198.18.0.1/32, this host's own address"), "{own}");
    // Two of 256 parts are 0.8 %.
    fs::write(&file, "32.0.0.0/8\n33.0.0.0/8\n198.18.1.0/24\n").unwrap();
    assert!(import(&["--dry-run"]).status.success());
    fs::write(&file, "32.0.0.0/7\n34.0.0.0/8\n198.18.1.0/24\n").unwrap();
    let refused = import(&[]);
    assert_eq!(refused.status.code(), Some(64));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("1.2 % of an address space (more than blocklists.max_share, 1 %)"), "{said}");
    assert_screened(&net, ip("198.18.1.7"));
    assert!(import(&["--force"]).status.success());
    Client::assert_dropped(net.client(), ip("198.18.1.7"));
    gate.stop();
}

#[test]
fn a_list_has_its_own_reply_and_the_configuration_has_the_last_word() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let settings = Settings::in_place(&net).set("kernel.reply_texts", "{ named = \"5.7.1 As configured\" }");
    let gate = Gate::start(&net, settings);
    let file = net.directory().join("list.txt");
    let listed = ["198.18.1.7", "198.18.2.7", "2001:2:0:50::7"].map(ip);
    fs::write(&file, "198.18.1.0/24\n198.18.2.7\n2001:2:0:50::/60\n").unwrap();
    let import = |gate: &Gate, list: &str, more: &[&str]| {
        let words = ["blocklist", "import", file.to_str().unwrap(), "--list", list];
        gate.control(&[&words, more].concat())
    };
    let assert_told = |reply: &str| {
        for client in listed {
            assert_eq!(Client::connect(net.client(), client).line(), reply, "{client}");
        }
    };
    let own = ["--reply", "5.7.1 Listed, see https://example.org/own"];

    assert!(import(&gate, "own", &own).status.success());
    assert_told("521 5.7.1 Listed, see https://example.org/own");
    assert_eq!(gate.ask(&["blocklist", "list"])[0]["reply"], own[1]);
    // The same list without a text, and with it again: nothing else has changed.
    assert!(import(&gate, "own", &[]).status.success());
    assert_told("521 5.3.2 Service currently unavailable");
    assert!(import(&gate, "own", &own).status.success());
    let settings = gate.settings().clone();
    gate.stop();
    let gate = Gate::start(&net, settings);
    assert_told("521 5.7.1 Listed, see https://example.org/own");
    gate.tell(&["blocklist", "remove", "--list", "own"]);

    assert!(import(&gate, "named", &own).status.success());
    assert_told("521 5.7.1 As configured");
    let refused = import(&gate, "own", &["--reply", "Go away"]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("printable ASCII"), "{said}");
    gate.stop();
}

#[test]
fn a_list_comes_from_standard_input_as_well() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net).text("kernel.deny_reply", "drop"));
    let mut command = Command::new(mxscreen());
    command.args(["blocklist", "import", "-", "--list", "piped", "--control"]).arg(gate.settings().control());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut import = command.spawn().unwrap();
    let mut input = import.stdin.take().unwrap();
    input.write_all(br#"{"deleted":[],"new":[{"scope":"Ip","type":"ban","value":"198.18.1.7"},"#).unwrap();
    input.write_all(br#"{"scope":"Country","type":"ban","value":"XX"}]}"#).unwrap();
    drop(input);
    let done = import.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    assert!(said.contains("standard input: value \"/new/1\": refused: its scope is \"Country\""), "{said}");
    Client::assert_dropped(net.client(), ip("198.18.1.7"));
    gate.stop();
}

/// Ends the clients with the test, whatever becomes of it.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lists as they are published: some twenty thousand entries, of which half change from one to the next.
fn long_list(turn: u32, more: &str) -> String {
    let mut text = String::from(more);
    for number in 0..10_000 {
        let (high, low) = (number >> 8, number & 255);
        writeln!(text, "203.{high}.{low}.9\n198.{}.{high}.{low}", 51 + turn).unwrap();
    }
    text
}

#[test]
fn who_stays_listed_is_never_let_through_while_the_list_is_replaced() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net));
    // The same clients are listed by entries that stay, and by others each time: alone, in their network, in a larger one.
    let turns = [
        "198.18.1.7\n198.18.2.7\n2001:2:0:50::7\n198.18.9.0/24\n",
        "198.18.1.7\n198.18.2.0/24\n2001:2:0:50::/64\n198.18.10.0/24\n",
        "198.18.1.7\n198.18.2.0-198.18.3.255\n2001:2:0:40::/58\n198.18.9.0/25\n",
    ];
    let listed = ["198.18.1.7", "198.18.2.7", "2001:2:0:50::7"].map(ip);
    let files: Vec<_> = (0..3u32)
        .zip(turns)
        .map(|(turn, more)| {
            let path = net.directory().join(format!("list{turn}"));
            fs::write(&path, long_list(turn, more)).unwrap();
            path
        })
        .collect();
    let import = |turn: usize| {
        gate.tell(&["blocklist", "import", files[turn % 3].to_str().unwrap(), "--list", "long"]);
    };
    import(0);
    let done = AtomicBool::new(false);
    let refused = listed.map(|_| AtomicUsize::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> = listed
            .iter()
            .zip(&refused)
            .map(|(client, refused)| {
                let (net, done) = (&net, &done);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let line = Client::connect(net.client(), *client).line();
                        assert_eq!(line, "521 5.3.2 Service currently unavailable", "{client}");
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let _end = Ends(&done);
        for turn in 1..10 {
            let before = refused.each_ref().map(|count| count.load(Ordering::Relaxed));
            import(turn);
            // Each of them comes at least once between two imports, and as often as it can during one.
            gate.wait("every client was refused once more", || {
                let ended = clients.iter().any(thread::ScopedJoinHandle::is_finished);
                ended || refused.iter().zip(before).all(|(count, before)| count.load(Ordering::Relaxed) > before)
            });
        }
    });
    // What has left the list may come in.
    assert_eq!(gate.ask(&["explain", "198.18.10.7"])["imported_list"], serde_json::Value::Null);
    assert_screened(&net, ip("198.18.10.7"));
    gate.stop();
}
