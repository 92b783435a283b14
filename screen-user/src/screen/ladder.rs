//! The decision ladder: what is decided about a connection at once (spec 1.5 to 1.8).

use super::{
    event::{Effect, Endpoints, Now, Standing},
    flags::TestSet,
    found::{Memory, Stood},
    log::LogLine,
    outcome::Reason,
    policy::Action,
    reply::{RecipientReply, Reply},
    session::{Session, Turn},
    shared::{Screen, Source},
};

impl Screen {
    /// Opens the session of a new connection, and returns it with the first effects. The session may have ended already.
    pub fn open(&mut self, endpoints: Endpoints, standing: Standing, now: Now) -> (Session, Vec<Effect>) {
        self.open_for(endpoints, standing, Stood::default, now)
    }

    /// As [`Screen::open`]; where it is kept what a session finds, `stood` says which list has the client.
    #[expect(clippy::needless_pass_by_value, reason = "a standing is made for one connection and is used up by it")]
    pub fn open_for(
        &mut self,
        endpoints: Endpoints,
        standing: Standing,
        stood: impl FnOnce() -> Stood,
        now: Now,
    ) -> (Session, Vec<Effect>) {
        let mut session = Session::new(endpoints, self.policy(), now);
        let mut turn = Turn::new(self, now);
        turn.log(LogLine::Connect { client: endpoints.client, server: endpoints.server });
        let (stress, connections) = turn.screen.enter(session.client);
        if let Some(line) = stress {
            turn.log(line);
        }
        session.found = turn.screen.beginning(connections, stood);
        session.decide(&standing, connections, &mut turn);
        (session, turn.effects)
    }
}

impl Session {
    /// Spec 1.6, rung by rung. `connections` is how many sessions the client has, this one included.
    fn decide(&mut self, standing: &Standing, connections: u32, turn: &mut Turn<'_>) {
        let client = self.endpoints.client;
        let limits = self.policy.limits;
        if limits.client_connections > 0 && connections > limits.client_connections {
            self.log_objection(LogLine::TooManyConnections { client }, turn);
            if !self.is_spared(Reason::TooManyConnections) {
                return self.turn_away(Reason::TooManyConnections, Reply::TooManyConnections, turn);
            }
        }
        // In a dry run, too: more clients than that wait for a mail server only if it can't take them.
        if limits.post_queue > 0 && turn.screen.forwarding() >= limits.post_queue {
            turn.log(LogLine::ServerPortsBusy { client });
            self.reason = Reason::ServerPortsBusy;
            return self.drop_with(Reply::ServerPortsBusy, turn);
        }
        let style = self.policy.log_style;
        match standing {
            Standing::Allowed => {
                turn.log(LogLine::Allowlisted { client, style });
                self.reason = Reason::Allowlisted;
                return self.conclude(turn);
            }
            // Whoever barred the client meant it: `access.denylist_action` is about the access list.
            Standing::Barred => {
                self.log_objection(LogLine::Denylisted { client, style }, turn);
                return self.turn_away(Reason::Barred, Reply::Denied, turn);
            }
            Standing::Denied => {
                let line = LogLine::Denylisted { client, style };
                match self.policy.denylist_action {
                    Action::Drop => {
                        self.log_objection(line, turn);
                        self.flags.denied = true;
                        return self.turn_away(Reason::Denied, Reply::Denied, turn);
                    }
                    Action::Enforce => {
                        self.log_objection(line, turn);
                        self.flags.denied = true;
                        self.reason = Reason::Denied;
                        self.hold_back(Reason::Denied, Some(RecipientReply::Denied));
                    }
                    Action::Ignore => turn.log(line),
                }
            }
            Standing::Unlisted => {}
        }
        if self.choose_tests(turn) {
            self.reason = Reason::Known;
            return self.conclude(turn);
        }
        if !self.policy.allowlist_addresses.contains(self.endpoints.server.ip()) {
            self.log_objection(LogLine::Veto { client, style }, turn);
            self.flags.vetoed = true;
            self.hold_back(Reason::Vetoed, None);
            if self.reason == Reason::None {
                self.reason = Reason::Vetoed;
            }
        }
        if limits.pre_queue > 0 && turn.screen.screening() >= limits.pre_queue {
            self.log_objection(LogLine::ScreeningPortsBusy { client }, turn);
            return self.turn_away(Reason::ScreeningPortsBusy, Reply::ScreeningPortsBusy, turn);
        }
        if !self.flags.todo.and(TestSet::EARLY).is_empty() {
            return self.start_early(turn);
        }
        self.spare_deep(turn);
        self.begin_deep(turn);
    }

    /// Turns the client away; in a dry run it goes to the mail server without any test.
    fn turn_away(&mut self, reason: Reason, reply: Reply, turn: &mut Turn<'_>) {
        self.reason = reason;
        if self.is_spared(reason) {
            return self.conclude(turn);
        }
        self.drop_with(reply, turn);
    }

    /// Finds out which tests the client has to take, and returns whether it is known to be good (spec 1.8).
    ///
    /// Other sessions of the same client share what they have learnt. A client that has proved itself in one of them is as good as a
    /// remembered one, but for the line in the log; postscreen vetoes it and counts it in as if it were a stranger (spec B.11).
    fn choose_tests(&mut self, turn: &mut Turn<'_>) -> bool {
        let suspect = self.flags.any_fail();
        let known = turn.screen.look_up(self.client, suspect || !self.policy.remember_results);
        if let Some(found) = &mut self.found {
            found.known = Some(Memory::of(&known.record, known.source));
        }
        let unix = turn.now.unix();
        self.flags.todo = self.policy.enabled().filter(|&test| !known.record.stamp(test).is_valid(unix)).collect();
        self.flags.new = known.record.is_new();
        let good = !suspect && self.flags.todo.is_empty();
        match known.source {
            Source::Memory if good => turn.log(LogLine::PassOld { client: self.endpoints.client }),
            Source::OtherSession if good && known.record.has_pass() => {}
            Source::Nowhere | Source::Memory | Source::OtherSession => return false,
        }
        true
    }
}
