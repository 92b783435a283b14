//! Debian's Prometheus, beside the hosts.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use screen_tests::{
    backplane::Backplane,
    netns::run,
    process::Process,
    wait::{SOON, wait_for},
};
use serde_json::Value;

use super::{picture, queries};

/// Where it answers, in its own network.
const SERVER: &str = "127.0.0.1:9090";

/// Seconds between two looks at the hosts, and between two points of an answer.
const STEP: u64 = 5;

/// A running one. Dropping it ends it.
pub(crate) struct Prometheus {
    _process: Process,
    namespace: String,
}

impl Prometheus {
    /// Has it look at so many hosts, and waits until it answers.
    pub(crate) fn start(backplane: &Backplane, hosts: usize) -> Self {
        let directory = backplane.directory().join("prometheus");
        fs::create_dir_all(&directory).unwrap();
        let host = |number: usize| {
            let address = 101 + number;
            format!(
                "      - targets: [\"192.0.2.{address}:9125\"]\n        labels: {{instance: mx{number}.example.test}}\n"
            )
        };
        let hosts: String = (0..hosts).map(host).collect();
        let file = directory.join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: {STEP}s}}\nscrape_configs:\n  - job_name: mxscreen\n    static_configs:\n{hosts}"
        );
        fs::write(&file, text).unwrap();
        let words = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", directory.join("data").display()),
            format!("--web.listen-address={SERVER}"),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let log = directory.join("log");
        let process = Process::start(&backplane.namespace, Path::new("/usr/bin/prometheus"), &words, &log);
        let prometheus = Self { _process: process, namespace: backplane.namespace.name().to_owned() };
        wait_for("Prometheus sees the gates", SOON, || {
            let seen = prometheus.ask(&["query", "instant", "-o", "json", &format!("http://{SERVER}"), "sum(up)"]);
            seen.filter(|seen| seen.pointer("/0/value/1").is_some_and(|up| up == "2")).map(drop)
        });
        prometheus
    }

    /// What all panels of a dashboard show of the last `span`.
    pub(crate) fn answers(&self, dashboard: &Value, span: Duration) -> Value {
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let start = end - span.as_secs();
        let [from, to] = [("start", start), ("end", end)].map(|(name, time)| format!("--{name}={time}"));
        let answer = |query: &String| {
            let step = format!("--step={STEP}s");
            let words = ["query", "range", &from, &to, &step, "-o", "json", &format!("http://{SERVER}"), query];
            self.ask(&words).unwrap_or_else(|| panic!("Prometheus does not answer {query}"))
        };
        let panels = dashboard["panels"].as_array().unwrap().iter();
        let answers: Vec<Vec<Value>> = panels.map(|panel| queries(panel).iter().map(answer).collect()).collect();
        picture(dashboard, [start, end], &answers)
    }

    /// What its tool prints.
    fn ask(&self, words: &[&str]) -> Option<Value> {
        let words = ["netns", "exec", &self.namespace, "sh", "-c", "promtool \"$@\" || echo null", "promtool"]
            .into_iter()
            .chain(words.iter().copied());
        serde_json::from_str(&run("ip", words)).ok().filter(|answer: &Value| !answer.is_null())
    }
}
