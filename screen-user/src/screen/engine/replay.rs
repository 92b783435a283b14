//! A client that has passed the deep tests goes on to the mail server in the middle of its session: its first good RCPT is the mail
//! server's to answer, and so is all that follows. Without a mail server it hears what postscreen says to everybody: come back (spec 4.5).

use super::Engine;
use crate::screen::{
    event::{Effect, Envelope, ForwardResult, Interest},
    outcome::{Reason, Verdict},
    reply::Reply,
    session::{Session, State, Turn},
};

/// A recipient that waits for the mail server's answer.
#[derive(Debug)]
pub(super) struct Recipient {
    pub(super) address: Box<[u8]>,
    /// What followed the verb.
    pub(super) arguments: Box<[u8]>,
    /// What came behind it in the same read.
    pub(super) behind: Box<[u8]>,
}

impl Recipient {
    pub(super) fn kept_bytes(&self) -> usize {
        self.address.len() + self.arguments.len() + self.behind.len()
    }
}

impl Session {
    /// Whether this session's recipients are the mail server's business.
    pub(super) fn goes_on(&self, engine: &Engine) -> bool {
        self.policy.replays && !engine.sent_back && !self.flags.no_forward && !self.flags.any_fail()
    }

    /// Whether the mail server is to answer a recipient.
    pub(super) fn waits_for_answer(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.waiting.is_some())
    }

    /// Asks for the mail server; `behind` came behind the RCPT, or is what the dummy engine leaves to the mail server.
    pub(super) fn replay(&mut self, behind: &[u8], turn: &mut Turn<'_>) {
        let Some(engine) = &mut self.engine else { return };
        if let Some(recipient) = &mut engine.waiting {
            recipient.behind = behind.into();
        }
        let command = |verb: &str, arguments: &[u8]| [verb.as_bytes(), b" ", arguments].concat().into_boxed_slice();
        let envelope = Envelope {
            hello: engine.helo.as_deref().map(|name| command(engine.hello, name)),
            mail: engine.sender.is_some().then(|| command("MAIL", &engine.mail)),
            rcpt: engine.waiting.as_ref().map(|recipient| command("RCPT", &recipient.arguments)),
            behind: behind.into(),
        };
        self.settle(turn);
        turn.screen.begin_forward();
        turn.push(Effect::Watch(Interest::Nothing));
        turn.push(Effect::Replay(Box::new(envelope)));
    }

    /// What became of it.
    pub(in crate::screen) fn replayed(&mut self, result: ForwardResult, turn: &mut Turn<'_>) {
        turn.screen.end_forward();
        match result {
            ForwardResult::Accepted => self.end(Verdict::Forwarded, turn),
            ForwardResult::ClientLeft => self.hang_up(turn),
            // Who is spared everything was on his way to the mail server, whatever he said.
            ForwardResult::Unreachable | ForwardResult::Failed if self.policy.dry_run => {
                self.reason = Reason::NoBackend;
                self.drop_with(Reply::NoSystemResources, turn);
            }
            ForwardResult::Unreachable | ForwardResult::Failed => self.send_back(turn),
        }
    }

    /// Goes on as if nothing had been tried; it is not tried again.
    fn send_back(&mut self, turn: &mut Turn<'_>) {
        self.state = State::Engine;
        self.reason = Reason::NoBackend;
        let Some(mut engine) = self.engine.take() else { return };
        engine.sent_back = true;
        let recipient = engine.waiting.take();
        if let Some(recipient) = &recipient {
            self.reject_recipient(&recipient.address, &mut engine, turn);
        }
        self.engine = Some(engine);
        turn.push(Effect::Watch(Interest::Read));
        self.arm_command_timer(turn);
        if let Some(recipient) = recipient {
            self.process(&recipient.behind, turn);
        }
    }
}
