//! The EHLO reply, and which keywords are left out of it (spec 4.4.1).

use std::fmt::Write as _;

use super::Engine;
use crate::screen::{
    extensions::Extensions,
    keywords::Keywords,
    log::LogLine,
    session::{Session, Turn},
};

const SILENT_DISCARD: &str = "SILENT-DISCARD";

impl Session {
    /// What is left out for this client: its own set if its network has one, else the general one.
    fn discarded(&self, turn: &mut Turn<'_>) -> Keywords {
        let smtp = &self.policy.smtp;
        let set = |words: &[String]| Keywords::of(words.iter().map(String::as_str));
        let general = set(&smtp.discard_ehlo_keywords);
        let address = self.endpoints.client.ip();
        let own = smtp.discard_ehlo_keywords_by_client.iter().find(|(net, _)| net.contains(&address));
        let Some(own) = own.map(|(_, words)| set(words)).filter(|&own| own != general) else {
            return general;
        };
        if !own.is_empty() && !own.has(SILENT_DISCARD) {
            turn.log(LogLine::DiscardedKeywords { client: self.endpoints.client, words: own.words().into() });
        }
        own
    }

    /// Answers EHLO.
    pub(super) fn announce(&mut self, engine: &mut Engine, turn: &mut Turn<'_>) {
        engine.discarded = self.discarded(turn);
        let starttls = self.offers_starttls(engine.tls, turn.screen.tls());
        let policy = &self.policy;
        // Whoever may go on to the mail server is promised what that keeps: nothing, as long as nobody knows. TLS ends here.
        let kept = if self.goes_on(engine) { turn.screen.extensions() } else { Extensions::ALL };
        let size = match kept.size_within(policy.smtp.message_size_limit) {
            0 => String::from("SIZE"),
            limit => format!("SIZE {limit}"),
        };
        let announced = [
            ("SIZE", size.as_str(), kept.announce("SIZE")),
            ("VRFY", "VRFY", !policy.smtp.disable_vrfy && kept.announce("VRFY")),
            ("ETRN", "ETRN", kept.announce("ETRN")),
            ("STARTTLS", "STARTTLS", starttls),
            ("ENHANCEDSTATUSCODES", "ENHANCEDSTATUSCODES", kept.announce("ENHANCEDSTATUSCODES")),
            ("8BITMIME", "8BITMIME", kept.announce("8BITMIME")),
            ("DSN", "DSN", kept.announce("DSN")),
            ("SMTPUTF8", "SMTPUTF8", policy.smtp.smtputf8 && kept.announce("SMTPUTF8")),
            ("CHUNKING", "CHUNKING", kept.announce("CHUNKING")),
        ];
        let mut lines =
            announced.iter().filter(|(keyword, _, on)| *on && !engine.discarded.has(keyword)).map(|(_, line, _)| *line);
        let mut reply = String::with_capacity(256);
        let mut line = policy.hostname.as_str();
        loop {
            let next = lines.next();
            // Writing to a String cannot fail.
            let _ = write!(reply, "250{}{line}\r\n", if next.is_some() { '-' } else { ' ' });
            match next {
                Some(next) => line = next,
                None => break,
            }
        }
        turn.send(reply.into_bytes());
    }
}
