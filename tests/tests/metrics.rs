//! What Prometheus sees of a gate: what clients did, and nobody's address.

use std::{collections::BTreeSet, net::IpAddr, path::Path, process::Command};

use nix::sys::signal::Signal;
use regex::Regex;
use screen_tests::{
    backend::Backend,
    dns::{DnsServer, Zone},
    fleet::Fleet,
    gate::{Gate, Settings},
    net::Net,
    redis::{PORT, Redis},
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

/// The samples with these values.
#[track_caller]
fn assert_samples(seen: &Scrape, samples: &[(&str, f64)]) {
    for (name, value) in samples {
        assert_eq!(seen.sample(name), Some(*value), "{name}:\n{}", seen.text);
    }
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
    let samples = [
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
    ];
    assert_samples(&scrape(&net), &samples);

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
fn what_each_zone_said_is_counted_by_the_name_that_may_be_shown() {
    let Some(net) = Net::new() else { return };
    let _server = Backend::patient(&net.edge);
    let clients = ["198.18.1.1", "198.18.1.2", "2001:2:0:1::1"];
    let zones = [
        Zone::new("k3y.paid.example").list(ip(clients[0]), 2).list(ip(clients[2]), 2),
        Zone::new("broken.example").broken(),
    ];
    let dns = DnsServer::start(&net.edge, zones.to_vec());
    let settings = with_metrics(&net)
        .set("dnsbl.resolvers", r#"["127.0.0.1:53"]"#)
        .set("dnsbl.sites", r#"["k3y.paid.example", "broken.example"]"#)
        .set("dnsbl.reply_map", r#"{ "k3y.paid.example" = "paid.example" }"#)
        .set("dnsbl.threshold", "3")
        .text("dnsbl.timeout", "60s");
    let gate = Gate::start(&net, settings.clone());
    for client in clients {
        pass(&net, client);
    }
    let known = [
        (r#"mxscreen_dnsbl_queries_total{zone="paid.example"}"#, 3.0),
        (r#"mxscreen_dnsbl_answers_total{zone="paid.example",result="listed"}"#, 2.0),
        (r#"mxscreen_dnsbl_answers_total{zone="paid.example",result="not-listed"}"#, 1.0),
        (r#"mxscreen_dnsbl_answer_seconds_count{zone="paid.example"}"#, 3.0),
        (r#"mxscreen_dnsbl_answer_seconds_bucket{zone="paid.example",le="+Inf"}"#, 3.0),
        (r#"mxscreen_dnsbl_failures_total{zone="paid.example",reason="server-failure"}"#, 0.0),
        (r#"mxscreen_dnsbl_suspended{zone="paid.example"}"#, 0.0),
        (r#"mxscreen_dnsbl_queries_total{zone="broken.example"}"#, 3.0),
        (r#"mxscreen_dnsbl_answers_total{zone="broken.example",result="listed"}"#, 0.0),
        (r#"mxscreen_dnsbl_failures_total{zone="broken.example",reason="server-failure"}"#, 3.0),
        (r#"mxscreen_dnsbl_answer_seconds_count{zone="broken.example"}"#, 3.0),
    ];
    // No client waits for an answer longer than for its greeting.
    for (name, value) in known {
        wait_sample(&net, name, value);
    }
    assert!(!scrape(&net).text.contains("k3y"), "a zone's key is nobody's business");

    // A zone that lists everybody is asked no more, and that is no answer of its.
    let everybody = Zone::new("everybody.example").list(ip("127.0.0.1"), 2);
    dns.serve(zones.into_iter().chain([everybody]).collect());
    let same = settings.text("dnsbl.action", "enforce");
    drop(same.write());
    gate.tell(&["reload"]);
    assert_samples(&scrape(&net), &known);
    drop(same.set("dnsbl.sites", r#"["everybody.example"]"#).write());
    gate.tell(&["reload"]);
    wait_sample(&net, r#"mxscreen_dnsbl_suspended{zone="everybody.example"}"#, 1.0);
    pass(&net, "198.18.1.9");
    wait_sample(&net, r#"mxscreen_dnsbl_failures_total{zone="everybody.example",reason="suspended"}"#, 1.0);
    assert_samples(
        &scrape(&net),
        &[
            (r#"mxscreen_dnsbl_queries_total{zone="everybody.example"}"#, 0.0),
            (r#"mxscreen_dnsbl_answer_seconds_count{zone="everybody.example"}"#, 0.0),
        ],
    );
}

#[test]
fn how_gates_hear_of_each_other_is_measured_at_both_ends() {
    let Some(mut fleet) = Fleet::new(2, r#"["redis://192.0.2.5:6379/0"]"#) else { return };
    let mut redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.configure(|settings| settings.set("metrics.listen", &format!("{SERVERS:?}")).text("pregreet.wait", "6s"));
    fleet.start();
    let [teller, hearer] = &fleet.edges[..] else { panic!("two edges") };
    let nothing_told = [
        ("mxscreen_redis_connected", 1.0),
        ("mxscreen_redis_synced", 1.0),
        ("mxscreen_redis_waiting", 0.0),
        ("mxscreen_redis_unconfirmed", 0.0),
    ];
    for edge in [teller, hearer] {
        assert_samples(&scrape(edge.net()), &nothing_told);
        assert_samples(
            &scrape(edge.net()),
            &[("mxscreen_redis_heard_total", 0.0), ("mxscreen_redis_lag_seconds_count", 0.0)],
        );
    }

    // A failure and what an operator says are one change each.
    teller.catches(ip(CLIENTS[0]));
    hearer.gate().wait_denied(ip(CLIENTS[0]));
    teller.gate().tell(&["deny", CLIENTS[1]]);
    hearer.gate().wait_denied(ip(CLIENTS[1]));
    for name in ["mxscreen_redis_told_total", "mxscreen_redis_echo_seconds_count"] {
        wait_sample(teller.net(), name, 2.0);
    }
    for name in ["mxscreen_redis_heard_total", "mxscreen_redis_lag_seconds_count"] {
        wait_sample(hearer.net(), name, 2.0);
    }
    wait_sample(hearer.net(), r#"mxscreen_redis_lag_seconds_bucket{le="+Inf"}"#, 2.0);
    // Whoever has learnt it looked the stranger up; nobody has asked the other one.
    assert_samples(
        &scrape(teller.net()),
        &[
            (r#"mxscreen_redis_lookups_total{result="answered"}"#, 1.0),
            ("mxscreen_redis_lookup_seconds_count", 1.0),
            ("mxscreen_redis_heard_total", 0.0),
            ("mxscreen_redis_lag_seconds_count", 0.0),
        ],
    );
    assert_samples(
        &scrape(hearer.net()),
        &[
            (r#"mxscreen_redis_lookups_total{result="answered"}"#, 0.0),
            ("mxscreen_redis_told_total", 0.0),
            ("mxscreen_redis_echo_seconds_count", 0.0),
        ],
    );

    redis.kill();
    for edge in [teller, hearer] {
        edge.wait_disconnected();
        wait_sample(edge.net(), "mxscreen_redis_connected", 0.0);
    }
    teller.gate().tell(&["deny", "198.18.1.77"]);
    wait_sample(teller.net(), "mxscreen_redis_waiting", 1.0);
    redis.restart(&fleet.backplane);
    hearer.gate().wait_denied(ip("198.18.1.77"));
    for edge in [teller, hearer] {
        for (name, value) in nothing_told {
            wait_sample(edge.net(), name, value);
        }
    }
    assert!(scrape(hearer.net()).sample("mxscreen_redis_reconciled_total") >= Some(2.0), "at the start, and now");
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
