//! The dummy SMTP engine: it speaks SMTP, never accepts mail, and runs the tests after the greeting (spec 4).

mod address;
mod command;
mod ehlo;
mod execute;
mod line;
mod replay;
mod tests_of_lines;

use super::{
    event::{Effect, Event, Interest},
    flags::TestSet,
    keywords::Keywords,
    log::LimitReached,
    outcome::SmtpEvidence,
    policy::Policy,
    record::Test,
    session::{Due, Session, State, Turn},
    shared::TlsState,
    text::{head, printable},
};

use self::{
    line::{Lines, Step},
    replay::Recipient,
};

/// What the dummy engine knows of a session.
#[derive(Debug)]
pub(super) struct Engine {
    lines: Lines,
    /// The name of the last known command, in log lines' words.
    pub(super) last: &'static str,
    /// Only the final reply is left to say: to the next command, whatever it is (spec 5.5).
    farewell: bool,
    esmtp: bool,
    tls: bool,
    /// The last of HELO and EHLO.
    hello: &'static str,
    helo: Option<Box<[u8]>>,
    sender: Option<Box<[u8]>>,
    /// What followed the verb of the MAIL that gave the sender.
    mail: Box<[u8]>,
    /// The recipient that the mail server is asked about.
    waiting: Option<Recipient>,
    /// The mail server was asked, and did not answer.
    sent_back: bool,
    /// What the last EHLO reply left out.
    discarded: Keywords,
    commands: u32,
    recipients: u32,
    bytes: u64,
}

impl Engine {
    pub(super) fn kept_bytes(&self) -> usize {
        let length = |text: &Option<Box<[u8]>>| text.as_ref().map_or(0, |text| text.len());
        let waiting = self.waiting.as_ref().map_or(0, Recipient::kept_bytes);
        self.lines.kept_bytes() + length(&self.helo) + length(&self.sender) + self.mail.len() + waiting
    }

    pub(super) fn evidence(&self, policy: &Policy) -> SmtpEvidence {
        SmtpEvidence {
            bytes: self.bytes,
            commands: self.commands,
            recipients: self.recipients,
            tls: self.tls,
            helo: printable(head(self.helo.as_deref().unwrap_or_default()), policy.smtp.smtputf8).into(),
        }
    }
}

impl Session {
    /// Spec 4.1. With `farewell`, the engine only completes the greeting and answers one command.
    pub(super) fn start_engine(&mut self, farewell: bool, turn: &mut Turn<'_>) {
        self.state = State::Engine;
        self.phase_began = turn.now.monotonic;
        if farewell {
            self.flags.todo = self.flags.todo.without(TestSet::DEEP);
        } else if self.flags.any_fail() {
            // A client that has failed something already is looked at in every way, also by tests that are disabled.
            self.flags.todo = self.flags.todo.or(TestSet::DEEP);
        }
        self.engine = Some(Box::new(Engine {
            lines: Lines::default(),
            last: "CONNECT",
            farewell,
            esmtp: false,
            tls: false,
            hello: "",
            helo: None,
            sender: None,
            mail: Box::default(),
            waiting: None,
            sent_back: false,
            discarded: Keywords::default(),
            commands: 0,
            recipients: 0,
            bytes: 0,
        }));
        if !self.flags.fail.has(Test::Pregreet) {
            turn.send(format!("220 {}\r\n", self.policy.banner).into_bytes());
        }
        turn.push(Effect::Watch(Interest::Read));
        self.arm_command_timer(turn);
    }

    fn arm_command_timer(&mut self, turn: &mut Turn<'_>) {
        self.arm(self.policy.smtp.command_time_limit.get(turn.screen.stress()), turn);
    }

    pub(super) fn on_engine(&mut self, event: &Event<'_>, turn: &mut Turn<'_>) {
        match event {
            Event::Received(bytes) => self.received(bytes, turn),
            Event::PeerClosed | Event::WriteFailed => self.hang_up(turn),
            Event::TimerFired => match self.due(turn) {
                Due::Session => self.reach_in_engine(LimitReached::SessionTime, &[], turn),
                Due::Wait => self.reach_in_engine(LimitReached::CommandTime, &[], turn),
                Due::Nothing => {}
            },
            // A zone's late answer corrects what is remembered, not this session.
            Event::Peeked(_) | Event::Dnsbl(_) | Event::TlsEstablished | Event::Forwarded(_) => {}
        }
    }

    pub(super) fn on_handshake(&mut self, event: &Event<'_>, turn: &mut Turn<'_>) {
        match event {
            Event::TlsEstablished => {
                self.state = State::Engine;
                if let Some(engine) = &mut self.engine {
                    engine.tls = true;
                }
                turn.push(Effect::Watch(Interest::Read));
                self.arm_command_timer(turn);
            }
            Event::PeerClosed | Event::WriteFailed => self.hang_up(turn),
            // Between two layers nothing can be said; to SMTP, the client has gone.
            Event::TimerFired => match self.due(turn) {
                Due::Session | Due::Wait => self.hang_up(turn),
                Due::Nothing => {}
            },
            Event::Received(_) | Event::Peeked(_) | Event::Dnsbl(_) | Event::Forwarded(_) => {}
        }
    }

    /// One read.
    fn received(&mut self, bytes: &[u8], turn: &mut Turn<'_>) {
        let Some(engine) = &mut self.engine else {
            return;
        };
        engine.bytes = engine.bytes.saturating_add(bytes.len() as u64);
        let limit = self.policy.smtp.session_byte_limit;
        if limit > 0 && engine.bytes > limit {
            return self.reach_in_engine(LimitReached::SessionBytes, bytes, turn);
        }
        self.process(bytes, turn);
    }

    /// Ends the session at one of its limits, or, where nobody is turned away, has it go on with the input that is not processed.
    fn reach_in_engine(&mut self, limit: LimitReached, input: &[u8], turn: &mut Turn<'_>) {
        self.reach(limit, turn);
        if self.state == State::Replaying {
            let unfinished = self.engine.as_ref().map_or(&[][..], |engine| engine.lines.unfinished());
            self.replay(&[unfinished, input].concat(), turn);
        }
    }

    /// Every complete line is processed, a partial one is kept.
    fn process(&mut self, bytes: &[u8], turn: &mut Turn<'_>) {
        let Some(engine) = &mut self.engine else {
            return;
        };
        // Lines may borrow from what is kept, while commands change the rest of the engine.
        let mut lines = std::mem::take(&mut engine.lines);
        let mut rest = bytes;
        let mut completed = false;
        while self.state == State::Engine {
            match lines.next(&mut rest, self.policy.smtp.line_length_limit) {
                Step::Line(line) => {
                    completed = true;
                    self.line(&line, rest, turn);
                    if self.state == State::Replaying && !self.waits_for_answer() {
                        return self.replay(&[line.whole, rest].concat(), turn);
                    }
                }
                Step::TooLong => {
                    self.reach(LimitReached::CommandLength, turn);
                    if self.state == State::Replaying {
                        return self.replay(&[lines.unfinished(), rest].concat(), turn);
                    }
                }
                Step::NeedMore => break,
            }
        }
        if self.state == State::Replaying {
            return self.replay(rest, turn);
        }
        // What came before a handshake is not kept past it: it must not be taken for something that came through TLS (RFC 3207 section 4.2).
        if let Some(engine) = &mut self.engine
            && self.state == State::Engine
        {
            engine.lines = lines;
            if completed {
                self.arm_command_timer(turn);
            }
        }
    }

    /// Whether STARTTLS is announced in this session.
    fn offers_starttls(&self, tls_active: bool, tls: TlsState) -> bool {
        self.policy.tls != super::policy::TlsLevel::None && tls != TlsState::Absent && !tls_active
    }
}
