//! An operator changes several things at once, while clients come and go; or makes a mistake, and nothing changes.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use screen_tests::{
    certificate::Certificate,
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};

const GOOD: &str = "198.18.1.9";
const DENIED: &str = "198.18.1.7";
const STRANGER: &str = "198.18.1.1";
const GREETING: &str = "220 mx.example.test ESMTP Postfix (Debian/GNU)";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn settings(net: &Net, table: &Path, certificate: &Certificate) -> Settings {
    Settings::in_place(net)
        .set("access.list", &format!("[\"cidr:{}\"]", table.display()))
        .text("access.denylist_action", "drop")
        .set("kernel.interfaces", r#"["mx0"]"#)
        .text("tls.level", "may")
        .text("tls.certificate", &certificate.certificate.display().to_string())
        .text("tls.key", &certificate.key.display().to_string())
}

/// How the gate is attached to each interface.
fn modes(gate: &Gate) -> Vec<(String, String)> {
    let status = gate.ask(&["status"]);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let interfaces = status["kernel"]["interfaces"].as_array().unwrap();
    interfaces.iter().map(|interface| (text(&interface["interface"]), text(&interface["mode"]))).collect()
}

/// What a stranger hears first.
fn teaser(net: &Net) -> String {
    Client::connect(net.client(), ip(STRANGER)).line()
}

/// Ends the traffic of a test, also one that fails.
struct Traffic<'a>(&'a AtomicBool);

impl Drop for Traffic<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn many_changes_take_effect_together_and_cost_no_client() {
    let Some(net) = Net::with_clients(2) else { return };
    let _postfix = Postfix::start(&net);
    let (table, log) = (net.directory().join("access.cidr"), net.directory().join("gate/another-log"));
    fs::write(&table, format!("{GOOD} permit\n")).unwrap();
    let settings = settings(&net, &table, &Certificate::make(net.directory()));
    let gate = Gate::start(&net, settings.clone());
    gate.tell(&["deny", DENIED]);
    gate.wait_denied(ip(DENIED));
    assert_eq!(Client::connect(net.client(), ip(DENIED)).line(), "521 5.3.2 Service currently unavailable");
    assert_eq!(modes(&gate), [("mx0".to_owned(), "generic".to_owned())], "a veth can't reply natively");
    assert_eq!(gate.tell(&["reload"]), "nothing has changed\nreloaded\n");

    let (ended, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _traffic = Traffic(&ended);
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let mut client = Client::connect(net.client(), ip(GOOD));
                assert_eq!(client.line(), GREETING);
                client.quit();
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
        let more = |gate: &Gate| {
            let before = served.load(Ordering::Relaxed);
            gate.wait("clients are served", || served.load(Ordering::Relaxed) > before + 1);
        };
        more(&gate);
        fs::write(&table, format!("{GOOD} permit\n198.18.2.0/24 reject\n")).unwrap();
        let _ = Certificate::make(net.directory());
        let _ = settings
            .text("pregreet.banner", "changed")
            .text("kernel.deny_reply", "drop")
            .text("kernel.limit_reply", "drop")
            .set("kernel.interfaces", r#"["mx0", "mx1"]"#)
            .set("limits.client_connections", "40")
            .text("log.target", &format!("file:{}", log.display()))
            .write();
        let said = gate.tell(&["reload"]);
        for change in [
            format!("{}: changed, 2 entries, 1 more than before", table.display()),
            format!("{}: changed, valid until 20", net.directory().join("certificate.pem").display()),
            r#"pregreet.banner: "$hostname ESMTP" -> "changed""#.to_owned(),
            r#"kernel.deny_reply: "reject" -> "drop""#.to_owned(),
            r#"kernel.interfaces: ["mx0"] -> ["mx0", "mx1"]"#.to_owned(),
            "limits.client_connections: 50 -> 40".to_owned(),
            format!("-> \"file:{}\"", log.display()),
        ] {
            assert!(said.contains(&change), "{change}: {said}");
        }
        assert!(said.ends_with("\nreloaded\n"), "{said}");
        more(&gate);
        assert_eq!(teaser(&net), "220-changed");
        Client::assert_dropped(net.client(), ip(DENIED));
        Client::assert_dropped(net.client(), ip("198.18.2.1"));
        gate.wait("the gate is on both interfaces, in the way that is best by now", || {
            modes(&gate) == ["mx0", "mx1"].map(|name| (name.to_owned(), "native".to_owned()))
        });
        more(&gate);
    });
    let written = || fs::read_to_string(&log).unwrap();
    gate.wait("the log goes on in the other file, keeper's lines too", || {
        written().contains("kernel.deny_reply: ") && written().contains("interface mx1: native")
    });
    let name = format!(" mxscreen[{}]: ", gate.pid());
    assert!(written().lines().all(|line| line.contains(&name)), "{name}: {}", written());
    assert_eq!(gate.logged("kernel.deny_reply: "), 0, "the former file was left before");
}

#[test]
fn one_mistake_among_good_changes_changes_nothing() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let (table, log) = (net.directory().join("access.cidr"), net.directory().join("gate/another-log"));
    fs::write(&table, format!("{GOOD} permit\n")).unwrap();
    let before = settings(&net, &table, &Certificate::make(net.directory()));
    let gate = Gate::start(&net, before.clone());
    let other = net.directory().join("other.pem");
    fs::write(&other, "-----BEGIN PRIVATE KEY-----\nthis is no key\n-----END PRIVATE KEY-----\n").unwrap();
    fs::write(&table, "0.0.0.0/0 reject\n").unwrap();
    let good = before
        .clone()
        .text("pregreet.banner", "changed")
        .set("limits.client_connections", "40")
        .text("log.target", &format!("file:{}", log.display()));
    for (changed, complaint) in [
        (good.clone().text("tls.key", &other.display().to_string()), "other.pem"),
        (good.clone().set("kernel.interfaces", r#"["nowhere0"]"#), "there is no interface nowhere0"),
        (good.clone().set("ports", "[25, 587]"), "ports: [25] -> [25, 587]"),
        (good.clone().set("no.such.key", "1"), "unknown key"),
    ] {
        let _ = changed.write();
        // Whatever is wrong, a rotated log is opened again.
        fs::rename(gate.settings().log(), net.directory().join("gate/log.1")).unwrap();
        let refused = gate.control(&["reload"]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(complaint), "{complaint}: {said}");
        gate.wait_log("not reloaded: ");
        assert_eq!(teaser(&net), "220-mx.example.test ESMTP", "{complaint}");
        let mut client = Client::connect(net.client(), ip(GOOD));
        assert_eq!(client.line(), GREETING, "{complaint}: the table is the former one");
        client.quit();
    }
    assert_eq!(fs::read_to_string(&log).unwrap_or_default(), "", "nothing is logged there");
    let _ = before.write();
    fs::write(&table, format!("{GOOD} permit\n")).unwrap();
    assert_eq!(gate.tell(&["reload"]), "nothing has changed\nreloaded\n");
}
