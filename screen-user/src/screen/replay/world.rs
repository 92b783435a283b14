//! A client, a network and a mail server without any of them, in time that passes only when a scenario waits.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::LazyLock,
    time::Duration,
};

use regex::Regex;
use serde_json::Value;

use super::{
    Seen,
    dns::Dns,
    neutral::{self, ALT, MX, MX6},
};
use crate::screen::{
    PEEK_LIMIT, READ_LIMIT, Screen, Session, TlsState,
    event::{DnsblAnswer, Effect, Endpoints, Event, ForwardResult, Interest, Now, Standing},
    log::LogLine,
    policy::Policy,
    record::Client,
    text::escape,
};

static PORT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(\{\w+\}\]:?)\d+").unwrap());
static TIME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b[A-Z][a-z][a-z] [ 0-3]?\d \d\d:\d\d:\d\d\b").unwrap());

/// Some day, so that stamps look like stamps.
const UNIX: u64 = 1_700_000_000;

pub(super) struct World {
    config: Value,
    policy: Policy,
    screen: Screen,
    dns: Dns,
    now: Duration,
    port: u16,
    connections: BTreeMap<String, Connection>,
    clients: HashMap<String, IpAddr>,
    logs: Seen,
    /// Answers that come after their session has stopped to wait.
    late: Vec<(Duration, Client, Vec<DnsblAnswer>)>,
    backend_sessions: usize,
}

struct Connection {
    session: Session,
    endpoints: Endpoints,
    interest: Interest,
    timer: Option<Duration>,
    answers: Vec<(Duration, DnsblAnswer)>,
    told: Vec<DnsblAnswer>,
    /// Bytes in the socket.
    input: Vec<u8>,
    client_closed: bool,
    handshake: bool,
    forwarding: bool,
    relayed: bool,
    /// Whether the client has not looked at its socket since it connected.
    fresh: bool,
    server_closed: bool,
    client_gone: bool,
    events: Vec<String>,
    output: Vec<u8>,
    replies: usize,
    consumed: usize,
    last_action: Duration,
}

impl World {
    pub(super) fn new(config: &Value, dns: &Value) -> Self {
        let policy = neutral::policy(config);
        let mut screen = Screen::new(policy.clone());
        screen.set_tls(if config["tls_engine"] == "unavailable" { TlsState::Broken } else { TlsState::Usable });
        let timeout = config["dnsbl_timeout"].as_str().unwrap().trim_end_matches('s').parse().unwrap();
        Self {
            screen,
            dns: Dns::new(dns, Duration::from_secs(timeout)),
            now: Duration::ZERO,
            port: 10_000,
            connections: BTreeMap::new(),
            clients: HashMap::new(),
            logs: Seen::new(),
            late: Vec::new(),
            backend_sessions: usize::try_from(config["backend_sessions"].as_u64().unwrap()).unwrap(),
            config: config.clone(),
            policy,
        }
    }

    pub(super) fn run(&mut self, scenario: &Value) -> Seen {
        self.clients = scenario["clients"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(l, a)| (l.clone(), a.as_str().unwrap().parse().unwrap()))
            .collect();
        for step in scenario["steps"].as_array().unwrap() {
            self.step(step.as_str().unwrap());
        }
        self.wait(Duration::from_millis(300), |_| false);
        let mut seen = std::mem::take(&mut self.logs);
        for (name, connection) in &self.connections {
            seen.insert(format!("connection {name}"), connection.events.clone());
        }
        // What is logged after the client has gone is recorded too.
        for connection in self.connections.values_mut() {
            connection.client_gone = true;
            connection.client_closed = true;
        }
        self.wait(Duration::from_secs(20), |_| false);
        seen.append(&mut std::mem::take(&mut self.logs_merged(&seen)));
        assert!(self.connections.values().all(|connection| connection.session.has_ended()));
        let snapshot = self.screen.snapshot();
        assert_eq!((snapshot.checking, snapshot.forwarding, snapshot.clients), (0, 0, 0));
        self.connections.clear();
        let serial = self.config["pre_queue_limit"].as_u64() != Some(100);
        seen.retain(|place, _| serial || place != "log group");
        seen
    }

    /// The lines logged since, each place's after those of `seen`.
    fn logs_merged(&mut self, seen: &Seen) -> Seen {
        let mut logs = std::mem::take(&mut self.logs);
        for (place, lines) in &mut logs {
            let mut all = seen.get(place).cloned().unwrap_or_default();
            all.append(lines);
            *lines = all;
        }
        logs
    }

    fn step(&mut self, step: &str) {
        let (name, rest) = match step.split_once(": ") {
            Some((name, rest)) if name.chars().all(char::is_alphanumeric) => (name, rest),
            _ => ("1", step),
        };
        let (verb, argument) = rest.split_once(' ').unwrap_or((rest, ""));
        let limit = |default: f64| Duration::from_secs_f64(argument.parse().unwrap_or(default));
        match verb {
            "connect" => self.connect(name, argument),
            "send" => self.send(name, &self.unescape(argument)),
            "frag" => {
                let (delay, parts) = argument.split_once(' ').unwrap();
                for (index, part) in parts.split('|').enumerate() {
                    if index > 0 {
                        self.wait(Duration::from_secs_f64(delay.parse().unwrap()), |_| false);
                    }
                    self.send(name, &self.unescape(part));
                }
            }
            "reply" => self.await_reply(name, limit(9.0)),
            "until" => {
                let text = argument.to_owned();
                self.wait(Duration::from_secs(9), |world| {
                    let connection = &world.connections[name];
                    connection.server_closed || connection.events.iter().any(|event| event.contains(&text))
                });
            }
            "eof" => {
                self.wait(limit(9.0), |world| world.connections[name].server_closed || world.connections[name].relayed);
            }
            "sleep" => {
                self.wait(limit(0.0), |_| false);
            }
            "fin" | "close" | "rst" => self.part(name, verb),
            "tls" => self.handshake(name),
            verb => panic!("step {verb}"),
        }
    }

    fn connect(&mut self, name: &str, argument: &str) {
        let option = |key: &str, default: &str| {
            let found = argument.split(' ').find_map(|part| part.strip_prefix(&format!("{key}=")));
            found.unwrap_or(default).to_owned()
        };
        let client = self.clients[&option("client", "a")];
        let server: IpAddr = match option("to", "mx").as_str() {
            "mx" => MX,
            "mx6" => MX6,
            "alt" => ALT,
            role => panic!("role {role}"),
        }
        .parse()
        .unwrap();
        self.port += 1;
        let endpoints = Endpoints { client: SocketAddr::new(client, self.port), server: SocketAddr::new(server, 25) };
        let now = self.now();
        let (session, effects) = self.screen.open(endpoints, self.standing(client), now);
        self.connections.insert(
            name.to_owned(),
            Connection {
                session,
                endpoints,
                interest: Interest::Nothing,
                timer: None,
                answers: Vec::new(),
                told: Vec::new(),
                input: Vec::new(),
                client_closed: false,
                handshake: false,
                forwarding: false,
                relayed: false,
                fresh: true,
                server_closed: false,
                client_gone: false,
                events: vec!["connect".into()],
                output: Vec::new(),
                replies: 0,
                consumed: 0,
                last_action: self.now,
            },
        );
        self.perform(name, effects);
    }

    fn standing(&self, client: IpAddr) -> Standing {
        for rule in self.config["access_list"].as_array().unwrap() {
            if rule["all"] == "dunno" {
                return Standing::Unlisted;
            }
            let nets = match rule["net"].as_str() {
                Some(net) => vec![net.to_owned()],
                None => self.config["own_networks"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|net| net.as_str().unwrap().to_owned())
                    .collect(),
            };
            let covers = |net: &String| match net.replace(['[', ']'], "").parse::<ipnet::IpNet>() {
                Ok(net) => net.contains(&client),
                Err(_) => net.parse::<IpAddr>().unwrap() == client,
            };
            let action = rule["action"].as_str().or(rule["own_networks"].as_str()).unwrap();
            if nets.iter().any(covers) {
                match action {
                    "permit" => return Standing::Allowed,
                    "reject" => return Standing::Denied,
                    "dunno" => {}
                    action => panic!("access action {action}"),
                }
            }
        }
        Standing::Unlisted
    }

    fn send(&mut self, name: &str, bytes: &[u8]) {
        let now = self.now;
        let connection = self.connections.get_mut(name).unwrap();
        if connection.server_closed {
            return;
        }
        connection.last_action = now;
        if connection.relayed {
            if bytes.windows(4).any(|word| word == b"QUIT") {
                connection.client_gone = true;
            }
        } else {
            connection.input.extend_from_slice(bytes);
        }
        self.settle();
    }

    fn await_reply(&mut self, name: &str, limit: Duration) {
        let there = |world: &World| {
            let connection = &world.connections[name];
            connection.replies > connection.consumed || connection.server_closed || connection.relayed
        };
        if !self.wait(limit, there) {
            self.connections.get_mut(name).unwrap().events.push("no-reply".into());
            return;
        }
        let connection = self.connections.get_mut(name).unwrap();
        if connection.replies > connection.consumed {
            connection.consumed += 1;
        }
    }

    fn part(&mut self, name: &str, verb: &str) {
        let now = self.now;
        let connection = self.connections.get_mut(name).unwrap();
        if connection.server_closed || connection.client_gone {
            return;
        }
        if connection.fresh && verb != "fin" {
            // The recorder closed without looking at what had come.
            connection.events.truncate(1);
        }
        if !connection.relayed {
            connection.events.push(match verb {
                "fin" => "half-close".into(),
                "close" => "close".into(),
                _ => "send-reset".into(),
            });
        }
        connection.last_action = now;
        connection.client_closed = true;
        connection.client_gone = verb != "fin";
        if verb == "rst" {
            connection.input.clear();
        }
        self.settle();
    }

    fn handshake(&mut self, name: &str) {
        let now = self.now;
        let connection = self.connections.get_mut(name).unwrap();
        connection.events.push(if connection.handshake { "tls ok".into() } else { "tls failed".into() });
        connection.last_action = now;
        connection.handshake = false;
        self.tell(name, Event::TlsEstablished);
        self.settle();
    }

    fn now(&self) -> Now {
        Now { monotonic: self.now, unix_millis: (UNIX + self.now.as_secs()) * 1000 }
    }

    fn tell(&mut self, name: &str, event: Event<'_>) {
        let now = self.now();
        let connection = self.connections.get_mut(name).unwrap();
        let effects = connection.session.on(event, &mut self.screen, now);
        self.perform(name, effects);
    }

    fn perform(&mut self, name: &str, effects: Vec<Effect>) {
        for effect in effects {
            let now = self.now;
            let connection = self.connections.get_mut(name).unwrap();
            match effect {
                Effect::Send(bytes) => self.receive(name, &bytes),
                Effect::Watch(interest) => connection.interest = interest,
                Effect::Arm(delay) => connection.timer = Some(now + delay),
                Effect::LookUp => {
                    let client = connection.endpoints.client.ip();
                    let answers = self.dns.answers(&self.policy.dnsbl.sites, client);
                    connection.answers = answers.into_iter().map(|(delay, answer)| (now + delay, answer)).collect();
                    connection.answers.sort_by_key(|(at, _)| *at);
                }
                Effect::EndLookUp => {
                    if let Some((last, _)) = connection.answers.last() {
                        let at = *last;
                        let mut all = std::mem::take(&mut connection.told);
                        all.extend(connection.answers.drain(..).map(|(_, answer)| answer));
                        self.late.push((at, connection.session.client(), all));
                    }
                }
                Effect::Log(line) => self.log(name, &line),
                Effect::Remember(_) => {}
                Effect::Bar(_) => panic!("failures are not remembered here"),
                Effect::StartTls => {
                    // Nothing that was sent in the clear comes through.
                    connection.input.clear();
                    connection.handshake = true;
                }
                Effect::Replay(_) => unreachable!("the scenarios are postscreen's, which never goes on"),
                Effect::Forward => connection.forwarding = true,
                Effect::End(_) => {
                    connection.timer = None;
                    if !connection.relayed {
                        self.close(name);
                    }
                }
            }
        }
    }

    fn log(&mut self, name: &str, line: &LogLine) {
        let place = if line.client().is_some() { format!("log {name}") } else { "log group".into() };
        let mut text = line.to_string();
        if matches!(line, LogLine::Pregreet { .. } | LogLine::Hangup { .. }) {
            let (before, after) = text.split_once(" after ").unwrap();
            let (_, after) = after.split_once(" from ").unwrap();
            text = format!("{before} after {{T}} from {after}");
        }
        let text = self.masked(&text);
        self.logs.entry(place).or_default().push(text);
    }

    /// Addresses by their labels, ports left out.
    fn masked(&self, text: &str) -> String {
        let labels = self.clients.iter().map(|(label, address)| (label.as_str(), address.to_string()));
        let roles = [("mx", MX), ("mx6", MX6), ("alt", ALT)].map(|(role, address)| (role, address.to_owned()));
        let mut masked = text.to_owned();
        for (label, address) in labels.chain(roles) {
            for end in ["]", " ", "&", "\r"] {
                masked = masked.replace(&format!("{address}{end}"), &format!("{{{label}}}{end}"));
            }
        }
        PORT.replace_all(&masked, "${1}{port}").into_owned()
    }

    fn receive(&mut self, name: &str, bytes: &[u8]) {
        let now = self.now;
        self.connections.get_mut(name).unwrap().output.extend_from_slice(bytes);
        while let Some(end) = self.connections[name].output.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.connections.get_mut(name).unwrap().output.drain(..=end).collect();
            let line = line.strip_suffix(b"\r\n").expect("a line that ends with CR LF");
            let shown = self.masked(&TIME.replace_all(&escape(line), "{time}"));
            let connection = self.connections.get_mut(name).unwrap();
            if connection.client_gone {
                continue;
            }
            connection.events.push(format!("< {} {shown}", bucket(now - connection.last_action)));
            connection.replies += usize::from(line.get(3) != Some(&b'-'));
        }
    }

    fn close(&mut self, name: &str) {
        let now = self.now;
        let connection = self.connections.get_mut(name).unwrap();
        connection.server_closed = true;
        if !connection.client_gone {
            connection.events.push(format!("eof {}", bucket(now - connection.last_action)));
        }
    }

    /// Lets time pass until `done`, or for `limit`. Returns whether it was done.
    fn wait(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        self.connections.values_mut().for_each(|connection| connection.fresh = false);
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            let timers = self.connections.values().filter_map(|connection| connection.timer);
            let answers =
                self.connections.values().filter_map(|connection| connection.answers.first().map(|(at, _)| *at));
            let late = self.late.iter().map(|(at, ..)| *at);
            match timers.chain(answers).chain(late).min().filter(|&next| next <= end) {
                Some(next) => {
                    self.now = next.max(self.now);
                    self.pass_time();
                }
                None => {
                    self.now = end;
                    return done(self);
                }
            }
        }
    }

    /// What is due now.
    fn pass_time(&mut self) {
        let now = self.now;
        let names: Vec<String> = self.connections.keys().cloned().collect();
        for name in names {
            let connection = self.connections.get_mut(&name).unwrap();
            if connection.timer.is_some_and(|at| at <= now) {
                connection.timer = None;
                self.tell(&name, Event::TimerFired);
            }
            while let Some((_, answer)) =
                self.connections.get_mut(&name).unwrap().answers.first().filter(|(at, _)| *at <= now).cloned()
            {
                let connection = self.connections.get_mut(&name).unwrap();
                connection.answers.remove(0);
                connection.told.push(answer.clone());
                self.tell(&name, Event::Dnsbl(&answer));
            }
        }
        let due: Vec<_> = self.late.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, client, answers) in due {
            self.screen.correct_dnsbl(client, &answers, self.now());
        }
    }

    /// Input and hand-overs, which take no time.
    fn settle(&mut self) {
        loop {
            let names: Vec<String> = self.connections.keys().cloned().collect();
            if !names.iter().any(|name| self.settle_one(name)) {
                return;
            }
        }
    }

    fn settle_one(&mut self, name: &str) -> bool {
        let busy = self.connections.values().filter(|connection| connection.relayed && !connection.client_gone).count();
        let now = self.now;
        let connection = self.connections.get_mut(name).unwrap();
        if connection.session.has_ended() {
            return false;
        }
        if connection.forwarding {
            if self.backend_sessions == 0 {
                connection.forwarding = false;
                self.tell(name, Event::Forwarded(ForwardResult::Unreachable));
                return true;
            }
            if busy < self.backend_sessions {
                connection.forwarding = false;
                connection.relayed = true;
                if !connection.client_gone {
                    connection.events.push(format!("handoff {}", bucket(now - connection.last_action)));
                }
                self.tell(name, Event::Forwarded(ForwardResult::Accepted));
                return true;
            }
            return false;
        }
        if connection.handshake {
            if connection.client_closed || !connection.input.is_empty() {
                connection.handshake = false;
                connection.input.clear();
                self.tell(name, Event::PeerClosed);
                return true;
            }
            return false;
        }
        match connection.interest {
            Interest::Nothing => return false,
            Interest::Peek if !connection.input.is_empty() => {
                connection.interest = Interest::Nothing;
                let bytes: Vec<u8> = connection.input.iter().copied().take(PEEK_LIMIT).collect();
                self.tell(name, Event::Peeked(&bytes));
            }
            Interest::Read if !connection.input.is_empty() => {
                let count = connection.input.len().min(READ_LIMIT);
                let bytes: Vec<u8> = connection.input.drain(..count).collect();
                self.tell(name, Event::Received(&bytes));
            }
            Interest::Peek | Interest::Read if connection.client_closed => self.tell(name, Event::PeerClosed),
            Interest::Peek | Interest::Read => return false,
        }
        true
    }

    fn unescape(&self, text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if c != '\\' {
                bytes.extend(c.to_string().bytes());
                rest = &rest[c.len_utf8()..];
                continue;
            }
            let (escape, after) = (rest.as_bytes()[1], &rest[2..]);
            rest = after;
            match escape {
                b'r' => bytes.push(b'\r'),
                b'n' => bytes.push(b'\n'),
                b't' => bytes.push(b'\t'),
                b'0' => bytes.push(0),
                b's' => bytes.push(b' '),
                b'\\' => bytes.push(b'\\'),
                b'x' => {
                    bytes.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                    rest = &rest[2..];
                }
                b'(' => {
                    let (count, after) = rest.split_once('*').unwrap();
                    let (repeated, after) = after.split_once(')').unwrap();
                    bytes.extend(self.unescape(repeated).repeat(count.parse().unwrap()));
                    rest = after;
                }
                other => panic!("escape {}", char::from(other)),
            }
        }
        bytes
    }
}

/// How long something took, as the recordings say it.
fn bucket(elapsed: Duration) -> &'static str {
    match elapsed.as_secs_f64() {
        ..0.65 => "now",
        ..3.5 => "wait",
        _ => "long",
    }
}
