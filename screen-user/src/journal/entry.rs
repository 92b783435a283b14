//! One line of the journal.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::screen::{
    event::Endpoints,
    found::{Found, Stood},
    outcome::{Outcome, Reason, TestOutcome, TestResult, Verdict},
    record::Test,
    retrial::Case,
};

/// A session, or a client that the kernel turned away, or would have but for a dry run. Fields that a reader does not know are skipped, so that later versions can say more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it began, in Unix seconds.
    pub time: u64,
    /// Who came.
    pub client: SocketAddr,
    /// The address and port that the client meant.
    pub server: SocketAddr,
    /// How long the screener had it, in milliseconds.
    #[serde(default)]
    pub ms: u32,
    /// How it ended.
    pub verdict: Verdict,
    /// What decided that.
    pub reason: Reason,
    /// In a dry run: for what it would have ended otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objection: Option<Reason>,
    /// The list by which the kernel decides against the client, empty if its connections were too many. Such an entry is no session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Box<str>>,
    /// The tests that were to be taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<Tested>,
    /// The DNSBL score, if zones were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<i32>,
    /// How the client opened the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syn: Option<Box<str>>,
    /// What was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Box<Found>>,
}

/// A test and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested {
    /// Which.
    pub test: Test,
    /// What came of it.
    pub result: TestResult,
    /// What the client did to fail, as the log has it.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub evidence: Box<str>,
}

impl Entry {
    /// What there is to keep of a session.
    #[must_use]
    pub fn of_session(outcome: &Outcome, found: Found) -> Self {
        let taken = Test::ALL.into_iter().zip(&outcome.tests).filter(|(_, test)| test.result != TestResult::NotTaken);
        let tested = |(test, TestOutcome { result, evidence, .. }): (Test, &TestOutcome)| Tested {
            test,
            result: *result,
            evidence: evidence.clone(),
        };
        Self {
            time: outcome.started,
            client: outcome.client,
            server: outcome.server,
            ms: u32::try_from(outcome.duration.as_millis()).unwrap_or(u32::MAX),
            verdict: outcome.verdict,
            reason: outcome.reason,
            objection: outcome.objection,
            kernel: None,
            tests: taken.map(tested).collect(),
            score: outcome.dnsbl.as_ref().map(|dnsbl| dnsbl.score),
            syn: outcome.syn.as_ref().map(|syn| syn.as_str().into()),
            found: Some(Box::new(found)),
        }
    }

    /// What there is to keep of a client that the kernel turned away at `time`, in Unix seconds, because of `list`; `ends` are the client and
    /// the server.
    #[must_use]
    pub fn of_kernel(
        time: u64,
        ends: (SocketAddr, SocketAddr),
        (verdict, reason): (Verdict, Reason),
        list: &str,
        stood: Stood,
    ) -> Self {
        Self {
            time,
            client: ends.0,
            server: ends.1,
            ms: 0,
            verdict,
            reason,
            objection: None,
            kernel: Some(list.into()),
            tests: Vec::new(),
            score: None,
            syn: None,
            found: Some(Box::new(Found { stood, ..Found::default() })),
        }
    }

    /// The same of a client that a dry run let in all the same.
    #[must_use]
    pub fn let_in(self) -> Self {
        Self { verdict: Verdict::Forwarded, reason: Reason::None, objection: Some(self.reason), ..self }
    }

    /// The line that says it, with its end. There always is one: nothing in it is of a kind that JSON does not know.
    #[must_use]
    pub fn line(&self) -> Option<Vec<u8>> {
        let mut line = serde_json::to_vec(self).ok()?;
        line.push(b'\n');
        Some(line)
    }

    /// The session, to be judged once more; `None` if it was not kept what it found.
    #[must_use]
    pub fn case(&self) -> Option<Case<'_>> {
        let found = self.found.as_deref()?;
        let endpoints = Endpoints { client: self.client, server: self.server };
        Some(Case { endpoints, started: self.time.saturating_mul(1000), lasted: self.ms, found })
    }

    /// The network of the client that counts are given for: /24 of IPv4, /64 of IPv6.
    #[must_use]
    pub fn network(&self) -> IpNet {
        let address = self.client.ip().to_canonical();
        let length = if address.is_ipv4() { 24 } else { 64 };
        IpNet::new(address, length).map_or_else(|_| IpNet::from(address), |net| net.trunc())
    }
}
