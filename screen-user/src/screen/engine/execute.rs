//! What one command line leads to (spec 4.3, 4.4, 4.8).

use super::{
    Engine, address,
    command::{UNKNOWN, Verb, word},
    line::Line,
    replay::Recipient,
};
use crate::screen::{
    event::{Effect, Interest},
    log::{LimitReached, LogLine, RejectRcpt},
    policy::TlsLevel,
    reply::{Reply, soften},
    session::{Session, State, Turn},
    shared::TlsState,
    text::{external_address, head, is_utf8, printable},
};

impl Session {
    /// Spec 4.3, step by step. `rest` is what came behind the line in the same read.
    pub(super) fn line(&mut self, line: &Line<'_>, rest: &[u8], turn: &mut Turn<'_>) {
        if !self.test_newline(line, turn) {
            return;
        }
        let rewritten = self.rewrite(line.command(), turn);
        let text = rewritten.as_deref().unwrap_or_else(|| line.command());
        let (verb, arguments) = word(text);
        let known = Verb::of(verb);
        let Some(engine) = &mut self.engine else {
            return;
        };
        let previous = std::mem::replace(&mut engine.last, known.map_or(UNKNOWN, Verb::name));
        if engine.farewell && known != Some(Verb::Quit) {
            return self.drop_with(self.final_reply, turn);
        }
        if known.is_none() && !self.test_verb(verb, arguments, previous, turn) {
            return;
        }
        if !self.test_pipelining(verb, known, rest, turn) {
            return;
        }
        if known == Some(Verb::Rcpt) {
            self.pass_deep(turn);
        }
        if self.is_dry() && !self.agrees(known, arguments, turn) {
            self.state = State::Replaying;
            return;
        }
        // The engine is taken out while a command runs, so that the command can use the session as well.
        let Some(mut engine) = self.engine.take() else {
            return;
        };
        engine.commands = engine.commands.saturating_add(1);
        if engine.commands > self.policy.smtp.command_count_limit && known != Some(Verb::Quit) {
            engine.last = previous;
            self.engine = Some(engine);
            return self.reach(LimitReached::CommandCount, turn);
        }
        let ending = self.execute(known, arguments, &mut engine, turn);
        self.engine = Some(engine);
        if let Some(reply) = ending {
            self.drop_with(reply, turn);
        }
    }

    /// The line as the first matching rule of `smtp.command_rewrite` makes it. Postfix's pattern is tried on the line without leading blanks.
    fn rewrite(&self, line: &[u8], turn: &mut Turn<'_>) -> Option<Vec<u8>> {
        let rules = &self.policy.smtp.command_rewrite;
        let utf8 = self.policy.smtp.smtputf8;
        if rules.is_empty() || (utf8 && !is_utf8(line)) {
            return None;
        }
        let start = line.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
        let old = line.get(start..).unwrap_or_default();
        let (captures, replacement) = rules
            .iter()
            .find_map(|(pattern, replacement)| pattern.captures(old).map(|captures| (captures, replacement)))?;
        let mut new = Vec::with_capacity(old.len());
        captures.expand(replacement.as_bytes(), &mut new);
        turn.log(LogLine::ReplacedCommand {
            client: self.endpoints.client,
            old: printable(head(old), utf8).into(),
            new: printable(head(&new), utf8).into(),
        });
        Some(new)
    }

    /// Whether the dummy engine has nothing against a command. In a dry run all others are the mail server's to answer.
    fn agrees(&self, verb: Option<Verb>, arguments: &[u8], turn: &Turn<'_>) -> bool {
        let (Some(verb), Some(engine)) = (verb, &self.engine) else { return false };
        if self.policy.tls == TlsLevel::Encrypt && !engine.tls && needs_tls(verb) {
            return false;
        }
        match verb {
            Verb::Helo | Verb::Ehlo => !word(arguments).0.is_empty(),
            Verb::StartTls => {
                let tls = turn.screen.tls();
                word(arguments).0.is_empty() && tls == TlsState::Usable && self.offers_starttls(engine.tls, tls)
            }
            Verb::Mail => {
                let introduced = engine.helo.is_some() || !self.policy.smtp.helo_required;
                introduced && engine.sender.is_none() && address::extract(arguments).is_some()
            }
            Verb::Rcpt => engine.sender.is_some() && address::extract(arguments).is_some(),
            Verb::Rset | Verb::Noop | Verb::Quit => true,
            Verb::Data | Verb::Bdat | Verb::Vrfy | Verb::Etrn | Verb::XClient | Verb::XForward | Verb::Auth => false,
        }
    }

    /// Runs one command. Returns the last reply if the command ends the session.
    fn execute(
        &mut self,
        verb: Option<Verb>,
        arguments: &[u8],
        engine: &mut Engine,
        turn: &mut Turn<'_>,
    ) -> Option<Reply> {
        let Some(verb) = verb else {
            self.say("502 5.5.2 Error: command not recognized", turn);
            return None;
        };
        if self.policy.tls == TlsLevel::Encrypt && !engine.tls && needs_tls(verb) {
            self.say("530 5.7.0 Must issue a STARTTLS command first", turn);
            return None;
        }
        match verb {
            Verb::Helo => self.helo(arguments, engine, turn),
            Verb::Ehlo => self.ehlo(arguments, engine, turn),
            Verb::StartTls => self.starttls(arguments, engine, turn),
            Verb::Mail => self.mail(arguments, engine, turn),
            Verb::Rcpt => self.rcpt(arguments, engine, turn),
            Verb::Data => return Some(self.data(arguments, engine, turn)),
            Verb::Bdat => return Some(self.bdat(arguments, engine, turn)),
            Verb::Rset => {
                engine.sender = None;
                self.say("250 2.0.0 Ok", turn);
            }
            Verb::Noop => self.say("250 2.0.0 Ok", turn),
            Verb::Vrfy => self.vrfy(arguments, turn),
            Verb::Etrn => self.etrn(arguments, engine, turn),
            Verb::Quit => return Some(Reply::Bye),
            Verb::XClient | Verb::XForward | Verb::Auth => self.say("502 5.5.2 Error: command not recognized", turn),
        }
        None
    }

    fn helo(&self, arguments: &[u8], engine: &mut Engine, turn: &mut Turn<'_>) {
        let (name, _) = word(arguments);
        if name.is_empty() {
            return self.say("501 Syntax: HELO hostname", turn);
        }
        engine.hello = "HELO";
        engine.helo = Some(name.into());
        engine.sender = None;
        self.say(&format!("250 {}", self.policy.hostname), turn);
    }

    fn ehlo(&mut self, arguments: &[u8], engine: &mut Engine, turn: &mut Turn<'_>) {
        let (name, _) = word(arguments);
        if name.is_empty() {
            return self.say("501 Syntax: EHLO hostname", turn);
        }
        engine.hello = "EHLO";
        engine.helo = Some(name.into());
        engine.sender = None;
        engine.esmtp = true;
        self.announce(engine, turn);
    }

    fn mail(&self, arguments: &[u8], engine: &mut Engine, turn: &mut Turn<'_>) {
        if self.policy.smtp.helo_required && engine.helo.is_none() {
            return self.say("503 5.5.1 Error: send HELO/EHLO first", turn);
        }
        if engine.sender.is_some() {
            return self.say("503 5.5.1 Error: nested MAIL command", turn);
        }
        let Some(sender) = address::extract(arguments) else {
            return self.say("501 5.5.4 Syntax: MAIL FROM:<address>", turn);
        };
        engine.sender = Some(sender);
        engine.mail = arguments.into();
        self.say("250 2.1.0 Ok", turn);
    }

    fn rcpt(&mut self, arguments: &[u8], engine: &mut Engine, turn: &mut Turn<'_>) {
        if engine.sender.is_none() {
            return self.say("503 5.5.1 Error: need MAIL command", turn);
        }
        let Some(recipient) = address::extract(arguments) else {
            return self.say("501 5.5.4 Syntax: RCPT TO:<address>", turn);
        };
        if self.goes_on(engine) {
            engine.waiting =
                Some(Recipient { address: recipient, arguments: arguments.into(), behind: Box::default() });
            self.state = State::Replaying;
            return;
        }
        self.reject_recipient(&recipient, engine, turn);
    }

    pub(super) fn reject_recipient(&self, recipient: &[u8], engine: &mut Engine, turn: &mut Turn<'_>) {
        engine.recipients = engine.recipients.saturating_add(1);
        let sender = engine.sender.as_deref().unwrap_or_default();
        let utf8 = self.policy.smtp.smtputf8;
        let reply = self.recipient_reply.text(self.endpoints.client, self.dnsbl_name());
        turn.log(LogLine::RejectRcpt(Box::new(RejectRcpt {
            client: self.endpoints.client,
            reply: soften(&reply, self.policy.smtp.soft_bounce).into_owned(),
            sender: printable(&external_address(sender), utf8),
            recipient: printable(&external_address(recipient), utf8),
            esmtp: engine.esmtp,
            helo: printable(engine.helo.as_deref().unwrap_or_default(), utf8),
        })));
        self.say(&reply, turn);
    }

    fn data(&self, arguments: &[u8], engine: &Engine, turn: &mut Turn<'_>) -> Reply {
        turn.log(LogLine::WithoutRcpt { client: self.endpoints.client, verb: "DATA" });
        if !word(arguments).0.is_empty() {
            Reply::DataSyntax
        } else if engine.sender.is_none() {
            Reply::NeedRcpt
        } else {
            Reply::NoValidRecipients
        }
    }

    fn bdat(&self, arguments: &[u8], engine: &Engine, turn: &mut Turn<'_>) -> Reply {
        turn.log(LogLine::WithoutRcpt { client: self.endpoints.client, verb: "BDAT" });
        if engine.discarded.has("CHUNKING") {
            Reply::NotImplemented
        } else if word(arguments).0.is_empty() {
            Reply::BdatSyntax
        } else if engine.sender.is_none() {
            Reply::NeedMail
        } else {
            Reply::NoValidRecipients
        }
    }

    fn vrfy(&self, arguments: &[u8], turn: &mut Turn<'_>) {
        if word(arguments).0.is_empty() {
            self.say("501 5.5.4 Syntax: VRFY address", turn);
        } else if self.policy.smtp.disable_vrfy {
            self.say("502 5.5.1 VRFY command is disabled", turn);
        } else {
            let reply = self.recipient_reply.text(self.endpoints.client, self.dnsbl_name());
            self.say(&reply, turn);
        }
    }

    fn etrn(&self, arguments: &[u8], engine: &Engine, turn: &mut Turn<'_>) {
        if self.policy.smtp.helo_required && engine.helo.is_none() {
            self.say("503 5.5.1 Error: send HELO/EHLO first", turn);
        } else if word(arguments).0.is_empty() {
            self.say("500 Syntax: ETRN domain", turn);
        } else {
            self.say("458 Unable to queue messages", turn);
        }
    }

    /// Spec 4.8.
    fn starttls(&mut self, arguments: &[u8], engine: &mut Engine, turn: &mut Turn<'_>) {
        if !word(arguments).0.is_empty() {
            return self.say("501 5.5.4 Syntax: STARTTLS", turn);
        }
        if engine.tls {
            return self.say("554 5.5.1 Error: TLS already active", turn);
        }
        if !self.offers_starttls(engine.tls, turn.screen.tls()) {
            return self.say("502 5.5.1 Error: command not implemented", turn);
        }
        if turn.screen.tls() == TlsState::Broken {
            return self.say("454 4.7.0 TLS not available due to local problem", turn);
        }
        self.say("220 2.0.0 Ready to start TLS", turn);
        // The client has to introduce itself again (RFC 3207 section 4.2).
        engine.helo = None;
        engine.sender = None;
        self.state = State::Handshake;
        turn.push(Effect::Watch(Interest::Nothing));
        turn.push(Effect::StartTls);
        self.arm(self.policy.smtp.command_time_limit.get(turn.screen.stress()), turn);
    }
}

/// Commands that wait for TLS where it is demanded; HELO is allowed as RFC 3207 section 4 asks for.
const fn needs_tls(verb: Verb) -> bool {
    match verb {
        Verb::Helo
        | Verb::Ehlo
        | Verb::StartTls
        | Verb::Noop
        | Verb::Quit
        | Verb::XClient
        | Verb::XForward
        | Verb::Auth => false,
        Verb::Mail | Verb::Rcpt | Verb::Data | Verb::Bdat | Verb::Rset | Verb::Vrfy | Verb::Etrn => true,
    }
}
