//! What mail servers announce in answer to EHLO, as far as the dummy engine repeats it: a client that goes on to them must have been
//! promised nothing that they do not keep.

use super::keywords::Keywords;

/// The extensions that one mail server announces, or several have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extensions {
    keywords: Keywords,
    /// The largest message in bytes; 0: not said.
    size: u64,
}

impl Extensions {
    /// Those of a mail server that announces none.
    pub const NONE: Self = Self { keywords: Keywords::NONE, size: 0 };
    /// Every one, without a limit.
    pub(super) const ALL: Self = Self { keywords: Keywords::ALL, size: 0 };

    /// Those that a reply to EHLO announces; what is no such reply announces none.
    #[must_use]
    pub fn of_reply(reply: &[u8]) -> Self {
        let text = String::from_utf8_lossy(reply);
        // The first line greets.
        let lines = text.lines().skip(1).filter_map(|line| line.strip_prefix("250")?.get(1..));
        let words = lines.clone().filter_map(|line| line.split_ascii_whitespace().next());
        let size = lines
            .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
            .find(|words| words.first().is_some_and(|word| word.eq_ignore_ascii_case("SIZE")))
            .and_then(|words| words.get(1)?.parse().ok());
        Self { keywords: Keywords::of(words), size: size.unwrap_or(0) }
    }

    /// What both announce.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        let size = match (self.size, other.size) {
            (0, size) | (size, 0) => size,
            (one, other) if one < other => one,
            (_, other) => other,
        };
        Self { keywords: self.keywords.and(other.keywords), size }
    }

    /// Whether `keyword` is announced.
    #[must_use]
    pub fn announce(self, keyword: &str) -> bool {
        self.keywords.has(keyword)
    }

    /// The keywords, separated by spaces.
    #[must_use]
    pub fn words(self) -> String {
        self.keywords.words()
    }

    /// The largest message that both they and `limit` allow, in bytes; 0 is no limit.
    pub(super) const fn size_within(self, limit: u64) -> u64 {
        self.and(Self { keywords: Keywords::NONE, size: limit }).size
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const POSTFIX: &[u8] =
        b"250-mx.example.test\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-8bitmime\r\n250 CHUNKING\r\n";

    #[test]
    fn a_reply_is_read_line_by_line() {
        let postfix = Extensions::of_reply(POSTFIX);
        for keyword in ["PIPELINING", "SIZE", "VRFY", "8BITMIME", "CHUNKING"] {
            assert!(postfix.announce(keyword), "{keyword}");
        }
        assert!(!postfix.announce("DSN"));
        assert_eq!(postfix.size_within(0), 10_240_000);
        assert_eq!(postfix.size_within(5), 5);
        assert_eq!(Extensions::of_reply(b"250 SIZE\r\n"), Extensions::NONE, "the first line greets");
        assert_eq!(Extensions::of_reply(b"250-mx\r\n250 SIZE\r\n").size_within(7), 7);
        assert_eq!(Extensions::of_reply(b"502 5.5.2 what?\r\n"), Extensions::NONE);
    }

    #[test]
    fn two_servers_promise_what_both_keep() {
        let other = Extensions::of_reply(b"250-mx\r\n250-SIZE 99\r\n250-DSN\r\n250 8BITMIME\r\n");
        let both = Extensions::of_reply(POSTFIX).and(other);
        assert!(both.announce("SIZE") && both.announce("8BITMIME"));
        assert!(!both.announce("DSN") && !both.announce("CHUNKING"));
        assert_eq!(both.size_within(0), 99);
        assert_eq!(both.and(Extensions::ALL), both);
    }

    proptest! {
        #[test]
        fn no_reply_breaks_the_reader(reply in any::<Vec<u8>>(), limit in 1u64..) {
            let read = Extensions::of_reply(&reply);
            prop_assert_eq!(read.and(read), read);
            prop_assert!(read.size_within(limit) <= limit);
        }
    }
}
