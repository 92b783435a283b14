//! Look-ups: one an address, shared by everybody who asks while it lives.
//!
//! A look-up lives while it runs and while somebody holds it; who asks after that asks anew (spec 3.4).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use ipnet::IpNet;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    query::{Answer, Resolver},
    recent::{Recent, Said},
    report::{Failure, LateResult, Report},
    zone::Zone,
};
use crate::{
    screen::event::{DnsblAnswer, ZoneReply},
    unix_time::unix_now,
};

/// All zones, all look-ups that live, and the last ones that did.
#[derive(Debug)]
pub(super) struct Desk {
    zones: Vec<Arc<Zone>>,
    resolver: Resolver,
    limit: usize,
    live: Mutex<HashMap<IpAddr, Live>>,
    recent: Recent,
    reports: mpsc::Sender<Report>,
    reports_lost: AtomicU64,
}

/// A look-up in the table.
#[derive(Debug)]
struct Live {
    /// What came in so far.
    answers: watch::Receiver<Vec<DnsblAnswer>>,
    /// Those who may still read them.
    subscribers: usize,
    /// Whether somebody left before all were in.
    left_early: bool,
    /// Whether all are in.
    complete: bool,
}

impl Desk {
    /// A desk without look-ups.
    pub(super) fn new(
        zones: Vec<Arc<Zone>>,
        resolver: Resolver,
        limit: usize,
        reports: mpsc::Sender<Report>,
    ) -> Arc<Self> {
        let live = Mutex::new(HashMap::new());
        let recent = Recent::default();
        Arc::new(Self { zones, resolver, limit, live, recent, reports, reports_lost: AtomicU64::new(0) })
    }

    /// The zones, in order.
    pub(super) fn zones(&self) -> &[Arc<Zone>] {
        &self.zones
    }

    /// Who asks.
    pub(super) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// How many look-ups live.
    pub(super) fn live(&self) -> usize {
        self.table().len()
    }

    /// See [`super::Dnsbl::said`].
    pub(super) fn said(&self, net: IpNet) -> Option<Said> {
        self.recent.of(net)
    }

    /// How many reports nobody took.
    pub(super) fn reports_lost(&self) -> u64 {
        self.reports_lost.load(Ordering::Relaxed)
    }

    /// Hands a report out, unless nobody takes them: a look-up never waits for the log.
    pub(super) fn report(&self, report: Report) {
        if self.reports.try_send(report).is_err() {
            self.reports_lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// See [`super::Dnsbl::subscribe`]; `client` is canonical.
    pub(super) fn subscribe(self: &Arc<Self>, client: IpAddr) -> Subscription {
        let mut table = self.table();
        if let Some(live) = table.get_mut(&client) {
            live.subscribers += 1;
            let answers = live.answers.clone();
            return Subscription { desk: Some(self.clone()), client, answers, read: 0, zones: self.zones.len() };
        }
        if table.len() >= self.limit {
            drop(table);
            return self.refuse(client);
        }
        let (sender, answers) = watch::channel(Vec::with_capacity(self.zones.len()));
        let live =
            Live { answers: answers.clone(), subscribers: 1, left_early: false, complete: self.zones.is_empty() };
        table.insert(client, live);
        drop(table);
        if !self.zones.is_empty() {
            self.recent.add(client, unix_now(), answers.clone());
            tokio::spawn(self.clone().run(client, sender));
        }
        Subscription { desk: Some(self.clone()), client, answers, read: 0, zones: self.zones.len() }
    }

    /// A look-up that nobody runs: every zone failed.
    fn refuse(&self, client: IpAddr) -> Subscription {
        for zone in &self.zones {
            zone.record(&Err(Failure::Overloaded), None);
        }
        let answers = self.zones.iter().map(|zone| DnsblAnswer { zone: zone.index, reply: ZoneReply::Failed });
        let (_, answers) = watch::channel(answers.collect());
        Subscription { desk: None, client, answers, read: 0, zones: self.zones.len() }
    }

    /// Asks all zones, hands each answer to whoever listens, and closes the look-up.
    async fn run(self: Arc<Self>, client: IpAddr, answers: watch::Sender<Vec<DnsblAnswer>>) {
        let mut asked = JoinSet::new();
        for zone in &self.zones {
            let (desk, zone) = (self.clone(), zone.clone());
            asked.spawn(async move { DnsblAnswer { zone: zone.index, reply: desk.ask(&zone, client).await } });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(answer) = answer {
                answers.send_modify(|all| all.push(answer));
            }
        }
        // A query that panicked left no answer, and its zone must still be counted by those who wait.
        let missing: Vec<_> = {
            let all = answers.borrow();
            let unheard = self.zones.iter().filter(|zone| !all.iter().any(|answer| answer.zone == zone.index));
            unheard.map(|zone| DnsblAnswer { zone: zone.index, reply: ZoneReply::Failed }).collect()
        };
        if !missing.is_empty() {
            answers.send_modify(|all| all.extend(missing));
        }

        let mut table = self.table();
        let Some(live) = table.get_mut(&client) else { return };
        live.complete = true;
        let late = live.left_early;
        if live.subscribers == 0 {
            table.remove(&client);
        }
        drop(table);
        if late {
            self.report(Report::Late(LateResult { client, answers: answers.borrow().clone() }));
        }
    }

    /// Asks one zone, and counts and reports what came of it.
    async fn ask(&self, zone: &Zone, client: IpAddr) -> ZoneReply {
        let (outcome, took) = if zone.suspended() {
            (Err(Failure::Suspended), None)
        } else {
            let start = Instant::now();
            (self.resolver.ask(zone, client).await, Some(start.elapsed()))
        };
        zone.record(&outcome, took);
        match outcome {
            Ok(Answer::Listed { codes, ttl }) => {
                for code in &codes {
                    self.report(Report::Hit { client, zone: zone.name.clone(), code: *code });
                }
                ZoneReply::Listed { codes, ttl: Some(ttl) }
            }
            Ok(Answer::NotListed { ttl }) => ZoneReply::NotListed { ttl },
            Err(Failure::Suspended | Failure::Overloaded) => ZoneReply::Failed,
            Err(failure) => {
                if let Some(report) = zone.report(client, failure) {
                    self.report(report);
                }
                ZoneReply::Failed
            }
        }
    }

    /// A subscriber has gone; `early`: it has not read all answers.
    fn release(&self, client: IpAddr, early: bool) {
        let mut table = self.table();
        let Some(live) = table.get_mut(&client) else { return };
        live.subscribers = live.subscribers.saturating_sub(1);
        // Left between the last answer and its reading: late all the same, and nobody else will say so.
        let late = early && live.complete && !live.left_early;
        live.left_early |= early;
        let answers = late.then(|| live.answers.borrow().clone());
        if live.complete && live.subscribers == 0 {
            table.remove(&client);
        }
        drop(table);
        if let Some(answers) = answers {
            self.report(Report::Late(LateResult { client, answers }));
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<IpAddr, Live>> {
        // The table is whole between any two statements that change it.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One session's share in a look-up. Dropping it releases the share, and the look-up goes on.
#[derive(Debug)]
pub struct Subscription {
    /// `None` for a look-up that was refused.
    desk: Option<Arc<Desk>>,
    client: IpAddr,
    answers: watch::Receiver<Vec<DnsblAnswer>>,
    read: usize,
    zones: usize,
}

impl Subscription {
    /// The next answer: those that are in already at once, `None` after every zone's. Cancel-safe.
    pub async fn next(&mut self) -> Option<DnsblAnswer> {
        loop {
            if self.read >= self.zones {
                return None;
            }
            if let Some(answer) = self.answers.borrow_and_update().get(self.read).cloned() {
                self.read += 1;
                return Some(answer);
            }
            // The look-up ends after the last answer; an error here is a runtime that shuts down.
            self.answers.changed().await.ok()?;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(desk) = &self.desk {
            desk.release(self.client, self.read < self.zones);
        }
    }
}
