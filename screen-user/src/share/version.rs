//! Which of two findings is the later one, among hosts whose clocks differ.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The bits of a version that count what happens within a millisecond.
const COUNTER_BITS: u32 = 16;

/// How far ahead of a host's clock a version may be that it believes, where clocks are as wrong as by a time zone. What came from further
/// ahead would be the latest word for as long, and everybody carried along who heard it. `redis/merge.lua` has the same bound.
const FURTHEST_AHEAD: Duration = Duration::from_hours(24);

/// When something was learnt: a hybrid logical clock, milliseconds of Unix time and a counter. The greater is the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// Of what was never learnt.
    pub const NONE: Self = Self(0);
    /// Of what was learnt before there were versions: whatever else is known is later.
    pub const OLDEST: Self = Self(1);

    /// The first version of a millisecond of Unix time.
    #[must_use]
    pub const fn at(unix_millis: u64) -> Self {
        Self(unix_millis.saturating_mul(1 << COUNTER_BITS))
    }

    /// Whether a host believes it, at `unix_millis` by its own clock.
    #[must_use]
    pub fn is_believed(self, unix_millis: u64) -> bool {
        let furthest = unix_millis.saturating_add(u64::try_from(FURTHEST_AHEAD.as_millis()).unwrap_or(u64::MAX));
        self <= Self::at(furthest)
    }

    /// Its time, in milliseconds of Unix time, by the clock of the host that learnt it.
    #[must_use]
    pub const fn unix_millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }
}

/// Gives versions, each greater than the ones before and than those heard from others.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// The version of something that happens now, in milliseconds of Unix time.
    pub fn next(&self, unix_millis: u64) -> Version {
        let after = |last: u64| match Version(last).is_believed(unix_millis) {
            true => Version::at(unix_millis).0.max(last.saturating_add(1)),
            // This host's own clock was far ahead, and was put right.
            false => Version::at(unix_millis).0,
        };
        let last = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(after(last)));
        Version(after(last.unwrap_or_else(|last| last)))
    }

    /// Notes what another host has given out, so that what happens here from now on counts as later. Returns whether it is believed.
    pub fn hear(&self, version: Version, unix_millis: u64) -> bool {
        let believed = version.is_believed(unix_millis);
        if believed {
            self.0.fetch_max(version.0, Ordering::AcqRel);
        }
        believed
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Item, *};

    #[test]
    fn what_happens_later_has_the_greater_version_whatever_the_clock_does() {
        let clock = Clock::default();
        let mut last = Version::NONE;
        for now in [1000, 1000, 1001, 900, 900, 5000] {
            let version = clock.next(now);
            assert!(version > last, "{now}");
            last = version;
        }
        assert_eq!(last.unix_millis(), 5000);
    }

    #[test]
    fn what_was_heard_is_earlier_than_what_follows() {
        let clock = Clock::default();
        let heard = Version::at(60_000);
        assert!(clock.hear(heard, 1000));
        assert!(clock.next(1000) > heard);
        // Unless it comes from a clock that is plainly wrong.
        let wrong = Version::at(1000 + 86_400_001);
        assert!(!clock.hear(wrong, 1000));
        assert!(clock.next(1000) < wrong);
    }

    #[test]
    fn a_clock_that_was_far_ahead_and_is_put_right_gives_the_right_time() {
        let clock = Clock::default();
        let year = 365 * 86_400_000;
        assert_eq!(clock.next(year + 1000).unix_millis(), year + 1000);
        assert_eq!(clock.next(1000).unix_millis(), 1000);
        assert_eq!(clock.next(900).unix_millis(), 1000, "what is put back by less does not turn the order round");
    }

    /// A host, and by how many milliseconds its clock is ahead.
    struct Host {
        ahead: i64,
        clock: Clock,
        known: Item,
    }

    impl Host {
        fn now(&self, true_millis: u64) -> u64 {
            true_millis.saturating_add_signed(self.ahead)
        }

        /// What it learns, which is of use for a minute.
        fn learns(&mut self, what: u8, true_millis: u64) -> Item {
            let now = self.now(true_millis);
            let word = Item::of_one("", self.clock.next(now), now / 1000 + 60, vec![what]);
            self.known.merge(&word);
            word
        }

        fn hears(&mut self, word: &Item, true_millis: u64) {
            if self.clock.hear(word.version(), self.now(true_millis)) {
                self.known.merge(word);
            }
        }
    }

    /// What each of three hosts takes for the last word, and for how many seconds from the start, after they have spoken in `turns`, a
    /// second apart, and heard each other.
    fn last_words(ahead: [i64; 3], turns: &[usize]) -> [(u8, i64); 3] {
        let start = 1_000_000_000_000;
        let mut hosts = ahead.map(|ahead| Host { ahead, clock: Clock::default(), known: Item::default() });
        for (number, &speaker) in (0_u8..).zip(turns) {
            let now = start + u64::from(number) * 1000;
            let word = hosts[speaker].learns(number, now);
            hosts.iter_mut().for_each(|host| host.hears(&word, now));
        }
        let ends = |item: &Item| item.expires().cast_signed() - (start / 1000).cast_signed();
        hosts.map(|host| (host.known.payload().unwrap()[0], ends(&host.known)))
    }

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_host_an_hour_off_has_the_last_word_only_when_it_speaks_last() {
        for ahead in [[HOUR, 0, 0], [-HOUR, 0, 0], [HOUR, -HOUR, 0]] {
            for turns in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
                let expires = 2 + 60 + ahead[turns[2]] / 1000;
                assert_eq!(last_words(ahead, &turns), [(2, expires); 3], "{ahead:?} {turns:?}");
            }
        }
    }

    #[test]
    fn a_host_far_ahead_is_not_believed_and_one_far_behind_does_no_harm() {
        let year = 365 * 24 * HOUR;
        let [wrong, right, other] = last_words([year, 0, 0], &[1, 0, 2, 0]);
        assert_eq!([right, other], [(2, 62); 2], "as if it had said nothing");
        assert_eq!(wrong.0, 3);
        let [wrong, right, other] = last_words([-year, 0, 0], &[1, 0, 2, 0]);
        assert_eq!([right, other], [(2, 62); 2], "what it says is older than what is known");
        assert_eq!(wrong.0, 3);
    }
}
