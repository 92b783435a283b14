//! What became of a session, with the evidence: log fields, metrics and `explain` are made from it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize, Serializer};

use super::{found::Found, log::LimitReached, policy::Action, record::Test, syn::Syn};

/// The one record of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Who came.
    pub client: SocketAddr,
    /// The address and port that the client meant.
    pub server: SocketAddr,
    /// When, in Unix seconds.
    pub started: u64,
    /// How long the screener had it; in seconds when serialised.
    #[serde(serialize_with = "seconds")]
    pub duration: Duration,
    /// How it ended.
    pub verdict: Verdict,
    /// What decided that.
    pub reason: Reason,
    /// Why the client would have been turned away, or told to come back, had this not been a dry run.
    pub objection: Option<Reason>,
    /// Whether nothing was known of the client when it came.
    pub new: bool,
    /// How the client opened the connection, where that is known: not behind a proxy. The driver puts it in.
    pub syn: Option<Syn>,
    /// The five tests, in order.
    pub tests: [TestOutcome; 5],
    /// What the DNSBL zones said, if they were asked.
    pub dnsbl: Option<DnsblEvidence>,
    /// What the client said in the dummy engine, if it came so far.
    pub smtp: Option<SmtpEvidence>,
    /// What all of this was made of, for the journal alone.
    #[serde(skip)]
    pub found: Option<Box<Found>>,
}

impl Outcome {
    /// Whether the mail server took the client.
    #[must_use]
    pub const fn was_forwarded(&self) -> bool {
        matches!(self.verdict, Verdict::Forwarded)
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The mail server took the client.
    Forwarded,
    /// Nothing is wrong with the client, but it has to come back.
    Deferred,
    /// The client failed, or is denied.
    Rejected,
    /// The client left before there was a verdict.
    HungUp,
    /// The screener gave the session up.
    Aborted,
}

/// What decided a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No test was to be taken, or none is settled.
    None,
    /// A list permits the client.
    Allowlisted,
    /// Earlier passes are still valid.
    Known,
    /// It passed every test that it had to take.
    Passed,
    /// The access list rejects the client.
    Denied,
    /// A run-time entry or an earlier failure denies the client.
    Barred,
    /// It came to a server address where no pass can be earned.
    Vetoed,
    /// It failed this test.
    Failed(Test),
    /// Too many connections of one client.
    TooManyConnections,
    /// Too many clients wait for the mail server.
    ServerPortsBusy,
    /// Too many clients are being screened.
    ScreeningPortsBusy,
    /// A limit of the dummy engine.
    Limit(LimitReached),
    /// No mail server took it.
    NoBackend,
}

/// What became of one test.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct TestOutcome {
    /// The result.
    pub result: TestResult,
    /// What was to be done about its failure, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// What the client did to fail, escaped and shortened; empty otherwise.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub evidence: Box<str>,
}

/// The result of one test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestResult {
    /// Not to be taken in this session.
    #[default]
    NotTaken,
    /// To be taken, and not finished.
    Unfinished,
    /// Passed.
    Passed,
    /// Not taken, as a neighbour of the client has passed it.
    Spared,
    /// Failed.
    Failed,
    /// Failed, and the action is `ignore`.
    Ignored,
}

/// What the DNSBL zones said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DnsblEvidence {
    /// The score when it was judged.
    pub score: i32,
    /// Whether every zone had answered or was given up by then.
    pub complete: bool,
    /// Zones that gave no usable answer.
    pub failed: usize,
    /// The zones that list the client.
    pub hits: Vec<ZoneHit>,
}

/// A zone that lists the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ZoneHit {
    /// The name that may be shown.
    pub zone: Box<str>,
    /// What it added to the score.
    pub weight: i32,
    /// Its codes.
    pub codes: Vec<Ipv4Addr>,
}

/// What the client said in the dummy engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SmtpEvidence {
    /// Bytes that it sent.
    pub bytes: u64,
    /// Commands that it sent.
    pub commands: u32,
    /// Recipients that were refused.
    pub recipients: u32,
    /// Whether the session was encrypted at the end.
    pub tls: bool,
    /// The name that it gave last, made printable; empty if none.
    pub helo: Box<str>,
}
