//! Some minutes of two gates as Prometheus sees them, asked what the dashboard's panels ask. `cargo xtask picture` draws what comes of it; it needs root.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a picture that would be wrong is not to be drawn"
)]

mod prometheus;
mod traffic;

use std::{env, fs, path::Path, thread, time::Duration};

use screen_tests::{
    dns::{DnsServer, Zone},
    fleet::{Edge, Fleet},
    redis::{PORT, Redis},
};
use serde_json::{Value, json};

use self::{prometheus::Prometheus, traffic::Traffic};

/// How long clients come, in three parts of the same length.
const PART: Duration = Duration::from_secs(160);

/// Zones with the time that they take to answer.
const ZONES: [(&str, u64); 3] = [("zen.example.net", 25), ("bl.example.org", 60), ("list.example.com", 140)];

fn main() {
    let [dashboard, answers] =
        [1, 2].map(|place| env::args().nth(place).expect("a dashboard, and a file for the answers"));
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(dashboard).unwrap()).unwrap();
    let Some(mut fleet) = Fleet::new(2, r#"["redis://192.0.2.5:6379/0"]"#) else { return };
    let _redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.configure(|settings| {
        settings
            .set("metrics.listen", r#"["[::]:9125"]"#)
            .text("pregreet.wait", "3s")
            .text("dnsbl.action", "drop")
            .set("dnsbl.resolvers", r#"["127.0.0.1:53"]"#)
            .set("dnsbl.sites", &format!("{:?}", ZONES.map(|(name, _)| format!("{name}*2"))))
            .set("dnsbl.threshold", "2")
    });
    let servers: Vec<DnsServer> = fleet.edges.iter().map(|edge| DnsServer::start(&edge.net().edge, zones(1))).collect();
    fleet.start();
    let prometheus = Prometheus::start(&fleet.backplane, fleet.edges.len());
    let [watching, other] = fleet.edges.as_slice() else { panic!("two hosts") };
    other.gate().tell(&["deny", traffic::DENIED]);
    thread::scope(|scope| {
        let traffic = Traffic::begin(scope, &fleet.edges);
        reload(watching, "true");
        thread::sleep(PART);
        reload(watching, "false");
        // One zone has a bad time.
        servers.iter().for_each(|server| server.serve(zones(9)));
        thread::sleep(PART);
        servers.iter().for_each(|server| server.serve(zones(1)));
        thread::sleep(PART);
        traffic.end();
    });
    fs::write(Path::new(&answers), prometheus.answers(&dashboard, PART * 3).to_string()).unwrap();
}

/// The zones, the last of which is so many times slower than it is.
fn zones(slower: u64) -> Vec<Zone> {
    let zone = |(number, (name, millis)): (usize, (&str, u64))| {
        let factor = if number + 1 == ZONES.len() { slower } else { 1 };
        let zone = Zone::new(name).ttl(20).delayed(Duration::from_millis(millis * factor));
        (1..=250).step_by(number + 1).fold(zone, |zone, last| zone.list(traffic::listed(last), 4))
    };
    ZONES.into_iter().enumerate().map(zone).collect()
}

fn reload(edge: &Edge, dry_run: &str) {
    drop(edge.settings().clone().set("dry_run", dry_run).write());
    edge.gate().tell(&["reload"]);
}

/// A panel's queries as Grafana puts them, for all hosts.
fn queries(panel: &Value) -> Vec<String> {
    let targets = panel["targets"].as_array().into_iter().flatten();
    let asked = targets.filter_map(|target| target["expr"].as_str());
    asked.map(|query| query.replace("$instance", ".+").replace("$__rate_interval", "30s")).collect()
}

/// What the picture is drawn from.
fn picture(dashboard: &Value, span: [u64; 2], answers: &[Vec<Value>]) -> Value {
    json!({ "dashboard": dashboard, "start": span[0], "end": span[1], "answers": answers })
}
