//! What all sessions share: counters, stress, live clients, remembered records.

use std::{collections::HashMap, sync::Arc};

use ipnet::IpNet;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{
    credit::{Credit, Credits},
    dnsbl::{Tally, judge},
    event::{DnsblAnswer, Endpoints, Now},
    extensions::Extensions,
    found::{Found, Memory, Stood},
    log::LogLine,
    policy::Policy,
    record::{Client, Finding, Grounds, Record, Stamp, Test},
    records::{DEFAULT_CAPACITY, Records},
};
use crate::share::{Clock, Forgets, HostId, Version};

/// Whether STARTTLS can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsState {
    /// There is no certificate: STARTTLS is not announced and answers 502.
    #[default]
    Absent,
    /// It should work and does not: STARTTLS is announced and answers 454 (spec 4.8).
    Broken,
    /// It works.
    Usable,
}

/// The state that all sessions share. It holds no sockets and asks no clock.
#[derive(Debug)]
pub struct Screen {
    policy: Arc<Policy>,
    tls: TlsState,
    extensions: Extensions,
    time_zone: TimeZone,
    checking: u32,
    forwarding: u32,
    stress: bool,
    live: HashMap<Client, Live>,
    records: Records<Record>,
    pub(super) credits: Credits,
    forgets: Forgets,
    clock: Arc<Clock>,
    keeps_found: bool,
}

/// A client while at least one of its sessions is open (spec 0.2, "client info").
#[derive(Debug, Default)]
struct Live {
    sessions: u32,
    passed_as_new: u32,
    /// `None` until a session has looked the client up (spec 6.1, stamp -1).
    record: Option<Record>,
}

/// What `status` shows of the screener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Sessions that the screener holds, those that wait for the mail server included.
    pub checking: u32,
    /// Sessions that wait for the mail server.
    pub forwarding: u32,
    /// Whether time limits are shortened.
    pub stress: bool,
    /// Clients with a session.
    pub clients: usize,
    /// Remembered records.
    pub records: usize,
    /// Networks with credit.
    pub credits: usize,
}

/// How a client's record was found when its session chose tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// The stamps to go by.
    pub(super) record: Record,
    /// Where they come from.
    pub(super) source: Source,
}

/// Where the stamps of a new session come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Nothing is known of the client.
    Nowhere,
    /// A remembered record.
    Memory,
    /// Another session of the client, which is not over.
    OtherSession,
}

impl Screen {
    /// A screener without sessions and without memory. TLS is absent until [`Screen::set_tls`] says otherwise.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy: Arc::new(policy),
            tls: TlsState::Absent,
            extensions: Extensions::NONE,
            time_zone: TimeZone::system(),
            checking: 0,
            forwarding: 0,
            stress: false,
            live: HashMap::new(),
            records: Records::new(DEFAULT_CAPACITY),
            credits: Credits::new(),
            forgets: Forgets::default(),
            clock: Arc::default(),
            keeps_found: false,
        }
    }

    /// Sessions that open from now on go by `policy`; running ones keep theirs.
    pub fn set_policy(&mut self, policy: Policy) {
        if policy.pool_credit != self.policy.pool_credit {
            self.credits = Credits::new();
        }
        self.policy = Arc::new(policy);
    }

    /// Whether STARTTLS can be served, and if not, what to say.
    pub fn set_tls(&mut self, tls: TlsState) {
        self.tls = tls;
    }

    /// What the mail servers have in common, for sessions that may go on to one of them.
    pub fn set_extensions(&mut self, extensions: Extensions) {
        self.extensions = extensions;
    }

    /// Whether sessions that open from now on leave what they found in their outcome.
    pub fn keep_found(&mut self, keeps: bool) {
        self.keeps_found = keeps;
    }

    /// Where the `$localtime` of reject footers is local; at first the system's own zone.
    pub fn set_time_zone(&mut self, time_zone: TimeZone) {
        self.time_zone = time_zone;
    }

    /// Most records to keep, at least 2. What is kept now stays until a new record comes.
    pub fn set_record_capacity(&mut self, capacity: usize) {
        self.records.set_capacity(capacity);
    }

    /// Makes room for so many records that are to be taken up.
    pub fn expect(&mut self, records: usize) {
        self.records.reserve(records);
    }

    /// Takes up records that outlived the last run. Those that [`Screen::sweep`] would drop are left out.
    pub fn restore(&mut self, records: impl IntoIterator<Item = (Client, Record)>, now: u64) {
        for (client, record) in records {
            if worth_keeping(&self.policy, &record, now) {
                self.clock.hear(record.version(), now.saturating_mul(1000));
                self.learn(client, &record);
            }
        }
    }

    /// The remembered record of a client.
    #[must_use]
    pub fn record(&self, client: Client) -> Option<Record> {
        self.records.get(client)
    }

    /// All remembered records, in no order.
    #[must_use]
    pub fn records(&self) -> Vec<(Client, Record)> {
        self.records.iter().collect()
    }

    /// The clock that gives findings their versions.
    #[must_use]
    pub fn clock(&self) -> Arc<Clock> {
        Arc::clone(&self.clock)
    }

    /// Takes over what somebody else knows better of a client, unless it is to be forgotten. Returns the record as it is then, if that
    /// changed it. Sessions remember what they learn by themselves.
    pub fn learn(&mut self, client: Client, record: &Record) -> Option<Record> {
        let record = record.after(self.forgets.of(client.net()));
        let known = self.records.get(client);
        let mut merged = known.unwrap_or_default();
        merged.merge(&record);
        (!merged.is_empty() && known != Some(merged)).then(|| {
            self.records.insert(client, merged);
            if let Some(live) = self.live.get_mut(&client).and_then(|live| live.record.as_mut()) {
                live.merge(&merged);
            }
            merged
        })
    }

    /// Forgets what was learnt of clients in `net` until `version`, and what credit they have earned or use. Returns the records that
    /// this changed, as they are then. A session that is under way finishes as it began, and what it learns counts.
    pub fn forget(&mut self, net: IpNet, version: Version) -> Vec<(Client, Record)> {
        if !self.forgets.add(net, version) {
            return Vec::new();
        }
        self.credits.retain(|network, credit| !net.contains(&network.net()) && !net.contains(&credit.earned_by.net()));
        let mut changed = Vec::new();
        self.records.retain_mut(|client, record| {
            if net.contains(&client.net()) {
                let left = record.after(version);
                if left != *record {
                    changed.push((client, left));
                }
                *record = left;
            }
            !record.is_empty()
        });
        changed
    }

    /// The orders to forget that are remembered.
    #[must_use]
    pub const fn forgets(&self) -> &Forgets {
        &self.forgets
    }

    /// Drops orders to forget whose time is over, in milliseconds of Unix time, and returns for which networks.
    pub fn expire_forgets(&mut self, unix_millis: u64) -> Vec<IpNet> {
        self.forgets.expire(unix_millis)
    }

    /// Drops records that can't spare their client a test any more: some enabled test was never passed, or expired longer ago than
    /// `cache.retention` (spec 6.4). Returns whose they were.
    pub fn sweep(&mut self, now: u64) -> Vec<Client> {
        let policy = Arc::clone(&self.policy);
        self.credits.retain(|_, credit| now <= credit.until);
        self.records.retain(|_, record| worth_keeping(&policy, record, now))
    }

    /// Judges a client by the complete answers of all zones, after its session went by some of them. If that takes away its DNSBL
    /// pass, the record as it is now is returned, to be stored.
    pub fn correct_dnsbl(&mut self, client: Client, answers: &[DnsblAnswer], now: Now) -> Option<Record> {
        let tally = Tally::of(&self.policy.dnsbl.sites, answers);
        if !judge(&tally, &self.policy.dnsbl).blocked {
            return None;
        }
        self.withdraw_credit(client.address);
        let version = self.clock.next(now.unix_millis);
        let withdrawn = Finding { version, stamp: Stamp::DISABLED, grounds: Grounds::LateAnswers };
        if let Some(record) = self.live.get_mut(&client).and_then(|live| live.record.as_mut())
            && record.stamp(Test::Dnsbl).is_pass()
        {
            record.set(Test::Dnsbl, withdrawn, HostId::THIS);
        }
        let mut record = self.records.get(client).filter(|record| {
            let stamp = record.stamp(Test::Dnsbl);
            stamp.is_pass() && stamp.is_valid(now.unix())
        })?;
        record.set(Test::Dnsbl, withdrawn, HostId::THIS);
        self.records.insert(client, record);
        Some(record)
    }

    /// What `status` shows.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            checking: self.checking,
            forwarding: self.forwarding,
            stress: self.stress,
            clients: self.live.len(),
            records: self.records.len(),
            credits: self.credits.len(),
        }
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    pub(super) const fn tls(&self) -> TlsState {
        self.tls
    }

    /// Puts everything into the state that a session found: the only session is yet to be opened.
    pub(super) fn stage(&mut self, endpoints: Endpoints, found: &Found, unix: u64) {
        let client = Client::of(endpoints.client.ip(), self.policy.limits.client_prefix);
        self.checking = found.checking.saturating_sub(1);
        self.forwarding = found.forwarding;
        self.stress = found.stress;
        self.tls = found.tls;
        let (remembered, of_others) = match &found.known {
            None | Some(Memory::Nothing) => (None, None),
            Some(Memory::Record(stamps)) => (Some(Record::of_stamps(**stamps)), None),
            Some(Memory::OtherSession(stamps)) => (None, Some(Record::of_stamps(**stamps))),
        };
        if let Some(record) = remembered {
            self.records.insert(client, record);
        }
        if found.sessions > 1 || of_others.is_some() {
            let sessions = found.sessions.saturating_sub(1).max(1);
            self.live.insert(client, Live { sessions, passed_as_new: 0, record: of_others });
        }
        if let (true, Some(network)) = (found.credit, self.policy.pool_credit.network(endpoints.client.ip())) {
            // Nobody knows whose it was, and nothing hangs on it.
            self.credits.add(network, Credit { earned_by: client, until: unix.saturating_add(u64::from(u32::MAX)) });
        }
    }

    /// Forgets sessions and clients.
    pub(super) fn clear(&mut self) {
        (self.checking, self.forwarding, self.stress) = (0, 0, false);
        self.live.clear();
        self.records.retain(|_, _| false);
        self.credits.retain(|_, _| false);
    }

    /// What is found at the beginning of a session of a client with so many `sessions`, where that is kept.
    pub(super) fn beginning(&self, sessions: u32, stood: impl FnOnce() -> Stood) -> Option<Box<Found>> {
        self.keeps_found.then(|| {
            Box::new(Found {
                stood: stood(),
                sessions,
                checking: self.checking,
                forwarding: self.forwarding,
                stress: self.stress,
                tls: self.tls,
                ..Found::default()
            })
        })
    }

    pub(super) const fn extensions(&self) -> Extensions {
        self.extensions
    }

    pub(super) const fn time_zone(&self) -> &TimeZone {
        &self.time_zone
    }

    pub(super) const fn stress(&self) -> bool {
        self.stress
    }

    /// Clients being screened, those that wait for the mail server left out (spec 1.6 step 6).
    pub(super) const fn screening(&self) -> u32 {
        self.checking.saturating_sub(self.forwarding)
    }

    pub(super) const fn forwarding(&self) -> u32 {
        self.forwarding
    }

    /// Counts a session of `client` in. Returns what there is to log, and how many sessions the client has now.
    pub(super) fn enter(&mut self, client: Client) -> (Option<LogLine>, u32) {
        self.checking = self.checking.saturating_add(1);
        let (high, _) = self.stress_marks();
        let line = (!self.stress && high > 0 && self.checking >= high).then(|| {
            self.stress = true;
            LogLine::EnteringStress { connections: self.checking }
        });
        let live = self.live.entry(client).or_default();
        live.sessions = live.sessions.saturating_add(1);
        (line, live.sessions)
    }

    /// Counts a session out, and returns what there is to log.
    pub(super) fn leave(&mut self, client: Client) -> Option<LogLine> {
        self.checking = self.checking.saturating_sub(1);
        if let Some(live) = self.live.get_mut(&client) {
            live.sessions = live.sessions.saturating_sub(1);
            if live.sessions == 0 {
                self.live.remove(&client);
            }
        }
        let (_, low) = self.stress_marks();
        (self.stress && self.checking <= low).then(|| {
            self.stress = false;
            LogLine::LeavingStress { connections: self.checking }
        })
    }

    /// Nine and seven tenths of `limits.pre_queue` (spec 7.2); without that limit there is no stress.
    fn stress_marks(&self) -> (u32, u32) {
        let tenths =
            |count: u64| u32::try_from(u64::from(self.policy.limits.pre_queue) * count / 10).unwrap_or(u32::MAX);
        (tenths(9), tenths(7))
    }

    pub(super) fn begin_forward(&mut self) {
        self.forwarding = self.forwarding.saturating_add(1);
    }

    pub(super) fn end_forward(&mut self) {
        self.forwarding = self.forwarding.saturating_sub(1);
    }

    /// The stamps that a new session of `client` goes by (spec 1.8). Those of the client's other sessions come first: they are never
    /// older than the remembered record, which is left alone if the session is to go on as if there were none (`afresh`).
    pub(super) fn look_up(&mut self, client: Client, afresh: bool) -> Known {
        let live = self.live.entry(client).or_default();
        if let Some(record) = live.record {
            return Known { record, source: Source::OtherSession };
        }
        let remembered = if afresh { None } else { self.records.refresh(client) };
        let record = remembered.unwrap_or_default();
        live.record = Some(record);
        Known { record, source: if remembered.is_some() { Source::Memory } else { Source::Nowhere } }
    }

    pub(super) fn stamp(&self, client: Client, test: Test) -> Stamp {
        self.live.get(&client).and_then(|live| live.record).unwrap_or_default().stamp(test)
    }

    /// Changes a stamp for all sessions of `client`; nothing is remembered yet.
    pub(super) fn set_stamp(&mut self, client: Client, test: Test, stamp: Stamp, grounds: Grounds, now: Now) {
        if let Some(live) = self.live.get_mut(&client) {
            let version = self.clock.next(now.unix_millis);
            live.record.get_or_insert_default().set(test, Finding { version, stamp, grounds }, HostId::THIS);
        }
    }

    /// Whether a pass of a session counts as new: only the first one of overlapping sessions does (spec 2.4).
    pub(super) fn passes_as_new(&mut self, client: Client, new: bool) -> bool {
        let Some(live) = self.live.get_mut(&client) else {
            return new;
        };
        let new = new && live.passed_as_new == 0;
        live.passed_as_new += u32::from(new);
        new
    }

    /// Remembers what the sessions of `client` know, and returns the record to be stored (spec 6.1).
    pub(super) fn keep(&mut self, client: Client, policy: &Policy) -> Option<Record> {
        let live = self.live.get_mut(&client)?.record.as_mut()?;
        let mut record = live.after(self.forgets.of(client.net()));
        // Somebody else may have learnt something meanwhile.
        record.merge(&self.records.get(client).unwrap_or_default());
        for test in Test::ALL {
            let finding = record.finding(test);
            if !policy.enables(test) && finding.stamp == Stamp::NEVER {
                // That is the state before any test, and no finding that could undo one.
                record.set(test, Finding { stamp: Stamp::DISABLED, ..finding }, record.host());
            }
        }
        *live = record;
        self.records.insert(client, record);
        Some(record)
    }
}

fn worth_keeping(policy: &Policy, record: &Record, now: u64) -> bool {
    let oldest = now.saturating_sub(policy.retention.as_secs());
    policy.enabled().map(|test| record.stamp(test)).all(|stamp| stamp.is_pass() && stamp.0 >= oldest)
}
