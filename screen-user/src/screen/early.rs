//! The tests before the greeting: pregreet and DNSBL (spec 3).

use super::{
    bar::Life,
    dnsbl::{Judgement, Tally, judge},
    event::{DnsblAnswer, Effect, Event, Interest},
    flags::TestSet,
    log::{LimitReached, LogLine},
    policy::Action,
    record::{Grounds, Stamp, Test},
    reply::{RecipientReply, Reply},
    session::{Due, Session, Turn},
    text::{LOG_TEXT_LIMIT, escape_head},
};

impl Session {
    /// Spec 3.1.
    pub(super) fn start_early(&mut self, turn: &mut Turn<'_>) {
        self.phase_began = turn.now.monotonic;
        let pregreet = self.flags.todo.has(Test::Pregreet);
        if pregreet {
            turn.send(format!("220-{}\r\n", self.policy.pregreet.teaser).into_bytes());
        }
        if self.flags.todo.has(Test::Dnsbl) {
            self.tally = Some(Box::new(Tally::new(&self.policy.dnsbl.sites)));
            turn.push(Effect::LookUp);
        }
        if let Some(found) = &mut self.found {
            found.watched = pregreet;
            if self.flags.todo.has(Test::Dnsbl) {
                found.ask(&self.policy.dnsbl.sites);
            }
        }
        // Without the pregreet test neither early input nor an early hang-up is looked for.
        turn.push(Effect::Watch(if pregreet { Interest::Peek } else { Interest::Nothing }));
        self.arm(self.policy.pregreet.wait.get(turn.screen.stress()), turn);
    }

    pub(super) fn on_early(&mut self, event: &Event<'_>, turn: &mut Turn<'_>) {
        match event {
            Event::Peeked([]) | Event::PeerClosed | Event::WriteFailed => {
                self.end_look_up(turn);
                self.hang_up(turn);
            }
            Event::Peeked(bytes) => {
                if self.flags.watching(Test::Pregreet) {
                    self.talked_early(bytes, turn);
                }
            }
            Event::TimerFired => match self.due(turn) {
                Due::Session => {
                    self.end_look_up(turn);
                    self.reach(LimitReached::SessionTime, turn);
                }
                Due::Wait => self.finish_early(turn),
                Due::Nothing => {}
            },
            Event::Dnsbl(answer) => self.dnsbl_answered(answer, turn),
            // Input is peeked at, not read, in this phase; the others belong to later ones.
            Event::Received(_) | Event::TlsEstablished | Event::Forwarded(_) => {}
        }
    }

    /// Spec 3.2.
    fn talked_early(&mut self, bytes: &[u8], turn: &mut Turn<'_>) {
        let client = self.endpoints.client;
        let after = turn.now.monotonic.saturating_sub(self.phase_began);
        // The text is cut after escaping, unlike any other (spec B.14); each byte gives at least one character.
        let mut text = escape_head(bytes);
        text.truncate(LOG_TEXT_LIMIT);
        self.note_failure(Test::Pregreet, &text, turn);
        let line = LogLine::Pregreet { client, length: bytes.len(), after, text: text.into() };
        self.log_failure(Test::Pregreet, line, turn);
        match self.action(Test::Pregreet) {
            Action::Drop => {
                self.end_look_up(turn);
                return self.drop_failed(Reply::ProtocolError, Life::Growing(self.policy.remember_failures), turn);
            }
            Action::Enforce => self.hold_back(self.reason, Some(RecipientReply::ProtocolError)),
            Action::Ignore => {}
        }
        self.flags.done.insert(Test::Pregreet);
        turn.push(Effect::Watch(Interest::Nothing));
        // The wait is read again: stress may have shortened it meanwhile.
        let rest = self.policy.pregreet.wait.get(turn.screen.stress()).saturating_sub(after);
        if rest.is_zero() || self.flags.early_complete() {
            self.finish_early(turn);
        } else {
            self.arm(rest, turn);
        }
    }

    fn dnsbl_answered(&mut self, answer: &DnsblAnswer, turn: &mut Turn<'_>) {
        let Some(tally) = &mut self.tally else {
            return;
        };
        tally.add(&self.policy.dnsbl.sites, answer);
        if tally.is_complete() && self.flags.watching(Test::Dnsbl) {
            self.collect(turn);
            self.flags.done.insert(Test::Dnsbl);
            if self.flags.early_complete() {
                self.finish_early(turn);
            }
        }
    }

    fn judge(&self) -> Option<Judgement> {
        self.tally.as_ref().map(|tally| judge(tally, &self.policy.dnsbl))
    }

    /// A score that is good enough spares the client all other tests (spec 3.5).
    fn collect(&mut self, turn: &mut Turn<'_>) {
        let Some(judgement) = self.judge().filter(|judgement| judgement.exempt && !self.flags.any_fail()) else {
            return;
        };
        let until = Stamp::until(turn.now.unix(), judgement.ttl);
        for test in Test::ALL.into_iter().filter(|&test| test != Test::Dnsbl) {
            if self.flags.todo.has(test) && !self.flags.pass.has(test) {
                self.flags.pass.insert(test);
                self.flags.done.insert(test);
            }
            let stamp = turn.screen.stamp(self.client, test).max(until);
            turn.screen.set_stamp(self.client, test, stamp, Grounds::Score, turn.now);
        }
    }

    fn end_look_up(&self, turn: &mut Turn<'_>) {
        if self.flags.todo.has(Test::Dnsbl) {
            turn.push(Effect::EndLookUp);
        }
    }

    /// Spec 3.6.
    fn finish_early(&mut self, turn: &mut Turn<'_>) {
        if self.flags.watching(Test::Pregreet) {
            self.pass(Test::Pregreet, Stamp::until(turn.now.unix(), self.policy.pregreet.ttl), Grounds::Taken, turn);
        }
        if self.flags.fail.has(Test::Pregreet) && self.action(Test::Pregreet) == Action::Ignore {
            self.ignore_failure(Test::Pregreet);
        }
        self.end_look_up(turn);
        if self.flags.todo.has(Test::Dnsbl) && !self.decide_dnsbl(turn) {
            return;
        }
        self.spare_deep(turn);
        self.begin_deep(turn);
    }

    /// What comes after the early tests. Who was spared something has nothing to gain by further tests.
    pub(super) fn begin_deep(&mut self, turn: &mut Turn<'_>) {
        let deep_left = self.flags.todo.and(TestSet::DEEP).without(self.flags.pass);
        if self.flags.no_forward || !deep_left.is_empty() && self.objection.is_none() {
            self.start_engine(false, turn);
        } else {
            self.conclude(turn);
        }
    }

    /// Goes by the answers that are there. Returns whether the session goes on.
    fn decide_dnsbl(&mut self, turn: &mut Turn<'_>) -> bool {
        if !self.flags.done.has(Test::Dnsbl) {
            self.collect(turn);
        }
        let Some(Judgement { score, blocked, ttl, .. }) = self.judge() else {
            return true;
        };
        if !blocked {
            self.pass(Test::Dnsbl, Stamp::until(turn.now.unix(), ttl), Grounds::Taken, turn);
            return true;
        }
        self.log_failure(Test::Dnsbl, LogLine::DnsblRank { client: self.endpoints.client, score }, turn);
        let listed = self.listed_by();
        self.note_failure(Test::Dnsbl, &format!("score {score}, {listed}"), turn);
        match self.action(Test::Dnsbl) {
            Action::Drop => {
                self.drop_failed(Reply::Listed, Life::Listing(ttl), turn);
                return false;
            }
            Action::Enforce => self.hold_back(self.reason, Some(RecipientReply::Listed)),
            Action::Ignore => self.ignore_failure(Test::Dnsbl),
        }
        true
    }
}
