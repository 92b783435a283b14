//! What Prometheus sees of a gate: what clients did, and nobody's address.

use std::{collections::BTreeSet, net::IpAddr, path::Path, process::Command};

use nix::sys::signal::Signal;
use regex::Regex;
use screen_tests::{
    backend::Backend,
    gate::{Gate, Settings},
    net::Net,
    scrape::{Scrape, ask},
    smtp::Client,
    wait::{SOON, wait_for},
};

const CLIENTS: [&str; 2] = ["198.18.1.1", "2001:2:0:1::1"];
const SERVERS: [&str; 2] = ["127.0.0.1:9125", "[::1]:9125"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn with_metrics(net: &Net) -> Settings {
    Settings::in_place(net).set("metrics.listen", &format!("{SERVERS:?}"))
}

/// The metrics, the same by each of the two addresses.
fn scrape(net: &Net) -> Scrape {
    let [v4, _] = SERVERS.map(|server| {
        wait_for(&format!("{server} answers"), SOON, || Scrape::try_take(&net.edge, server.parse().unwrap()))
    });
    v4
}

fn wait_sample(net: &Net, name: &str, value: f64) {
    wait_for(&format!("{name} is {value}"), SOON, || (scrape(net).sample(name) == Some(value)).then_some(()));
}

fn pass(net: &Net, client: &str) {
    let mut client = Client::connect(net.client(), ip(client));
    assert!(client.reply().ends_with("220 patient"));
}

#[test]
fn what_clients_did_is_counted_and_none_is_named() {
    let Some(net) = Net::new() else { return };
    let _server = Backend::patient(&net.edge);
    let settings = with_metrics(&net).text("pregreet.wait", "6s").text("pregreet.action", "drop");
    let _gate = Gate::start(&net, settings);
    for client in CLIENTS {
        pass(&net, client);
    }
    let mut early = Client::connect(net.client(), ip("198.18.1.9"));
    early.line();
    early.send("EHLO early\r\n");
    early.wait_closed();

    wait_sample(&net, r#"mxscreen_decisions_total{place="screener",verdict="forwarded",reason="passed"}"#, 2.0);
    wait_sample(&net, r#"mxscreen_decisions_total{place="screener",verdict="rejected",reason="failed pregreet"}"#, 1.0);
    let seen = scrape(&net);
    for (name, value) in [
        (r#"mxscreen_tests_total{test="pregreet",result="passed",action="none"}"#, 2.0),
        (r#"mxscreen_tests_total{test="pregreet",result="failed",action="drop"}"#, 1.0),
        (r#"mxscreen_session_duration_seconds_count{verdict="forwarded"}"#, 2.0),
        (r#"mxscreen_session_duration_seconds_bucket{verdict="forwarded",le="+Inf"}"#, 2.0),
        (r#"mxscreen_backend_up{backend="local"}"#, 1.0),
        (r#"mxscreen_backend_served_total{backend="local"}"#, 2.0),
        (r#"mxscreen_kernel_table_entries{table="pass"}"#, 2.0),
        ("mxscreen_connections_accepted_total", 3.0),
        ("mxscreen_cache_records", 2.0),
        ("mxscreen_kernel_running", 1.0),
        ("mxscreen_config_last_reload_successful", 1.0),
    ] {
        assert_eq!(seen.sample(name), Some(value), "{name}:\n{}", seen.text);
    }

    // A friend is the kernel's.
    for client in CLIENTS {
        pass(&net, client);
    }
    let seen = scrape(&net);
    let steered = seen.sample(r#"mxscreen_decisions_total{place="kernel",verdict="forwarded",reason="pass_old"}"#);
    assert!(steered >= Some(2.0), "{}", seen.text);
    assert_eq!(seen.sample("mxscreen_connections_accepted_total"), Some(3.0));
    for address in ["198.18.", "2001:2:"] {
        assert!(!seen.text.contains(address), "{}", seen.text);
    }
}

#[test]
fn metrics_go_on_after_a_reload_a_crash_and_an_upgrade() {
    let Some(net) = Net::new() else { return };
    let _server = Backend::patient(&net.edge);
    let (settings, _program) = with_metrics(&net).copied();
    let gate = Gate::start(&net, settings);
    let succeeded = r#"mxscreen_config_reloads_total{result="succeeded"}"#;
    assert_eq!(scrape(&net).sample(succeeded), Some(0.0));
    gate.tell(&["reload"]);
    wait_sample(&net, succeeded, 1.0);

    for upgrade in [false, true] {
        let before = gate.screener();
        if upgrade {
            gate.tell(&["upgrade"]);
        } else {
            gate.signal_screener(Signal::SIGKILL);
        }
        wait_for("the former screener has ended", SOON, || {
            (!Path::new(&format!("/proc/{before}")).exists()).then_some(())
        });
        // Counts are those of the screener that runs.
        wait_sample(&net, succeeded, 0.0);
    }
}

#[test]
fn who_asks_for_anything_else_is_refused() {
    let Some(net) = Net::new() else { return };
    let _gate = Gate::start(&net, with_metrics(&net));
    for server in SERVERS.map(|server| server.parse().unwrap()) {
        for (request, status) in [("POST /metrics", "405"), ("GET /", "404"), ("DELETE /state", "404")] {
            let answer = wait_for("an answer", SOON, || ask(&net.edge, server, request));
            assert_eq!(answer.split(' ').nth(1), Some(status), "{request}: {answer}");
        }
    }
    assert!(scrape(&net).sample("mxscreen_start_time_seconds") > Some(0.0));
}

/// The metrics that `text` names, without what is added to a histogram's name.
fn named(text: &str, families: &BTreeSet<String>) -> BTreeSet<String> {
    let name = Regex::new(r"\bmxscreen_[a-z0-9_]+").unwrap();
    let names = name.find_iter(text).map(|found| {
        let found = found.as_str();
        let parts = ["_bucket", "_sum", "_count"].iter().find_map(|part| found.strip_suffix(part));
        parts.filter(|family| families.contains(*family)).unwrap_or(found).to_owned()
    });
    names.collect()
}

#[test]
fn documents_dashboard_and_rules_name_what_there_is() {
    let Some(net) = Net::new() else { return };
    let _gate = Gate::start(&net, with_metrics(&net));
    let families = scrape(&net).families();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    assert_eq!(named(&read("docs/metrics.md"), &families), families, "each has its row, and each row its metric");
    for file in ["packaging/grafana/mxscreen.json", "packaging/prometheus/mxscreen.rules.yml"] {
        let used = named(&read(file), &families);
        assert!(used.len() > 5 && used.is_subset(&families), "{file}: {:?}", used.difference(&families));
    }
    let rules = root.join("packaging/prometheus/mxscreen.rules.yml");
    let checked = Command::new("promtool").args(["check", "rules"]).arg(&rules).output().expect("promtool runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let dashboard: serde_json::Value = serde_json::from_str(&read("packaging/grafana/mxscreen.json")).unwrap();
    assert_eq!(dashboard["uid"], "mxscreen");
}
