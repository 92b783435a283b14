//! What can be told from one look at the gate to the next: connections a second, and how the zones do at the moment.

use std::collections::VecDeque;

use super::snapshot::{Fates, Snapshot, Zone};

/// Looks that a sparkline can show.
const LOOKS: usize = 240;
/// Looks over which a zone's shares are taken.
const ZONE_LOOKS: usize = 60;
/// The last looks at one screener.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates {
    /// What came between two looks, the newest last.
    steps: VecDeque<Step>,
    zones: VecDeque<(u64, Vec<Zone>)>,
    last: Option<(u32, u64, Fates)>,
}

/// From one look to the next.
#[derive(Debug, Clone, Copy)]
struct Step {
    seconds: f64,
    before: Fates,
    after: Fates,
}

/// How a zone does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct ZoneRate {
    /// Queries a second.
    pub(super) per_second: f64,
    /// The share of queries that list the client.
    pub(super) listed: f64,
    /// The share of queries without a usable answer.
    pub(super) failed: f64,
    /// How long answers took, in milliseconds; `None` if there were none.
    pub(super) latency_ms: Option<f64>,
}

impl Rates {
    /// Takes up a look. Another screener counts anew, so that there is nothing to compare its first look with.
    pub(super) fn look(&mut self, snapshot: &Snapshot) {
        let (screener, now) = (snapshot.screener, snapshot.uptime_ms);
        match self.last {
            Some((same, then, before)) if same == screener && now > then => {
                let step = Step { seconds: (now - then) as f64 / 1000.0, before, after: snapshot.fates };
                push(&mut self.steps, step, LOOKS);
            }
            Some((same, ..)) if same == screener => return,
            _ => self.zones.clear(),
        }
        self.last = Some((screener, now, snapshot.fates));
        push(&mut self.zones, (now, snapshot.zones.clone()), ZONE_LOOKS);
    }

    /// Connections a second that `count` counts, the newest first.
    pub(super) fn series(&self, count: fn(&Fates) -> u64) -> Vec<f64> {
        let rate = |step: &Step| count(&step.after).saturating_sub(count(&step.before)) as f64 / step.seconds;
        self.steps.iter().rev().map(rate).collect()
    }

    /// How the zone of this name does, over the last minute of looks.
    pub(super) fn zone(&self, name: &str) -> ZoneRate {
        let find = |(at, zones): &(u64, Vec<Zone>)| {
            zones.iter().find(|zone| zone.name == name).map(|zone| (*at, zone.clone()))
        };
        let (Some((from, old)), Some((to, new))) = (self.zones.iter().find_map(find), self.zones.back().and_then(find))
        else {
            return ZoneRate::default();
        };
        let since = |new: u64, old: u64| new.saturating_sub(old) as f64;
        let (seconds, queries) = (since(to, from) / 1000.0, since(new.queries, old.queries));
        let share = |count: f64| if queries > 0.0 { count / queries } else { 0.0 };
        let answers = since(new.answers.0, old.answers.0);
        ZoneRate {
            per_second: if seconds > 0.0 { queries / seconds } else { 0.0 },
            listed: share(since(new.listed, old.listed)),
            failed: share(since(new.failed, old.failed)),
            latency_ms: (answers > 0.0).then(|| since(new.answers.1, old.answers.1) / answers / 1000.0),
        }
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(screener: u32, uptime_ms: u64, denied: u64) -> Snapshot {
        let zone = Zone {
            name: "bl.example".into(),
            queries: denied * 10,
            listed: denied,
            failed: denied * 2,
            answers: (denied * 8, denied * 8 * 1500),
            state: String::new(),
        };
        let fates = Fates { denied, ..Fates::default() };
        Snapshot { screener, uptime_ms, fates, zones: vec![zone], ..Snapshot::default() }
    }

    #[test]
    fn rates_go_by_the_clock_of_the_gate_and_a_new_screener_makes_no_leap() {
        let mut rates = Rates::default();
        for snapshot in [look(1, 1000, 100), look(1, 3000, 120), look(1, 3000, 120), look(2, 500, 4), look(2, 1500, 9)]
        {
            rates.look(&snapshot);
        }
        assert_eq!(rates.series(|fates| fates.denied), [5.0, 10.0]);
        assert_eq!(rates.series(|fates| fates.limited + fates.steered), [0.0, 0.0]);
    }

    #[test]
    fn whom_a_dry_run_spares_is_one_connection() {
        let mut rates = Rates::default();
        for seconds in [1, 2] {
            let fates = Fates {
                denied: 3 * seconds,
                let_in: 2 * seconds,
                forwarded: seconds,
                spared: 3 * seconds,
                ..Fates::default()
            };
            rates.look(&Snapshot { screener: 1, uptime_ms: 1000 * seconds, fates, ..Snapshot::default() });
        }
        assert_eq!((rates.series(|fates| fates.denied), rates.series(Fates::sum)), (vec![3.0], vec![3.0]));
    }

    #[test]
    fn a_zone_is_shown_as_it_does_now() {
        let mut rates = Rates::default();
        assert_eq!(rates.zone("bl.example"), ZoneRate::default());
        rates.look(&look(1, 1000, 100));
        rates.look(&look(1, 3000, 120));
        let expected = ZoneRate { per_second: 100.0, listed: 0.1, failed: 0.2, latency_ms: Some(1.5) };
        assert_eq!(rates.zone("bl.example"), expected);
        assert_eq!(rates.zone("other.example"), ZoneRate::default());
    }
}
