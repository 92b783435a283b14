//! Sessions as stories: what a client does, what it hears, what is logged.

mod credit;
mod dry_run;
mod early;
mod engine;
mod ladder;
mod limits;
mod memory;
mod properties;
mod replay;
mod retrial;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    Screen, Session, TlsState,
    dnsbl::Sites,
    event::{DnsblAnswer, Effect, Endpoints, Event, ForwardResult, Now, Standing, ZoneReply},
    outcome::Outcome,
    policy::{
        Action, DeepTest, Dnsbl, ForbiddenCommands, Limits, Policy, PoolCredit, Pregreet, Smtp, StressTime, TlsLevel,
    },
    record::{Client, Finding, Grounds, Record, Stamp, Test},
};
use crate::{
    config::{AddressList, ClientPrefix, LogStyle},
    share::{HostId, Version},
};

pub(super) const DAY: u64 = 86400;
pub(super) const UNIX: u64 = 1_700_000_000;
pub(super) const CLIENT: &str = "192.0.2.9:33115";

pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// postscreen's defaults, without any test enabled.
pub(super) fn policy() -> Policy {
    Policy {
        hostname: "mx.example.test".into(),
        banner: "mx.example.test ESMTP".into(),
        denylist_action: Action::Ignore,
        allowlist_addresses: AddressList::new(vec![
            (true, "0.0.0.0/0".parse().unwrap()),
            (true, "::/0".parse().unwrap()),
        ]),
        pregreet: Pregreet {
            teaser: String::new(),
            wait: StressTime { normal: seconds(6), stress: seconds(2) },
            action: Action::Ignore,
            ttl: seconds(DAY),
        },
        dnsbl: Dnsbl {
            sites: Arc::new(Sites::default()),
            threshold: 1,
            allowlist_threshold: 0,
            action: Action::Ignore,
            min_ttl: seconds(60),
            max_ttl: seconds(3600),
        },
        pipelining: DeepTest { enabled: false, action: Action::Enforce, ttl: seconds(30 * DAY) },
        non_smtp_command: DeepTest { enabled: false, action: Action::Drop, ttl: seconds(30 * DAY) },
        forbidden: ForbiddenCommands {
            words: vec!["CONNECT".into(), "GET".into(), "POST".into()],
            patterns: vec![regex::bytes::Regex::new("(?i-u)^[^A-Z]").unwrap()],
        },
        bare_newline: DeepTest { enabled: false, action: Action::Ignore, ttl: seconds(30 * DAY) },
        smtp: Smtp {
            helo_required: false,
            disable_vrfy: false,
            discard_ehlo_keywords: Vec::new(),
            discard_ehlo_keywords_by_client: Vec::new(),
            message_size_limit: 10_240_000,
            smtputf8: true,
            command_count_limit: 20,
            command_time_limit: StressTime { normal: seconds(300), stress: seconds(10) },
            line_length_limit: 2048,
            reject_footer: String::new(),
            soft_bounce: false,
            command_rewrite: Vec::new(),
            session_time_limit: seconds(1800),
            session_byte_limit: 100_000,
        },
        tls: TlsLevel::None,
        limits: Limits {
            client_connections: 50,
            pre_queue: 100,
            post_queue: 100,
            client_prefix: ClientPrefix { ipv4: 32, ipv6: 64 },
        },
        replays: false,
        dry_run: false,
        log_style: LogStyle::Respectful,
        remember_failures: Duration::ZERO,
        retention: seconds(7 * DAY),
        remember_results: true,
        pool_credit: PoolCredit::default(),
    }
}

/// The pregreet test on, with this action.
pub(super) fn pregreet(action: Action) -> Policy {
    let mut policy = policy();
    policy.pregreet.teaser = "mx.example.test ESMTP".into();
    policy.pregreet.action = action;
    policy
}

/// The three deep tests on, with this action.
pub(super) fn deep(action: Action) -> Policy {
    let mut policy = policy();
    for test in [&mut policy.pipelining, &mut policy.non_smtp_command, &mut policy.bare_newline] {
        test.enabled = true;
        test.action = action;
    }
    policy
}

/// The DNSBL test on, with these sites and this action.
pub(super) fn dnsbl(sites: &[&str], action: Action) -> Policy {
    let mut policy = policy();
    policy.dnsbl.sites = Arc::new(Sites::parse(sites, &std::collections::BTreeMap::new()).unwrap());
    policy.dnsbl.action = action;
    policy
}

pub(super) fn listed(zone: usize, code: &str, ttl: u64) -> DnsblAnswer {
    DnsblAnswer { zone, reply: ZoneReply::Listed { codes: vec![code.parse().unwrap()], ttl: Some(seconds(ttl)) } }
}

pub(super) fn not_listed(zone: usize, ttl: u64) -> DnsblAnswer {
    DnsblAnswer { zone, reply: ZoneReply::NotListed { ttl: Some(seconds(ttl)) } }
}

/// A screener and its clock.
pub(super) struct Story {
    pub(super) screen: Screen,
    pub(super) now: Duration,
}

/// One client's connection.
pub(super) struct Visit {
    pub(super) session: Session,
    heard: Vec<u8>,
    logged: Vec<String>,
    effects: Vec<Effect>,
    timer: Option<Duration>,
}

impl Story {
    pub(super) fn new(policy: Policy) -> Self {
        let mut screen = Screen::new(policy);
        screen.set_tls(TlsState::Usable);
        screen.set_time_zone(jiff::tz::TimeZone::UTC);
        Self { screen, now: seconds(1000) }
    }

    fn clock(&self) -> Now {
        Now { monotonic: self.now, unix_millis: (UNIX + self.now.as_secs()) * 1000 }
    }

    fn forget(&mut self, net: ipnet::IpNet) -> Vec<(Client, Record)> {
        let version = self.screen.clock().next(self.clock().unix_millis);
        self.screen.forget(net, version)
    }

    pub(super) fn unix(&self) -> u64 {
        self.clock().unix()
    }

    pub(super) fn open(&mut self, client: &str, server: &str, standing: Standing) -> Visit {
        let endpoints = Endpoints { client: client.parse().unwrap(), server: server.parse().unwrap() };
        let now = self.clock();
        let (session, effects) = self.screen.open(endpoints, standing, now);
        let mut visit = Visit { session, heard: Vec::new(), logged: Vec::new(), effects: Vec::new(), timer: None };
        visit.take(effects, self.now);
        visit
    }

    pub(super) fn connect(&mut self, client: &str) -> Visit {
        self.open(client, "198.51.100.2:25", Standing::Unlisted)
    }

    pub(super) fn tell(&mut self, visit: &mut Visit, event: Event<'_>) {
        let now = self.clock();
        let effects = visit.session.on(event, &mut self.screen, now);
        visit.take(effects, self.now);
    }

    /// Sends text, in one piece, and returns what the client hears.
    pub(super) fn send(&mut self, visit: &mut Visit, text: &str) -> String {
        self.tell(visit, Event::Received(text.as_bytes()));
        visit.hears()
    }

    /// Lets time pass, timers included.
    pub(super) fn wait(&mut self, visit: &mut Visit, time: Duration) {
        let end = self.now + time;
        while let Some(at) = visit.timer.filter(|&at| at <= end && !visit.session.has_ended()) {
            self.now = at.max(self.now);
            visit.timer = None;
            self.tell(visit, Event::TimerFired);
        }
        self.now = end;
    }

    /// A client that says everything right, and comes back never.
    pub(super) fn well_behaved(&mut self, visit: &mut Visit) {
        for line in ["EHLO a\r\n", "MAIL FROM:<s@x>\r\n", "RCPT TO:<r@y>\r\n", "QUIT\r\n"] {
            self.send(visit, line);
        }
    }

    pub(super) fn record(&self, client: &str) -> Option<Record> {
        let client: SocketAddr = client.parse().unwrap();
        self.screen.record(Client::of(client.ip(), ClientPrefix { ipv4: 32, ipv6: 64 }))
    }

    pub(super) fn stamp(&self, client: &str, test: Test) -> Stamp {
        self.record(client).unwrap().stamp(test)
    }

    /// No session is left, and nothing is counted.
    pub(super) fn assert_empty(&self) {
        let snapshot = self.screen.snapshot();
        assert_eq!((snapshot.checking, snapshot.forwarding, snapshot.clients), (0, 0, 0));
    }
}

impl Visit {
    fn take(&mut self, effects: Vec<Effect>, now: Duration) {
        for effect in effects {
            match effect {
                Effect::Send(bytes) => self.heard.extend(bytes),
                Effect::Log(line) => self.logged.push(line.to_string()),
                Effect::Arm(delay) => self.timer = Some(now + delay),
                other => self.effects.push(other),
            }
        }
    }

    /// What the client heard since it was asked last, LF for CR LF.
    pub(super) fn hears(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.heard)).unwrap().replace("\r\n", "\n")
    }

    /// What was logged since it was asked last.
    pub(super) fn logs(&mut self) -> Vec<String> {
        std::mem::take(&mut self.logged)
    }

    /// As [`Visit::logs`], without the client's address: one text, a line each.
    pub(super) fn log_text(&mut self) -> String {
        self.logs().join("\n").replace("[192.0.2.9]:33115", "CLIENT").replace("[198.51.100.2]:25", "SERVER")
    }

    /// The effects since it was asked last, but what was said, logged and armed.
    pub(super) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn forwards(&mut self) -> bool {
        self.effects().contains(&Effect::Forward)
    }

    pub(super) fn outcome(&mut self) -> Outcome {
        let outcome = self.effects().into_iter().find_map(|effect| match effect {
            Effect::End(outcome) => Some(*outcome),
            _ => None,
        });
        outcome.expect("a session that has ended")
    }
}

pub(super) const ACCEPTED: Event<'static> = Event::Forwarded(ForwardResult::Accepted);
