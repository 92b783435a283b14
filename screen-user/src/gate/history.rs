//! The last sessions, kept for whoever asks what became of a client.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use ipnet::IpNet;

use crate::screen::outcome::{Outcome, Reason, Verdict};

/// Sessions that are kept. An outcome is well under 2 KiB, as all texts in it are cut.
const CAPACITY: usize = 4096;

/// The last sessions, and how many have ended in which way.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first.
    sessions: VecDeque<Outcome>,
    counts: BTreeMap<(Verdict, Reason), u64>,
    objections: BTreeMap<Reason, u64>,
}

impl History {
    /// Keeps one more; the oldest makes room.
    pub(super) fn add(&self, outcome: Outcome) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept.counts.entry((outcome.verdict, outcome.reason)).or_default() += 1;
        if let Some(objection) = outcome.objection {
            *kept.objections.entry(objection).or_default() += 1;
        }
        if kept.sessions.len() == CAPACITY {
            kept.sessions.pop_front();
        }
        kept.sessions.push_back(outcome);
    }

    /// The last `most` sessions of clients in `net`, newest first.
    pub(super) fn of(&self, net: IpNet, most: usize) -> Vec<Outcome> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.sessions.iter().rev().filter(|outcome| net.contains(&outcome.client.ip())).take(most).cloned().collect()
    }

    /// How many sessions have ended in which way, since the start.
    pub(super) fn counts(&self) -> BTreeMap<(Verdict, Reason), u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).counts.clone()
    }

    /// How many sessions would have ended for which reason, had it not been for a dry run, since the start.
    pub(super) fn objections(&self) -> BTreeMap<Reason, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).objections.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outcome(client: &str, started: u64) -> Outcome {
        Outcome {
            client: client.parse().unwrap(),
            server: "198.51.100.2:25".parse().unwrap(),
            started,
            duration: Duration::from_secs(6),
            verdict: Verdict::Forwarded,
            reason: Reason::Passed,
            objection: None,
            new: true,
            syn: None,
            tests: Default::default(),
            dnsbl: None,
            smtp: None,
            found: None,
        }
    }

    #[test]
    fn the_newest_sessions_of_a_network_come_first_and_the_oldest_go() {
        let history = History::default();
        for started in 0..CAPACITY as u64 + 2 {
            history.add(outcome(if started % 2 == 0 { "192.0.2.1:1" } else { "192.0.2.2:1" }, started));
        }
        let starts = |net: &str, most| -> Vec<u64> {
            history.of(net.parse().unwrap(), most).iter().map(|outcome| outcome.started).collect()
        };
        let last = CAPACITY as u64 + 1;
        assert_eq!(starts("192.0.2.0/24", 2), [last, last - 1]);
        assert_eq!(starts("192.0.2.1/32", 1), [last - 1]);
        assert_eq!(starts("192.0.2.0/24", usize::MAX).len(), CAPACITY);
        assert!(starts("198.51.100.0/24", 1).is_empty());
        let counts = BTreeMap::from([((Verdict::Forwarded, Reason::Passed), last + 1)]);
        assert_eq!(history.counts(), counts);
    }
}
