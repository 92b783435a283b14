//! The dry run (`dry_run`): what speaks against a client is found out, logged and remembered, and the client goes to the mail server all
//! the same. The dummy engine says nothing but yes there; what it would refuse is for the mail server to answer.

use super::{
    log::LogLine,
    outcome::Reason,
    policy::Action,
    record::Test,
    reply::RecipientReply,
    session::{Session, State, Turn},
};

impl Session {
    /// Whether nobody is turned away. Who can't get to the mail server has to be.
    pub(super) fn is_dry(&self) -> bool {
        self.policy.dry_run && !self.flags.no_forward
    }

    /// Logs a line that says why the client is turned away, or told to come back.
    pub(super) fn log_objection(&self, line: LogLine, turn: &mut Turn<'_>) {
        turn.log(if self.is_dry() { LogLine::DryRun(Box::new(line)) } else { line });
    }

    /// Logs a line that says how the client failed `test`.
    pub(super) fn log_failure(&self, test: Test, line: LogLine, turn: &mut Turn<'_>) {
        match self.action(test) {
            Action::Ignore => turn.log(line),
            Action::Enforce | Action::Drop => self.log_objection(line, turn),
        }
    }

    /// Whether the client is spared what follows from `reason`. The first one that it is spared is kept: by that its session would be over.
    pub(super) fn is_spared(&mut self, reason: Reason) -> bool {
        if self.is_dry() {
            self.objection.get_or_insert(reason);
        }
        self.is_dry()
    }

    /// Keeps the client from the mail server for `reason`. Its recipients hear `reply`, or else what they would hear already.
    pub(super) fn hold_back(&mut self, reason: Reason, reply: Option<RecipientReply>) {
        if self.is_spared(reason) {
            return;
        }
        self.flags.no_forward = true;
        self.recipient_reply = reply.unwrap_or(self.recipient_reply);
    }

    /// Gives a client that is spared to the mail server. From the dummy engine it goes with the input that is at hand, once the engine has
    /// done with it.
    pub(super) fn let_in(&mut self, turn: &mut Turn<'_>) {
        match self.state {
            State::Early => self.conclude(turn),
            State::Engine => self.state = State::Replaying,
            State::Handshake | State::Forwarding | State::Replaying | State::Ended => {}
        }
    }
}
