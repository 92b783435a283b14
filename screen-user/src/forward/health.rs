//! Whether a mail server takes clients, as those found it that were sent there.
//!
//! A server that fails is left out for a second, then for two, up to a minute: each time that the pause is over one client tries it, and
//! the others only if that one is served.

use std::time::{Duration, Instant};

/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is known of a listener.
#[derive(Debug)]
pub(super) struct Health {
    state: State,
    since: Instant,
    /// Goes up with each change of `state`: what was begun before has nothing to say of it.
    generation: u64,
}

#[derive(Debug)]
enum State {
    Well,
    LeftOut { pause: Duration, until: Instant, tried: bool, trouble: String },
}

/// A client on its way to the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    generation: u64,
    /// Whether it is the one by which the listener is tried again.
    trial: bool,
}

impl Health {
    /// Nothing bad is known.
    pub(super) fn new(now: Instant) -> Self {
        Self { state: State::Well, since: now, generation: 0 }
    }

    /// Whether the next client may go there: it takes clients, or it is time to try it again and nobody does.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        match &self.state {
            State::Well => true,
            State::LeftOut { until, tried, .. } => now >= *until && !tried,
        }
    }

    /// What is wrong with it, while it is left out.
    pub(super) fn trouble(&self) -> Option<&str> {
        match &self.state {
            State::Well => None,
            State::LeftOut { trouble, .. } => Some(trouble),
        }
    }

    /// When it began to take clients, or to be left out.
    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    /// Sends a client there.
    pub(super) fn begin(&mut self, now: Instant) -> Attempt {
        let mut trial = false;
        if let State::LeftOut { until, tried, .. } = &mut self.state
            && now >= *until
            && !*tried
        {
            *tried = true;
            trial = true;
        }
        Attempt { generation: self.generation, trial }
    }

    /// The client was served. Returns whether the listener had been left out until now.
    pub(super) fn works(&mut self, attempt: Attempt, now: Instant) -> bool {
        let again = attempt.generation == self.generation && self.trouble().is_some();
        if again {
            self.change(State::Well);
            self.since = now;
        }
        again
    }

    /// The client was not served. Returns the pause, if it is another one than before or for another reason.
    pub(super) fn fails(&mut self, attempt: Attempt, trouble: &str, now: Instant) -> Option<Duration> {
        if attempt.generation != self.generation {
            return None;
        }
        let (pause, news) = match &self.state {
            State::Well => {
                self.since = now;
                (FIRST_PAUSE, true)
            }
            State::LeftOut { until, .. } if now < *until => return None,
            State::LeftOut { pause, trouble: before, .. } => {
                let longer = pause.saturating_mul(2).min(LONGEST_PAUSE);
                (longer, longer != *pause || before != trouble)
            }
        };
        self.change(State::LeftOut { pause, until: now + pause, tried: false, trouble: trouble.to_owned() });
        news.then_some(pause)
    }

    /// The client found out nothing.
    pub(super) fn abandon(&mut self, attempt: Attempt) {
        if let State::LeftOut { tried, .. } = &mut self.state
            && attempt.trial
            && attempt.generation == self.generation
        {
            *tried = false;
        }
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.generation = self.generation.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_a_minute_and_each_is_told_once() {
        let mut now = Instant::now();
        let mut health = Health::new(now);
        let told: Vec<_> = (0..9)
            .map(|_| {
                let attempt = health.begin(now);
                let pause = health.fails(attempt, "refused", now);
                now += LONGEST_PAUSE;
                pause.map(|pause| pause.as_secs())
            })
            .collect();
        assert_eq!(told, [Some(1), Some(2), Some(4), Some(8), Some(16), Some(32), Some(60), None, None]);
        let attempt = health.begin(now);
        assert_eq!(health.fails(attempt, "no route", now), Some(LONGEST_PAUSE), "another reason is news");
        now += LONGEST_PAUSE;
        let attempt = health.begin(now);
        assert!(health.works(attempt, now));
        let attempt = health.begin(now);
        assert_eq!(health.fails(attempt, "refused", now), Some(FIRST_PAUSE), "it begins anew");
    }

    #[test]
    fn one_client_tries_it_again() {
        let start = Instant::now();
        let mut health = Health::new(start);
        let attempt = health.begin(start);
        health.fails(attempt, "refused", start);
        assert!(!health.is_ready(start + SECOND / 2));
        let later = start + SECOND;
        assert!(health.is_ready(later));
        let trial = health.begin(later);
        assert!(!health.is_ready(later), "the trial is under way");
        health.abandon(trial);
        assert!(health.is_ready(later), "the trial came to nothing");
        let trial = health.begin(later);
        assert!(health.works(trial, later));
        assert!(health.is_ready(later) && health.trouble().is_none());
    }

    #[test]
    fn what_began_before_a_change_changes_nothing() {
        let start = Instant::now();
        let mut health = Health::new(start);
        let (first, second, third) = (health.begin(start), health.begin(start), health.begin(start));
        assert_eq!(health.fails(first, "refused", start), Some(FIRST_PAUSE));
        assert_eq!(health.fails(second, "refused", start + 2 * SECOND), None);
        assert!(!health.works(third, start) && health.trouble().is_some());
        // Nobody else was there, and it was tried before its time.
        let early = health.begin(start);
        assert_eq!(health.fails(early, "refused", start + SECOND / 2), None);
        let early = health.begin(start);
        assert!(health.works(early, start + SECOND / 2));
    }

    proptest! {
        #[test]
        fn pauses_have_bounds_and_end(events in proptest::collection::vec((any::<bool>(), 0..200_u64), 0..60)) {
            let mut now = Instant::now();
            let mut health = Health::new(now);
            for (works, seconds) in events {
                now += Duration::from_secs(seconds);
                let ready = health.is_ready(now);
                let attempt = health.begin(now);
                prop_assert_eq!(attempt.trial, ready && health.trouble().is_some());
                if works {
                    health.works(attempt, now);
                    prop_assert!(health.is_ready(now));
                } else {
                    let pause = health.fails(attempt, "refused", now);
                    prop_assert!(pause.is_none_or(|pause| (FIRST_PAUSE..=LONGEST_PAUSE).contains(&pause)));
                    prop_assert!(!health.is_ready(now), "nobody goes where somebody has just failed");
                    prop_assert!(health.is_ready(now + LONGEST_PAUSE), "no pause is for ever");
                }
            }
        }
    }
}
