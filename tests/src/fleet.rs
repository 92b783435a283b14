//! Edge hosts that share what they know through Redis.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    backend::Backend,
    backplane::Backplane,
    bpf::network_of,
    gate::{Gate, Settings},
    net::Net,
    privilege::has_redis,
    smtp::Client,
    wait::{SOON, wait_for},
};

/// How the mail server behind each gate greets.
pub const GREETING: &str = "220 patient";
/// How a gate greets whom it does not know.
pub const TEASER: &str = "220-mx.example.test ESMTP";

/// The hosts, each with a mail server, and the network behind them. Gates run on those that were started.
#[derive(Debug)]
pub struct Fleet {
    /// The hosts.
    pub edges: Vec<Edge>,
    /// Where Redis is.
    pub backplane: Backplane,
}

/// One host. Its clients are hosts of its own, so that the same address can come to several edges.
#[derive(Debug)]
pub struct Edge {
    gate: Option<Gate>,
    settings: Settings,
    _backend: Backend,
    net: Net,
}

impl Fleet {
    /// So many edges without gates, whose gates will use the Redis at `urls` (a TOML list); none where the machine can't do that.
    #[must_use]
    pub fn new(count: u8, urls: &str) -> Option<Self> {
        if !has_redis() {
            return None;
        }
        let nets = (0..count).map(|_| Net::new()).collect::<Option<Vec<_>>>()?;
        let backplane = Backplane::behind(&nets);
        let edges = nets.into_iter().enumerate().map(|(number, net)| Edge::new(number, net, urls)).collect();
        Some(Self { edges, backplane })
    }

    /// Changes the settings of all gates that are started from now on.
    pub fn configure(&mut self, change: impl Fn(Settings) -> Settings) {
        for edge in &mut self.edges {
            edge.settings = change(edge.settings.clone());
        }
    }

    /// Starts all gates, and waits until each knows what Redis knows.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    #[track_caller]
    pub fn start(&mut self) {
        self.edges.iter_mut().for_each(Edge::start);
        self.edges.iter().for_each(Edge::wait_synced);
    }

    /// Waits until all gates that run know the same, and their kernels decide by it; returns what they know.
    ///
    /// # Panics
    ///
    /// When they go on to differ; the message says what each knows.
    #[track_caller]
    pub fn wait_agreement(&self) -> Knowledge {
        let deadline = Instant::now() + SOON;
        loop {
            let gates = self.edges.iter().filter_map(|edge| edge.gate.as_ref());
            let known: Vec<Knowledge> = gates.map(Knowledge::of).collect();
            let first = known.first().expect("a gate");
            if known.iter().all(|other| other == first) {
                return first.clone();
            }
            assert!(Instant::now() < deadline, "the gates do not agree: {known:#?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Edge {
    fn new(number: usize, net: Net, urls: &str) -> Self {
        let settings = Settings::in_place(&net)
            .text("cache.backend", "redis")
            .set("cache.redis.urls", urls)
            .text("cache.redis.host", &format!("mx{number}.example.test"))
            .text("pregreet.wait", "400ms")
            .text("pregreet.action", "drop")
            .text("kernel.deny_reply", "drop");
        let backend = Backend::patient(&net.edge);
        Self { gate: None, settings, _backend: backend, net }
    }

    /// The network with this host.
    #[must_use]
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// The settings of its gate.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its gate.
    ///
    /// # Panics
    ///
    /// When none runs.
    #[must_use]
    #[track_caller]
    pub fn gate(&self) -> &Gate {
        self.gate.as_ref().expect("a gate that runs")
    }

    /// Starts its gate, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    #[track_caller]
    pub fn start(&mut self) {
        self.gate = Some(Gate::start(&self.net, self.settings.clone()));
    }

    /// Stops its gate and waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end.
    #[track_caller]
    pub fn stop(&mut self) {
        self.gate.take().expect("a gate that runs").stop();
    }

    /// What its gate says of Redis, `cache.redis` in `status --json`.
    ///
    /// # Panics
    ///
    /// When it says nothing.
    #[must_use]
    #[track_caller]
    pub fn redis(&self) -> Value {
        let status = self.gate().ask(&["status"]);
        assert!(status["cache"]["redis"].is_object(), "no word of Redis in {status}");
        status["cache"]["redis"].clone()
    }

    /// Waits until its gate is connected to Redis and knows what that knows.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    #[track_caller]
    pub fn wait_synced(&self) {
        self.gate().wait("the gate knows what Redis knows", || {
            let redis = self.redis();
            redis["connected"] == true && redis["synced"] == true
        });
    }

    /// Waits until its gate has noticed that Redis does not answer.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    #[track_caller]
    pub fn wait_disconnected(&self) {
        self.gate().wait("the gate notices that Redis is gone", || self.redis()["connected"] == false);
    }

    /// A client that nobody knows: it is tested here, passes, and gets to the mail server.
    ///
    /// # Panics
    ///
    /// When anything else happens.
    #[track_caller]
    pub fn tests(&self, client: IpAddr) {
        let mut stranger = Client::connect(self.net.client(), client);
        assert_eq!((stranger.line().as_str(), stranger.line().as_str()), (TEASER, GREETING), "{client}");
        self.gate().wait_log(&format!("PASS NEW {}", stranger.name()));
    }

    /// A client that does not wait for the greeting: it fails here.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn catches(&self, client: IpAddr) {
        let mut hasty = Client::connect(self.net.client(), client);
        assert_eq!(hasty.line(), TEASER, "{client}");
        hasty.send("EHLO hasty\r\n");
        hasty.wait_closed();
        self.gate().wait_log(&format!("from {}: EHLO hasty", hasty.name()));
    }

    /// Waits until a client is in the kernel's table of the known good.
    ///
    /// # Panics
    ///
    /// When it does not get there.
    #[track_caller]
    pub fn wait_passed(&self, client: IpAddr) {
        self.gate().wait(&format!("{client} in the map pass"), || self.has_passed(client));
    }

    /// Whether a client is in the kernel's table of the known good.
    #[must_use]
    #[track_caller]
    pub fn has_passed(&self, client: IpAddr) -> bool {
        self.gate().pins().of("pass", network_of(client)).is_some()
    }

    /// The client is given to the mail server by the kernel.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[track_caller]
    pub fn assert_steers(&self, client: IpAddr) {
        let steered = || self.gate().pins().client(client).map_or(0, |entry| entry.number("steered"));
        let before = steered();
        let mut known = Client::connect(self.net.client(), client);
        assert_eq!(known.line(), GREETING, "{client}");
        assert_eq!(steered(), before + 1, "{client}");
    }

    /// The client is refused by the kernel.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[track_caller]
    pub fn assert_refuses(&self, client: IpAddr) {
        let refused = || self.gate().pins().count("refused", client, "denied");
        let before = refused();
        // A first knock may spend its time on finding the edge's link-layer address.
        wait_for(&format!("the kernel refuses {client}"), SOON, || {
            Client::assert_dropped(self.net.client(), client);
            (refused() > before).then_some(())
        });
    }
}

/// What a gate and its kernel know of others, without what only this gate counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knowledge {
    /// What is denied: run-time entries and failures, each with its origin and reason.
    pub denied: BTreeSet<String>,
    /// What is allowed.
    pub allowed: BTreeSet<String>,
    /// Who has passed.
    pub passed: BTreeSet<String>,
    /// The imported lists, with the number of their networks.
    pub lists: BTreeSet<String>,
    /// The keys of the kernel's tables.
    pub kernel: BTreeSet<String>,
}

impl Knowledge {
    #[track_caller]
    fn of(gate: &Gate) -> Self {
        let rows = |words: &[&str], fields: &[&str]| -> BTreeSet<String> {
            let rows = gate.ask(words);
            // Every host has an access list of its own.
            let rows = rows.as_array().expect("a list").iter().filter(|row| row["origin"] != "access list");
            rows.map(|row| fields.iter().map(|field| row[field].to_string()).collect::<Vec<_>>().join(" ")).collect()
        };
        let of_list = |which| rows(&["list", which], &["net", "origin", "reason"]);
        let kernel = ["deny_host", "deny_net", "allow", "pass"]
            .into_iter()
            .flat_map(|map| gate.pins().dump(map).into_iter().map(move |entry| format!("{map} {}", entry.key)));
        Self {
            denied: of_list("deny"),
            allowed: of_list("allow"),
            passed: of_list("pass"),
            lists: rows(&["blocklist", "list"], &["list", "networks"]),
            kernel: kernel.collect(),
        }
    }
}
