//! What Prometheus would see of a gate.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use crate::{netns::Namespace, wait::SOON};

/// All metrics at one moment.
#[derive(Debug)]
pub struct Scrape {
    /// As it came.
    pub text: String,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Asks the gate's port for metrics; `None` if nobody answers.
    #[must_use]
    pub fn try_take(namespace: &Namespace, server: SocketAddr) -> Option<Self> {
        let answer = ask(namespace, server, "GET /metrics")?;
        let (head, text) = answer.split_once("\r\n\r\n")?;
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        let scrape = Self { text: text.to_owned(), samples: samples.collect() };
        head.starts_with("HTTP/1.1 200 ").then_some(scrape)
    }

    /// A sample, written as in the text: the name, and the labels in their order.
    #[must_use]
    pub fn sample(&self, name: &str) -> Option<f64> {
        self.samples.get(name).copied()
    }

    /// The names of all families, those without samples included.
    #[must_use]
    pub fn families(&self) -> BTreeSet<String> {
        let types = self.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }
}

/// What the server says to a request of one line, until it closes; `None` if it can't be asked.
#[must_use]
pub fn ask(namespace: &Namespace, server: SocketAddr, request: &str) -> Option<String> {
    namespace.enter(|| {
        let mut stream = TcpStream::connect_timeout(&server, SOON).ok()?;
        stream.set_read_timeout(Some(SOON)).ok()?;
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: gate\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    })
}
