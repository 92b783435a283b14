//! Sets of EHLO keywords (RFC 5321 section 4.1.1.1, spec D.3).

use super::policy::EHLO_KEYWORDS as KNOWN;

/// A set of keywords, one bit each in the order of [`KNOWN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Keywords(u16);

impl Keywords {
    /// No keyword.
    pub(super) const NONE: Self = Self(0);
    /// All that are known.
    pub(super) const ALL: Self = Self(u16::MAX);

    /// The known ones among `words`; others are ignored.
    pub(super) fn of<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut set = Self::default();
        words.into_iter().for_each(|word| set.0 |= Self::bit(word));
        set
    }

    fn bit(word: &str) -> u16 {
        KNOWN.iter().position(|known| word.eq_ignore_ascii_case(known)).map_or(0, |index| 1 << index)
    }

    pub(super) fn has(self, keyword: &str) -> bool {
        self.0 & Self::bit(keyword) != 0
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The words, separated by spaces.
    pub(super) fn words(self) -> String {
        KNOWN.into_iter().filter(|known| self.has(known)).collect::<Vec<_>>().join(" ")
    }
}
