//! The three tests after the greeting, applied to one line (spec 4.6).

use super::{
    command::{Verb, is_header_like},
    line::Line,
};
use crate::screen::{
    bar::Life,
    log::LogLine,
    policy::{Action, ForbiddenCommands},
    record::{Grounds, Stamp, Test},
    reply::{RecipientReply, Reply},
    session::{Session, Turn},
    text::{escape_head, head, is_utf8, printable},
};

impl Session {
    /// Spec 4.6.1. Returns whether the session goes on.
    pub(super) fn test_newline(&mut self, line: &Line<'_>, turn: &mut Turn<'_>) -> bool {
        if !line.bare_newline || !self.flags.watching(Test::BareNewline) {
            return true;
        }
        let text: Box<str> = escape_head(line.text).into();
        let line = LogLine::BareNewline { client: self.endpoints.client, text: text.clone() };
        self.log_failure(Test::BareNewline, line, turn);
        self.fail_deep(Test::BareNewline, &text, Reply::ProtocolError, turn)
    }

    /// Spec 4.6.2, for a verb that is no command. Returns whether the session goes on.
    pub(super) fn test_verb(
        &mut self,
        verb: &[u8],
        arguments: &[u8],
        after: &'static str,
        turn: &mut Turn<'_>,
    ) -> bool {
        let utf8 = self.policy.smtp.smtputf8;
        if !self.flags.watching(Test::NonSmtpCommand)
            || !(is_header_like(verb) || (utf8 && !is_utf8(verb)) || is_forbidden(&self.policy.forbidden, verb))
        {
            return true;
        }
        let verb: Box<str> = printable(head(verb), utf8).into();
        let rest: Box<str> = escape_head(arguments).into();
        let evidence = format!("{verb} {rest}");
        let line = LogLine::NonSmtpCommand { client: self.endpoints.client, after, verb, rest };
        self.log_failure(Test::NonSmtpCommand, line, turn);
        self.fail_deep(Test::NonSmtpCommand, &evidence, Reply::NotSmtp, turn)
    }

    /// Spec 4.6.3: `rest` is what came in the same read. BDAT may be followed by its data (RFC 3030 section 2). Returns whether the
    /// session goes on.
    pub(super) fn test_pipelining(
        &mut self,
        verb: &[u8],
        known: Option<Verb>,
        rest: &[u8],
        turn: &mut Turn<'_>,
    ) -> bool {
        if rest.is_empty() || known == Some(Verb::Bdat) || !self.flags.watching(Test::Pipelining) {
            return true;
        }
        let verb: Box<str> = printable(head(verb), self.policy.smtp.smtputf8).into();
        let text: Box<str> = escape_head(rest).into();
        let line = LogLine::Pipelining { client: self.endpoints.client, verb, text: text.clone() };
        self.log_failure(Test::Pipelining, line, turn);
        self.fail_deep(Test::Pipelining, &text, Reply::ProtocolError, turn)
    }

    /// What all three have in common: a test fails once in a session. Returns whether the session goes on.
    fn fail_deep(&mut self, test: Test, evidence: &str, reply: Reply, turn: &mut Turn<'_>) -> bool {
        self.note_failure(test, evidence, turn);
        self.flags.pass.remove(test);
        self.flags.done.insert(test);
        turn.screen.set_stamp(self.client, test, Stamp::DISABLED, Grounds::Failed, turn.now);
        match self.action(test) {
            Action::Drop => {
                self.drop_failed(reply, Life::Growing(self.policy.remember_failures), turn);
                return false;
            }
            Action::Enforce if self.is_spared(self.reason) => {
                self.let_in(turn);
                return false;
            }
            Action::Enforce => self.hold_back(self.reason, Some(RecipientReply::ProtocolError)),
            Action::Ignore => {
                self.ignore_failure(test);
                self.pass(test, Stamp::until(turn.now.unix(), self.policy.ignored_for(test)), Grounds::Ignored, turn);
            }
        }
        true
    }

    /// A client that has come as far as RCPT, in whatever state, has passed the deep tests that are not settled (spec 4.5).
    pub(super) fn pass_deep(&mut self, turn: &mut Turn<'_>) {
        for test in [Test::BareNewline, Test::NonSmtpCommand, Test::Pipelining] {
            if self.flags.todo.has(test) && !self.flags.pass.has(test) && !self.flags.fail.has(test) {
                self.pass(test, Stamp::until(turn.now.unix(), self.policy.ttl(test)), Grounds::Taken, turn);
            }
        }
    }
}

fn is_forbidden(forbidden: &ForbiddenCommands, verb: &[u8]) -> bool {
    forbidden.words.iter().any(|word| word.as_bytes().eq_ignore_ascii_case(verb))
        || forbidden.patterns.iter().any(|pattern| pattern.is_match(verb))
}
