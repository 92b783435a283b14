//! What the protocol core decides by: the checked settings of the screener, nothing else.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use crate::config::{AddressList, ClientPrefix, LogStyle};

use super::{
    dnsbl::Sites,
    record::{Record, Test},
};

/// What happens to a client that failed a test (spec 0.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Log and go on.
    Ignore,
    /// Keep the client in the dummy engine and reject every recipient.
    Enforce,
    /// Reply and disconnect.
    Drop,
}

/// A limit that shrinks under stress (spec 7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StressTime {
    /// In quiet times.
    pub normal: Duration,
    /// Under stress.
    pub stress: Duration,
}

/// The settings of the protocol core.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The name in greetings and replies.
    pub hostname: String,
    /// What follows `220 ` in the dummy engine's greeting.
    pub banner: String,
    /// `access.denylist_action`.
    pub denylist_action: Action,
    /// Server addresses where a pass can be earned (`access.allowlist_addresses`); others veto.
    pub allowlist_addresses: AddressList,
    /// The pregreet test; off when the teaser is empty.
    pub pregreet: Pregreet,
    /// The DNSBL test; off without sites.
    pub dnsbl: Dnsbl,
    /// The pipelining test.
    pub pipelining: DeepTest,
    /// The non-SMTP command test.
    pub non_smtp_command: DeepTest,
    /// Verbs that fail the non-SMTP command test.
    pub forbidden: ForbiddenCommands,
    /// The bare newline test.
    pub bare_newline: DeepTest,
    /// The dummy engine.
    pub smtp: Smtp,
    /// STARTTLS.
    pub tls: TlsLevel,
    /// Queues and per-client connections.
    pub limits: Limits,
    /// Whether a client that has passed the deep tests goes on to the mail server in the same session (`forward.after_deep_tests`); if
    /// not, it is asked to come back (spec 4.5).
    pub replays: bool,
    /// Whether nobody is turned away, whatever is found out (`dry_run`).
    pub dry_run: bool,
    /// Words for list decisions.
    pub log_style: LogStyle,
    /// How long a client that failed with `drop` is denied without a new look; zero: screened again every time.
    pub remember_failures: Duration,
    /// `cache.retention`: how long expired records are kept.
    pub retention: Duration,
    /// Whether results outlive their session; if not (`cache.backend = "none"`), every session is new (spec 6.3).
    pub remember_results: bool,
    /// `cache.pool_credit`: whose neighbours are spared the deep tests.
    pub pool_credit: PoolCredit,
}

impl Policy {
    /// Whether clients without a valid pass take `test` (spec 0.2).
    #[must_use]
    pub fn enables(&self, test: Test) -> bool {
        match test {
            Test::Pregreet => !self.pregreet.teaser.is_empty(),
            Test::Dnsbl => !self.dnsbl.sites.zones().is_empty(),
            Test::Pipelining => self.pipelining.enabled,
            Test::NonSmtpCommand => self.non_smtp_command.enabled,
            Test::BareNewline => self.bare_newline.enabled,
        }
    }

    /// The tests that are enabled, in order.
    pub fn enabled(&self) -> impl Iterator<Item = Test> {
        Test::ALL.into_iter().filter(|&test| self.enables(test))
    }

    /// The last second, in Unix time, in which a client with this record goes to the mail server untested; `None` if it has to take a
    /// test in any case, or if no test is enabled.
    #[must_use]
    pub fn valid_until(&self, record: &Record) -> Option<u64> {
        self.enabled().map(|test| record.stamp(test)).min().filter(|stamp| stamp.is_pass()).map(|stamp| stamp.0)
    }

    /// Whether a client with this record has passed every test by itself, and goes to the mail server untested at `now`, in Unix seconds.
    #[must_use]
    pub fn vouches(&self, record: &Record, now: u64) -> bool {
        self.valid_until(record).is_some_and(|until| until > now)
            && self.enabled().all(|test| !record.finding(test).grounds.is_spared())
    }

    /// What `test` does to a client that fails it.
    #[must_use]
    pub fn action(&self, test: Test) -> Action {
        match test {
            Test::Pregreet => self.pregreet.action,
            Test::Dnsbl => self.dnsbl.action,
            Test::Pipelining => self.pipelining.action,
            Test::NonSmtpCommand => self.non_smtp_command.action,
            Test::BareNewline => self.bare_newline.action,
        }
    }

    /// How long a pass of `test` lasts. A DNSBL pass lasts as long as its answers say, at least this long.
    #[must_use]
    pub fn ttl(&self, test: Test) -> Duration {
        match test {
            Test::Pregreet => self.pregreet.ttl,
            Test::Dnsbl => self.dnsbl.min_ttl.min(self.dnsbl.max_ttl),
            Test::Pipelining => self.pipelining.ttl,
            Test::NonSmtpCommand => self.non_smtp_command.ttl,
            Test::BareNewline => self.bare_newline.ttl,
        }
    }

    /// How long an ignored failure of the deep test `test` counts as a pass: as long as the shortest pass of the enabled tests, the DNSBL
    /// test left aside. That one's results can last a minute, and unlike a deep test it is taken again without sending the
    /// client away: counted in, a client whose failure is to be ignored would be told to come back at every visit.
    #[must_use]
    pub fn ignored_for(&self, test: Test) -> Duration {
        let others = self.enabled().filter(|&other| other != Test::Dnsbl).map(|other| self.ttl(other));
        others.fold(self.ttl(test), Duration::min)
    }
}

impl StressTime {
    /// The limit that applies now.
    #[must_use]
    pub const fn get(&self, stress: bool) -> Duration {
        if stress { self.stress } else { self.normal }
    }
}

/// The pregreet test.
#[derive(Debug, Clone)]
pub struct Pregreet {
    /// What follows `220-` at once; empty turns the test off.
    pub teaser: String,
    /// How long the early phase lasts.
    pub wait: StressTime,
    /// What early talkers get.
    pub action: Action,
    /// How long a pass lasts.
    pub ttl: Duration,
}

/// The DNSBL test, apart from resolution.
#[derive(Debug, Clone)]
pub struct Dnsbl {
    /// Zones with filters and weights; empty turns the test off.
    pub sites: Arc<Sites>,
    /// Scores from here on fail.
    pub threshold: i32,
    /// Scores up to here skip all other tests, if negative.
    pub allowlist_threshold: i32,
    /// What listed clients get.
    pub action: Action,
    /// Lower clamp of a result's life.
    pub min_ttl: Duration,
    /// Upper clamp of a result's life; wins over the lower one.
    pub max_ttl: Duration,
}

/// A test that runs in the dummy engine.
#[derive(Debug, Clone, Copy)]
pub struct DeepTest {
    /// Whether clients without a valid pass take it.
    pub enabled: bool,
    /// What offenders get.
    pub action: Action,
    /// How long a pass lasts.
    pub ttl: Duration,
}

/// Verbs that count as non-SMTP (spec 4.6.2, D.4).
#[derive(Debug, Clone, Default)]
pub struct ForbiddenCommands {
    /// Whole words, compared without regard to case.
    pub words: Vec<String>,
    /// Patterns that are tried on the verb.
    pub patterns: Vec<regex::bytes::Regex>,
}

/// EHLO keywords that can be left out, in the order of log lines (spec D.3).
pub const EHLO_KEYWORDS: [&str; 16] = [
    "8BITMIME",
    "AUTH",
    "ETRN",
    "PIPELINING",
    "SIZE",
    "VERP",
    "VRFY",
    "XCLIENT",
    "XFORWARD",
    "STARTTLS",
    "ENHANCEDSTATUSCODES",
    "DSN",
    "SMTPUTF8",
    "CHUNKING",
    "REQUIRETLS",
    "SILENT-DISCARD",
];

/// The dummy engine's settings (spec 4).
#[derive(Debug, Clone)]
pub struct Smtp {
    /// MAIL and ETRN need HELO or EHLO first.
    pub helo_required: bool,
    /// VRFY answers 502 and is not announced.
    pub disable_vrfy: bool,
    /// EHLO keywords not announced, upper case.
    pub discard_ehlo_keywords: Vec<String>,
    /// By client network, first match; replaces the general list.
    pub discard_ehlo_keywords_by_client: Vec<(ipnet::IpNet, Vec<String>)>,
    /// Announced by SIZE; 0: without a number.
    pub message_size_limit: u64,
    /// Announce SMTPUTF8, and check command lines for valid UTF-8.
    pub smtputf8: bool,
    /// Commands of any kind in one session.
    pub command_count_limit: u32,
    /// For receiving one whole line.
    pub command_time_limit: StressTime,
    /// Bytes of one line, its end included.
    pub line_length_limit: usize,
    /// Appended to 4xx and 5xx replies; empty: none (spec 4.9).
    pub reject_footer: String,
    /// 5xx replies become 4xx (spec 4.7).
    pub soft_bounce: bool,
    /// `(pattern, replacement)`, tried on every command line in order (spec 4.3 step 2).
    pub command_rewrite: Vec<(regex::bytes::Regex, String)>,
    /// The longest that one session may take in all.
    pub session_time_limit: Duration,
    /// The most bytes that one session may send.
    pub session_byte_limit: u64,
}

/// `tls.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsLevel {
    /// STARTTLS is not known.
    None,
    /// STARTTLS is offered.
    May,
    /// STARTTLS is demanded before mail.
    Encrypt,
}

/// The networks within which a client that has passed all tests spares others the deep ones; none: no such networks in this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolCredit {
    /// Prefix length for IPv4, 0 to 32.
    pub ipv4: Option<u8>,
    /// Prefix length for IPv6, 0 to 128.
    pub ipv6: Option<u8>,
}

/// Queues and per-client connections; zero is no limit (spec 7.1).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections of one client that the screener holds.
    pub client_connections: u32,
    /// Clients being screened.
    pub pre_queue: u32,
    /// Clients that wait for the mail server.
    pub post_queue: u32,
    /// What counts as one client.
    pub client_prefix: ClientPrefix,
}
