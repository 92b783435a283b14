//! What a failed test means for a client beyond its session: how long it is denied, and for how long that counts when it fails again.

use std::{sync::PoisonError, time::Duration};

use super::{Gate, unix_now};
use crate::{
    access::runtime::{Entry, Kind, Offence, Origin, Roll, RuntimeLists},
    screen::{
        bar::{Bar, Life},
        record::Client,
    },
    share::HostId,
};

/// How long it is remembered, at least, that a client has failed, after it is let in again.
const REMEMBERED: Duration = Duration::from_hours(24);

/// Most characters of what a client did that are kept.
const EVIDENCE: usize = 200;

impl Gate {
    /// Denies a client that failed a test whose action is `drop`, so that it is not heard again for a while.
    pub fn bar(&self, client: Client, bar: &Bar) {
        let net = client.net();
        let limit = self.config.load().kernel.repeat_limit;
        let evidence: String = bar.evidence.chars().take(EVIDENCE).collect();
        let room = self.revise(Roll::Failure, net, |known| {
            let term = Term::after(known, bar.life, limit, unix_now());
            Some(Entry {
                net,
                kind: Kind::Deny,
                until: Some(term.until),
                reason: format!("{}: {evidence}", bar.test),
                origin: Origin::Failure,
                version: self.next_version(),
                host: self.hosts.name(HostId::THIS).to_string(),
                offence: term.offence,
            })
        });
        if !room {
            self.log.warn(format!("{net}: no room to remember its failure: it is screened again"));
        }
    }

    /// A client that has passed all tests since it was let in again is no repeated offender any more.
    pub(super) fn forgive(&self, client: Client) {
        let known = |lists: &RuntimeLists| lists.get(Roll::Failure, client.net()).is_some();
        // Of nearly all clients there is none: they are not to wait for each other.
        if !known(&self.lists.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        self.revise(Roll::Failure, client.net(), |known| {
            // A session that passes may have begun before the one that failed.
            let entry = known.filter(|entry| !entry.is_live(unix_now()))?;
            let offence = entry.offence.filter(|offence| offence.failures > 0)?;
            // Kept as long as the offence would be, so that it reaches all who know of that.
            let offence = Some(Offence { failures: 0, ..offence });
            Some(Entry { offence, version: self.next_version(), ..entry.clone() })
        });
    }
}

/// What the entry of a client that failed says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Term {
    until: u64,
    offence: Option<Offence>,
}

impl Term {
    /// After a failure at `now`, in Unix seconds, of a client of which `known` was known.
    fn after(known: Option<&Entry>, life: Life, limit: Duration, now: u64) -> Self {
        let live = known.filter(|entry| entry.is_live(now));
        let before = known.and_then(|entry| entry.offence).filter(|offence| live.is_some() || offence.until > now);
        let failures = before.map_or(0, |offence| offence.failures);
        // Who fails in several sessions at a time has failed once.
        let earlier = if live.is_some() { failures.saturating_sub(1) } else { failures };
        let lasts = life.after(earlier, limit);
        let until = now.saturating_add(lasts.as_secs().max(1));
        let offence = match life {
            Life::Listing(_) => before,
            Life::Growing(_) => Some(Offence {
                failures: earlier.saturating_add(1),
                until: until.saturating_add(lasts.max(REMEMBERED).as_secs()),
            }),
        };
        // What it failed before may count for longer.
        Self { until: until.max(live.and_then(|entry| entry.until).unwrap_or(0)), offence }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::Version;

    const DAY: u64 = 86_400;
    const LIMIT: Duration = Duration::from_secs(300);
    const DEED: Life = Life::Growing(Duration::from_secs(60));
    const LISTING: Life = Life::Listing(Duration::from_secs(5));
    const LONG_LISTING: Life = Life::Listing(Duration::from_secs(5000));

    fn entry(term: Term) -> Entry {
        Entry {
            net: "192.0.2.1/32".parse().unwrap(),
            kind: Kind::Deny,
            until: Some(term.until),
            reason: String::new(),
            origin: Origin::Failure,
            version: Version::NONE,
            host: String::new(),
            offence: term.offence,
        }
    }

    /// Failures at these times, one after the other: until when each denies, and how many are counted then.
    fn story<const N: usize>(failures: [(u64, Life); N]) -> [(u64, u32); N] {
        let mut known = None;
        failures.map(|(now, life)| {
            let term = Term::after(known.as_ref(), life, LIMIT, now);
            known = Some(entry(term));
            (term.until, term.offence.map_or(0, |offence| offence.failures))
        })
    }

    #[test]
    fn each_failure_after_the_end_of_the_last_one_doubles_it() {
        let times = [(0, DEED), (60, DEED), (1000, DEED), (2000, DEED), (3000, DEED)];
        assert_eq!(story(times), [(60, 1), (180, 2), (1240, 3), (2300, 4), (3300, 5)]);
    }

    #[test]
    fn it_is_forgotten_a_day_after_the_end() {
        assert_eq!(story([(0, DEED), (60 + DAY - 1, DEED)])[1].1, 2);
        assert_eq!(story([(0, DEED), (60 + DAY, DEED)])[1], (60 + DAY + 60, 1));
        let long = Life::Growing(Duration::from_secs(3 * DAY));
        assert_eq!(Term::after(None, long, LIMIT, 0).offence, Some(Offence { failures: 1, until: 6 * DAY }));
    }

    #[test]
    fn sessions_that_fail_at_one_time_are_one_failure() {
        assert_eq!(story([(0, DEED), (1, DEED), (2, DEED)]), [(60, 1), (61, 1), (62, 1)]);
        assert_eq!(story([(0, DEED), (60, DEED), (61, DEED)]), [(60, 1), (180, 2), (181, 2)]);
    }

    #[test]
    fn a_listing_counts_nothing_and_nothing_is_shortened() {
        assert_eq!(story([(0, LISTING), (5, LISTING), (10, LISTING)]), [(5, 0), (10, 0), (15, 0)]);
        assert_eq!(story([(0, DEED), (60, LISTING), (65, DEED)]), [(60, 1), (65, 1), (185, 2)]);
        assert_eq!(story([(0, DEED), (1, LISTING)]), [(60, 1), (60, 1)]);
        assert_eq!(story([(0, LONG_LISTING), (1, DEED), (5000, DEED)]), [(5000, 0), (5000, 1), (5120, 2)]);
    }
}
