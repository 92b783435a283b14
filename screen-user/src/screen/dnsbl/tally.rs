//! The score of one client, and what follows from it (spec 3.4, 3.5).

use std::{net::Ipv4Addr, time::Duration};

use super::sites::Sites;
use crate::screen::{
    event::{DnsblAnswer, ZoneReply},
    policy::Dnsbl,
};

/// Most codes of one zone that are kept as evidence; all of them are scored.
const CODES_KEPT: usize = 8;

/// The answers so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    answered: Vec<bool>,
    missing: usize,
    score: i32,
    /// The strictly greatest weight so far, and its zone.
    best: Option<(i32, usize)>,
    pass_ttl: Option<Duration>,
    fail_ttl: Option<Duration>,
    hits: Vec<Hit>,
    failed: usize,
}

/// A zone that lists the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Which zone: an index into [`Sites::zones`].
    pub zone: usize,
    /// What it added to the score.
    pub weight: i32,
    /// Some of its codes, as they came.
    pub codes: Vec<Ipv4Addr>,
}

/// What a tally means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// The sum of the weights.
    pub score: i32,
    /// At or above `dnsbl.threshold`.
    pub blocked: bool,
    /// At or below `dnsbl.allowlist_threshold`, where that is negative.
    pub exempt: bool,
    /// How long this holds, within `dnsbl.min_ttl` and `dnsbl.max_ttl`.
    pub ttl: Duration,
}

impl Tally {
    /// No answer yet.
    #[must_use]
    pub fn new(sites: &Sites) -> Self {
        let zones = sites.zones().len();
        Self { answered: vec![false; zones], missing: zones, ..Self::default() }
    }

    /// The tally of `answers`; of several answers of one zone the first counts.
    pub fn of<'a>(sites: &Sites, answers: impl IntoIterator<Item = &'a DnsblAnswer>) -> Self {
        let mut tally = Self::new(sites);
        for answer in answers {
            tally.add(sites, answer);
        }
        tally
    }

    /// Takes up one zone's answer. A second one of the same zone, or one of a zone that is not listed, is ignored.
    pub fn add(&mut self, sites: &Sites, answer: &DnsblAnswer) {
        match self.answered.get_mut(answer.zone) {
            Some(answered @ false) => *answered = true,
            Some(true) | None => return,
        }
        self.missing = self.missing.saturating_sub(1);
        match &answer.reply {
            ZoneReply::Listed { codes, ttl } => self.listed(sites, answer.zone, codes, *ttl),
            ZoneReply::NotListed { ttl } => self.not_listed(sites, answer.zone, *ttl),
            ZoneReply::Failed => self.failed += 1,
        }
    }

    fn listed(&mut self, sites: &Sites, zone: usize, codes: &[Ipv4Addr], ttl: Option<Duration>) {
        let mut added = 0_i32;
        for weighing in sites.weighings(zone) {
            let bucket = if weighing.weight > 0 { &mut self.fail_ttl } else { &mut self.pass_ttl };
            shorten(bucket, ttl);
            if weighing.filter.is_some_and(|filter| !codes.iter().any(|&code| filter.matches(code))) {
                continue;
            }
            added = added.saturating_add(weighing.weight);
            if self.best.is_none_or(|(weight, _)| weighing.weight > weight) {
                self.best = Some((weighing.weight, zone));
            }
        }
        self.score = self.score.saturating_add(added);
        self.hits.push(Hit { zone, weight: added, codes: codes.iter().take(CODES_KEPT).copied().collect() });
    }

    fn not_listed(&mut self, sites: &Sites, zone: usize, ttl: Option<Duration>) {
        for weighing in sites.weighings(zone) {
            shorten(if weighing.weight > 0 { &mut self.pass_ttl } else { &mut self.fail_ttl }, ttl);
        }
    }

    /// Whether every zone has answered or was given up.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// The sum of the weights so far.
    #[must_use]
    pub const fn score(&self) -> i32 {
        self.score
    }

    /// The zones that list the client, in the order of their answers.
    #[must_use]
    pub fn hits(&self) -> &[Hit] {
        &self.hits
    }

    /// Zones that gave no usable answer.
    #[must_use]
    pub const fn failed(&self) -> usize {
        self.failed
    }

    /// The name to show for the zone that weighs most; empty if none lists the client.
    #[must_use]
    pub fn name<'a>(&self, sites: &'a Sites) -> &'a str {
        self.best.and_then(|(_, zone)| sites.zones().get(zone)).map_or("", |zone| zone.shown())
    }
}

/// The shorter of the known lifetimes: one that is not known says nothing (spec B.16).
fn shorten(bucket: &mut Option<Duration>, ttl: Option<Duration>) {
    *bucket = match (*bucket, ttl) {
        (Some(known), Some(ttl)) => Some(known.min(ttl)),
        (known, ttl) => known.or(ttl),
    };
}

/// What `tally` means by this policy, complete or not (spec 3.5).
#[must_use]
pub fn judge(tally: &Tally, policy: &Dnsbl) -> Judgement {
    let score = tally.score;
    let ttl = if score > 0 { tally.fail_ttl } else { tally.pass_ttl };
    Judgement {
        score,
        blocked: score >= policy.threshold,
        exempt: policy.allowlist_threshold < 0 && score < policy.threshold && score <= policy.allowlist_threshold,
        ttl: ttl.unwrap_or(policy.min_ttl).max(policy.min_ttl).min(policy.max_ttl),
    }
}
