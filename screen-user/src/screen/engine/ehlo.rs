//! The EHLO reply, and which keywords are left out of it (spec 4.4.1).

use std::fmt::Write as _;

use super::Engine;
use crate::screen::{
    log::LogLine,
    policy::EHLO_KEYWORDS as KNOWN,
    session::{Session, Turn},
};

const SILENT_DISCARD: &str = "SILENT-DISCARD";

/// A set of keywords, one bit each in the order of [`KNOWN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Keywords(u16);

impl Keywords {
    /// The known ones among `words`; others are ignored.
    fn of(words: &[String]) -> Self {
        let known = |index: usize| {
            KNOWN.get(index).is_some_and(|known| words.iter().any(|word| word.eq_ignore_ascii_case(known)))
        };
        Self((0..KNOWN.len()).filter(|&index| known(index)).fold(0, |bits, index| bits | 1 << index))
    }

    pub(super) fn has(self, keyword: &str) -> bool {
        KNOWN.iter().position(|known| *known == keyword).is_some_and(|index| self.0 & (1 << index) != 0)
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The words, separated by spaces.
    fn words(self) -> String {
        KNOWN.into_iter().filter(|known| self.has(known)).collect::<Vec<_>>().join(" ")
    }
}

impl Session {
    /// What is left out for this client: its own set if its network has one, else the general one.
    fn discarded(&self, turn: &mut Turn<'_>) -> Keywords {
        let smtp = &self.policy.smtp;
        let general = Keywords::of(&smtp.discard_ehlo_keywords);
        let address = self.endpoints.client.ip();
        let own = smtp.discard_ehlo_keywords_by_client.iter().find(|(net, _)| net.contains(&address));
        let Some(own) = own.map(|(_, words)| Keywords::of(words)).filter(|&own| own != general) else {
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
        let size = match policy.smtp.message_size_limit {
            0 => String::from("SIZE"),
            limit => format!("SIZE {limit}"),
        };
        let announced = [
            ("SIZE", size.as_str(), true),
            ("VRFY", "VRFY", !policy.smtp.disable_vrfy),
            ("ETRN", "ETRN", true),
            ("STARTTLS", "STARTTLS", starttls),
            ("ENHANCEDSTATUSCODES", "ENHANCEDSTATUSCODES", true),
            ("8BITMIME", "8BITMIME", true),
            ("DSN", "DSN", true),
            ("SMTPUTF8", "SMTPUTF8", policy.smtp.smtputf8),
            ("CHUNKING", "CHUNKING", true),
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
