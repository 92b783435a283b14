//! The life of one connection: what happens to it in each phase, how it concludes (spec 1.11), and hang-ups (spec 1.12).

use std::{sync::Arc, time::Duration};

use super::{
    bar::{Bar, Life},
    dnsbl::Tally,
    engine::Engine,
    event::{Effect, Endpoints, Event, ForwardResult, Interest, Now},
    flags::{Flags, TestSet},
    footer,
    found::Found,
    log::{LimitReached, LogLine, Phase},
    outcome::{DnsblEvidence, Outcome, Reason, TestOutcome, TestResult, Verdict, ZoneHit},
    policy::{Action, Policy},
    record::{Client, Grounds, Stamp, Test},
    reply::{self, RecipientReply, Reply},
    shared::Screen,
};

/// Most zones that are named as those that list a client.
const LISTED_BY: usize = 4;

/// One connection, from its acceptance to its end.
#[derive(Debug)]
pub struct Session {
    pub(super) policy: Arc<Policy>,
    pub(super) endpoints: Endpoints,
    pub(super) client: Client,
    pub(super) opened: Now,
    pub(super) state: State,
    pub(super) flags: Flags,
    /// When the current phase began: what HANGUP and PREGREET lines count from.
    pub(super) phase_began: Duration,
    /// When the greet wait or the current command is over.
    pub(super) deadline: Duration,
    pub(super) recipient_reply: RecipientReply,
    pub(super) final_reply: Reply,
    pub(super) reason: Reason,
    /// What the client was spared first, in a dry run.
    pub(super) objection: Option<Reason>,
    /// Whether passes were logged and remembered. A session whose hand-over fails concludes twice, but passes once.
    settled: bool,
    pub(super) hung_up: bool,
    pub(super) tally: Option<Box<Tally>>,
    /// Made when the dummy engine starts: most clients never meet it.
    pub(super) engine: Option<Box<Engine>>,
    pub(super) evidence: Vec<(Test, Box<str>)>,
    /// What is found, where somebody keeps it.
    pub(super) found: Option<Box<Found>>,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The tests before the greeting.
    Early,
    /// The dummy engine.
    Engine,
    /// The dummy engine, while TLS is being set up.
    Handshake,
    /// Waiting for the mail server.
    Forwarding,
    /// Waiting for the mail server's answer to what the client has said to the dummy engine.
    Replaying,
    /// Over.
    Ended,
}

/// What one event works with, and what comes out of it.
pub(super) struct Turn<'a> {
    pub(super) screen: &'a mut Screen,
    pub(super) now: Now,
    pub(super) effects: Vec<Effect>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(screen: &'a mut Screen, now: Now) -> Self {
        Self { screen, now, effects: Vec::new() }
    }

    pub(super) fn log(&mut self, line: LogLine) {
        self.effects.push(Effect::Log(line));
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Sends bytes; what follows other bytes directly goes out with them.
    pub(super) fn send(&mut self, mut bytes: Vec<u8>) {
        if let Some(Effect::Send(waiting)) = self.effects.last_mut() {
            waiting.append(&mut bytes);
        } else {
            self.effects.push(Effect::Send(bytes));
        }
    }
}

impl Session {
    pub(super) fn new(endpoints: Endpoints, policy: Arc<Policy>, now: Now) -> Self {
        Self {
            client: Client::of(endpoints.client.ip(), policy.limits.client_prefix),
            policy,
            endpoints,
            opened: now,
            state: State::Early,
            flags: Flags::default(),
            phase_began: now.monotonic,
            deadline: now.monotonic,
            recipient_reply: RecipientReply::default(),
            final_reply: Reply::NoSystemResources,
            reason: Reason::None,
            objection: None,
            settled: false,
            hung_up: false,
            tally: None,
            engine: None,
            evidence: Vec::new(),
            found: None,
        }
    }

    /// The client, as limits and records know it.
    #[must_use]
    pub const fn client(&self) -> Client {
        self.client
    }

    /// The two ends of the connection.
    #[must_use]
    pub const fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    /// Whether the session is over: [`Effect::End`] was given.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// How many bytes of what the client said the session keeps: an unfinished line, names, and what failed which test.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        let evidence: usize = self.evidence.iter().map(|(_, text)| text.len()).sum();
        let found = self.found.as_ref().map_or(0, |found| found.kept_bytes());
        found + evidence + self.engine.as_ref().map_or(0, |engine| engine.kept_bytes())
    }

    /// Takes one event, and returns what is to be done about it, in order. Events that mean nothing in the session's state, and all
    /// events after its end, change nothing.
    pub fn on(&mut self, event: Event<'_>, screen: &mut Screen, now: Now) -> Vec<Effect> {
        self.note(&event, now);
        let mut turn = Turn::new(screen, now);
        match self.state {
            State::Early => self.on_early(&event, &mut turn),
            State::Engine => self.on_engine(&event, &mut turn),
            State::Handshake => self.on_handshake(&event, &mut turn),
            State::Forwarding => {
                if let Event::Forwarded(result) = event {
                    self.forwarded(result, &mut turn);
                }
            }
            State::Replaying => {
                if let Event::Forwarded(result) = event {
                    self.replayed(result, &mut turn);
                }
            }
            State::Ended => {}
        }
        turn.effects
    }

    /// Ends the session because its driver can't go on. Counts are released; the effects are what is left to log and the outcome.
    pub fn abort(&mut self, screen: &mut Screen, now: Now) -> Vec<Effect> {
        let mut turn = Turn::new(screen, now);
        match self.state {
            State::Ended => return Vec::new(),
            State::Forwarding | State::Replaying => turn.screen.end_forward(),
            State::Early | State::Engine | State::Handshake => {}
        }
        self.end(Verdict::Aborted, &mut turn);
        turn.effects
    }

    /// Arms the session's timer for a new wait of `limit`, or for the end of the session's own time if that is nearer.
    pub(super) fn arm(&mut self, limit: Duration, turn: &mut Turn<'_>) {
        self.deadline = turn.now.monotonic.saturating_add(limit);
        self.rearm(turn);
    }

    fn rearm(&self, turn: &mut Turn<'_>) {
        let next = self.session_deadline().map_or(self.deadline, |end| end.min(self.deadline));
        turn.push(Effect::Arm(next.saturating_sub(turn.now.monotonic)));
    }

    /// When the whole session has taken too long; `None` if that is not limited.
    fn session_deadline(&self) -> Option<Duration> {
        let limit = self.policy.smtp.session_time_limit;
        (!limit.is_zero()).then(|| self.opened.monotonic.saturating_add(limit))
    }

    /// What a timer event is about. A timer that went off too early is armed again.
    pub(super) fn due(&self, turn: &mut Turn<'_>) -> Due {
        if self.session_deadline().is_some_and(|end| end <= turn.now.monotonic) {
            Due::Session
        } else if self.deadline <= turn.now.monotonic {
            Due::Wait
        } else {
            self.rearm(turn);
            Due::Nothing
        }
    }

    /// Ends the session at one of its limits.
    pub(super) fn reach(&mut self, limit: LimitReached, turn: &mut Turn<'_>) {
        self.log_objection(LogLine::Limit { client: self.endpoints.client, limit, after: self.last_command() }, turn);
        self.reason = Reason::Limit(limit);
        if self.is_spared(self.reason) {
            return self.let_in(turn);
        }
        let reply = match limit {
            LimitReached::CommandTime | LimitReached::SessionTime => Reply::Timeout,
            LimitReached::CommandCount | LimitReached::CommandLength | LimitReached::SessionBytes => {
                Reply::TryAgainLater
            }
        };
        self.drop_with(reply, turn);
    }

    fn last_command(&self) -> &'static str {
        self.engine.as_ref().map_or("CONNECT", |engine| engine.last)
    }

    /// Sends one reply.
    pub(super) fn say(&self, text: &str, turn: &mut Turn<'_>) {
        let scope = footer::Scope {
            client: self.endpoints.client,
            server_name: &self.policy.hostname,
            unix: turn.now.unix(),
            time_zone: turn.screen.time_zone(),
        };
        let (bytes, lines) = reply::encode(text, &self.policy, &scope);
        lines.into_iter().for_each(|line| turn.log(line));
        turn.send(bytes);
    }

    /// The name of the DNSBL zone that weighs most.
    pub(super) fn dnsbl_name(&self) -> &str {
        self.tally.as_ref().map_or("", |tally| tally.name(&self.policy.dnsbl.sites))
    }

    /// The names by which the zones are shown that speak against the client. Several zones may have one.
    pub(super) fn listed_by(&self) -> String {
        let zones = self.policy.dnsbl.sites.zones();
        let hits = self.tally.iter().flat_map(|tally| tally.hits()).filter(|hit| hit.weight > 0);
        let mut names: Vec<&str> = Vec::new();
        for name in hits.filter_map(|hit| Some(zones.get(hit.zone)?.shown())) {
            if names.len() < LISTED_BY && !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(" ")
    }

    /// Turns the client away with a last reply.
    pub(super) fn drop_with(&mut self, reply: Reply, turn: &mut Turn<'_>) {
        self.flags.no_forward = true;
        self.final_reply = reply;
        self.conclude(turn);
    }

    /// Turns a client away that failed a test, and bars it for a while if the policy says so: in a dry run, too, for the time after it.
    pub(super) fn drop_failed(&mut self, reply: Reply, life: Life, turn: &mut Turn<'_>) {
        if !self.policy.remember_failures.is_zero()
            && let Some((test, evidence)) = self.evidence.last()
        {
            turn.push(Effect::Bar(Box::new(Bar { test: *test, evidence: evidence.clone(), life })));
        }
        if self.is_spared(self.reason) {
            return self.let_in(turn);
        }
        self.drop_with(reply, turn);
    }

    /// The client has gone.
    pub(super) fn hang_up(&mut self, turn: &mut Turn<'_>) {
        let phase = if self.state == State::Early { Phase::Early } else { Phase::Deep };
        let after = turn.now.monotonic.saturating_sub(self.phase_began);
        turn.log(LogLine::Hangup { client: self.endpoints.client, after, phase });
        self.hung_up = true;
        self.flags.no_forward = true;
        self.conclude(turn);
    }

    /// Spec 1.11, step by step.
    pub(super) fn conclude(&mut self, turn: &mut Turn<'_>) {
        self.settle(turn);
        if self.flags.no_forward {
            self.finish(turn);
        } else {
            self.state = State::Forwarding;
            turn.screen.begin_forward();
            turn.push(Effect::Watch(Interest::Nothing));
            turn.push(Effect::Forward);
        }
    }

    /// Logs and remembers what was passed.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) {
        if self.flags.any_fail() {
            self.flags.pass = TestSet::default();
        }
        if !self.flags.pass.is_empty() && !self.settled {
            if self.flags.pass == self.flags.todo {
                let client = self.endpoints.client;
                let new = turn.screen.passes_as_new(self.client, self.flags.new);
                turn.log(if new { LogLine::PassNew { client } } else { LogLine::PassOld { client } });
                if self.reason == Reason::None {
                    self.reason = Reason::Passed;
                }
                self.earn_credit(turn);
            }
            if self.policy.remember_results
                && let Some(record) = turn.screen.keep(self.client, &self.policy)
            {
                turn.push(Effect::Remember(record));
            }
        }
        self.settled = true;
    }

    /// Says the last words, if anybody listens, and ends.
    fn finish(&mut self, turn: &mut Turn<'_>) {
        if !self.hung_up {
            let text = self.final_reply.text(&self.policy, self.endpoints.client, self.dnsbl_name());
            self.say(&text, turn);
        }
        turn.log(LogLine::Disconnect { client: self.endpoints.client });
        let turned_away = self.flags.any_fail() || self.reason == Reason::Barred;
        let verdict = if turned_away && !self.policy.dry_run {
            Verdict::Rejected
        } else if self.hung_up {
            Verdict::HungUp
        } else {
            Verdict::Deferred
        };
        self.end(verdict, turn);
    }

    fn forwarded(&mut self, result: ForwardResult, turn: &mut Turn<'_>) {
        turn.screen.end_forward();
        let reply = match result {
            ForwardResult::Accepted => return self.end(Verdict::Forwarded, turn),
            ForwardResult::ClientLeft => {
                turn.log(LogLine::Disconnect { client: self.endpoints.client });
                return self.end(Verdict::HungUp, turn);
            }
            ForwardResult::Unreachable => Reply::ServerPortsBusy,
            ForwardResult::Failed => Reply::NoSystemResources,
        };
        self.reason = Reason::NoBackend;
        self.flags.no_forward = true;
        if self.flags.todo.has(Test::Pregreet) {
            // Half a greeting has gone out: it is completed, and the first command gets the reply (spec 5.5).
            self.final_reply = Reply::NoSystemResources;
            self.start_engine(true, turn);
        } else {
            self.final_reply = reply;
            self.finish(turn);
        }
    }

    /// The very last step: counts are released, nothing comes after.
    pub(super) fn end(&mut self, verdict: Verdict, turn: &mut Turn<'_>) {
        if let Some(line) = turn.screen.leave(self.client) {
            turn.log(line);
        }
        let outcome = self.outcome(verdict, turn.now);
        turn.push(Effect::End(Box::new(outcome)));
        self.state = State::Ended;
        self.engine = None;
        self.tally = None;
        self.evidence = Vec::new();
    }

    fn outcome(&mut self, verdict: Verdict, now: Now) -> Outcome {
        let mut tests: [TestOutcome; 5] = Default::default();
        for (test, outcome) in Test::ALL.into_iter().zip(&mut tests) {
            outcome.result = self.result_of(test);
            let failed = matches!(outcome.result, TestResult::Failed | TestResult::Ignored);
            outcome.action = failed.then(|| self.action(test));
            if let Some((_, evidence)) = self.evidence.iter_mut().find(|(failed, _)| *failed == test) {
                outcome.evidence = std::mem::take(evidence);
            }
        }
        Outcome {
            client: self.endpoints.client,
            server: self.endpoints.server,
            started: self.opened.unix(),
            duration: now.monotonic.saturating_sub(self.opened.monotonic),
            verdict,
            reason: self.reason,
            objection: self.objection,
            new: self.flags.new,
            syn: None,
            tests,
            dnsbl: self.tally.as_ref().map(|tally| dnsbl_evidence(tally, &self.policy)),
            smtp: self.engine.as_ref().map(|engine| engine.evidence(&self.policy)),
            found: self.found.take(),
        }
    }

    fn result_of(&self, test: Test) -> TestResult {
        if self.flags.fail.has(test) {
            TestResult::Failed
        } else if self.evidence.iter().any(|(failed, _)| *failed == test) {
            TestResult::Ignored
        } else if self.flags.pass.and(self.flags.spared).has(test) {
            TestResult::Spared
        } else if self.flags.pass.has(test) {
            TestResult::Passed
        } else if self.flags.todo.has(test) {
            TestResult::Unfinished
        } else {
            TestResult::NotTaken
        }
    }

    /// Notes that `test` failed, and what the client did.
    pub(super) fn note_failure(&mut self, test: Test, evidence: &str, turn: &mut Turn<'_>) {
        turn.screen.withdraw_credit(self.endpoints.client.ip());
        self.flags.fail.insert(test);
        self.evidence.push((test, evidence.into()));
        self.reason = Reason::Failed(test);
    }

    /// Takes back a failure whose action is `ignore`.
    pub(super) fn ignore_failure(&mut self, test: Test) {
        self.flags.fail.remove(test);
        if self.reason == Reason::Failed(test) {
            // An earlier one may still count.
            let earlier =
                self.evidence.iter().rev().map(|(failed, _)| *failed).find(|failed| self.flags.fail.has(*failed));
            self.reason = earlier.map_or(Reason::None, Reason::Failed);
        }
    }

    /// Notes that `test` counts as passed until `stamp`, and why.
    pub(super) fn pass(&mut self, test: Test, stamp: Stamp, grounds: Grounds, turn: &mut Turn<'_>) {
        self.flags.pass.insert(test);
        turn.screen.set_stamp(self.client, test, stamp, grounds, turn.now);
    }

    /// What is done about a failed test.
    pub(super) fn action(&self, test: Test) -> Action {
        self.policy.action(test)
    }
}

/// What a timer event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The session's own time is over.
    Session,
    /// The greet wait, or a command's time, is over.
    Wait,
    /// Nothing yet.
    Nothing,
}

fn dnsbl_evidence(tally: &Tally, policy: &Policy) -> DnsblEvidence {
    let zones = policy.dnsbl.sites.zones();
    let hits = tally.hits().iter().filter_map(|hit| {
        let zone = zones.get(hit.zone)?.shown().into();
        Some(ZoneHit { zone, weight: hit.weight, codes: hit.codes.clone() })
    });
    DnsblEvidence { score: tally.score(), complete: tally.is_complete(), failed: tally.failed(), hits: hits.collect() }
}
