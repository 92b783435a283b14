//! What is known leaves a gate as a file, and enters another one from a file, or from postscreen's own cache.

use std::{
    fs,
    net::IpAddr,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};

const TEASER: &str = "220-mx.example.test ESMTP";
const GREETING: &str = "220 mx.example.test ESMTP Postfix (Debian/GNU)";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn greeting(net: &Net, client: &str) -> String {
    Client::connect(net.client(), ip(client)).line()
}

/// How many lines became what: the line that `mxscreen cache import` prints.
fn imports(gate: &Gate, file: &str, more: &[&str]) -> String {
    gate.tell(&[&["cache", "import", file], more].concat()).trim().to_owned()
}

#[test]
fn what_one_gate_knows_another_one_takes_over() {
    let exported = {
        let Some(net) = Net::new() else { return };
        let _postfix = Postfix::start(&net);
        let gate = Gate::start(&net, Settings::in_place(&net));
        let mut good = Client::connect(net.client(), ip("198.18.1.1"));
        assert_eq!((good.line(), good.line()), (TEASER.to_owned(), GREETING.to_owned()));
        gate.tell(&["deny", "198.18.2.0/24", "--reason", "hammers us"]);
        gate.tell(&["allow", "198.18.2.9", "--for", "1h"]);
        gate.tell(&["forget", "198.18.3.0/24"]);
        fs::write(net.directory().join("drop"), "2001:2:0:50::/60\n").unwrap();
        gate.tell(&["blocklist", "import", net.directory().join("drop").to_str().unwrap(), "--list", "drop"]);
        gate.tell(&["cache", "export"])
    };
    assert_eq!(exported.lines().count(), 6, "a head and five registers: {exported}");

    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net));
    let file = net.directory().join("export.jsonl");
    let file = file.to_str().unwrap();
    fs::write(file, format!("{exported}\n{{\"key\":\"nonsense\"}}\n")).unwrap();
    assert_eq!(
        imports(&gate, file, &["--dry-run"]),
        "5 would be taken over; nothing was changed; 0 are known already, 0 are over, 1 were refused"
    );
    assert_eq!(greeting(&net, "198.18.1.1"), TEASER);
    let done = gate.control(&["cache", "import", file]);
    let (said, complaint) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(said.trim(), "5 taken over; 0 are known already, 0 are over, 1 were refused");
    assert!(complaint.contains(&format!("{file}:8: refused: \"nonsense\" is no key")), "{complaint}");
    assert_eq!(greeting(&net, "198.18.1.1"), GREETING, "steered");
    gate.wait_denied(ip("198.18.2.7"));
    gate.wait_denied(ip("2001:2:0:5f::1"));
    assert_eq!(greeting(&net, "198.18.2.9"), GREETING);
    assert_eq!(gate.ask(&["explain", "198.18.2.7"])["deny_entry"]["reason"], "hammers us");
    assert_eq!(gate.tell(&["blocklist", "export", "--list", "drop"]), "2001:2:0:50::/60\n");

    // Nothing of it is news any more, and what it gives out is what it took in.
    assert_eq!(imports(&gate, file, &[]), "0 taken over; 5 are known already, 0 are over, 1 were refused");
    assert_eq!(gate.tell(&["cache", "export"]), exported);
    // What is learnt later counts more than a file.
    gate.tell(&["forget", "198.18.0.0/16"]);
    assert_eq!(imports(&gate, file, &[]), "0 taken over; 5 are known already, 0 are over, 1 were refused");
    assert_eq!(greeting(&net, "198.18.1.1"), TEASER);
}

#[test]
fn a_switch_from_postscreen_starts_with_its_knowledge() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (valid, over) = (now + 3600, now - Duration::from_hours(24 * 30).as_secs());
    let text = net.directory().join("postscreen_cache");
    let lines = [
        format!("198.18.1.1 {valid};1;0;0;0"),
        format!("2001:2:0:1::5 {valid};{valid};0;0;0"),
        format!("198.18.1.2 {over};1;0;0;0"),
        format!("_LAST_CACHE_CLEANUP_COMPLETED_ {now}"),
    ];
    fs::write(&text, lines.join("\n") + "\n").unwrap();
    let table = format!("btree:{}", text.display());
    let made = Command::new("postmap").arg(&table).status().unwrap();
    assert!(made.success());
    let printed = Command::new("postmap").args(["-s", &table]).output().unwrap();
    assert!(printed.status.success());
    let dump = net.directory().join("dump");
    fs::write(&dump, &printed.stdout).unwrap();

    let said = imports(&gate, dump.to_str().unwrap(), &[]);
    assert_eq!(said, "2 taken over; 0 are known already, 1 are over, 0 were refused");
    for known in ["198.18.1.1", "2001:2:0:1::7"] {
        assert_eq!(greeting(&net, known), GREETING, "{known} is steered");
        let tests = gate.ask(&["explain", known])["tests"].clone();
        assert_eq!(tests[0]["grounds"], "from postscreen's cache", "{tests}");
    }
    assert_eq!(greeting(&net, "198.18.1.2"), TEASER);
}
