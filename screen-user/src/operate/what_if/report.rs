//! What comes of it: who would change sides, counted.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::judge::{Doubt, Sentence, Side};
use crate::{gate::words, journal::Entry, operate::table};

/// Most networks that are counted one by one: what a journal takes in memory must not grow with it.
const MOST_NETWORKS: usize = 1 << 16;

/// A change, and why it was so and would be otherwise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Change {
    from: Side,
    to: Side,
    was: String,
    would_be: String,
}

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Report {
    sessions: u64,
    unchanged: u64,
    first: Option<u64>,
    last: Option<u64>,
    sides: BTreeMap<Side, u64>,
    changes: BTreeMap<Change, u64>,
    networks: HashMap<(IpNet, Side, Side), u64>,
    /// Changes of clients in networks for which there was no room.
    elsewhere: u64,
    unknown: BTreeMap<Doubt, u64>,
    /// Lines of the journal that could not be read.
    pub(super) skipped: u64,
}

impl Report {
    /// Counts a session.
    pub(super) fn add(&mut self, entry: &Entry, was: Sentence, would_be: Result<Sentence, Doubt>) {
        self.sessions += 1;
        self.first = Some(self.first.map_or(entry.time, |first| first.min(entry.time)));
        self.last = self.last.max(Some(entry.time));
        *self.sides.entry(was.0).or_default() += 1;
        let (to, reason) = match would_be {
            Ok(sentence) => sentence,
            Err(doubt) => {
                *self.unknown.entry(doubt).or_default() += 1;
                return;
            }
        };
        if to == was.0 {
            self.unchanged += 1;
            return;
        }
        let change = Change { from: was.0, to, was: words(was.1), would_be: words(reason) };
        *self.changes.entry(change).or_default() += 1;
        let network = (entry.network(), was.0, to);
        if self.networks.len() < MOST_NETWORKS || self.networks.contains_key(&network) {
            *self.networks.entry(network).or_default() += 1;
        } else {
            self.elsewhere += 1;
        }
    }

    fn changed(&self) -> u64 {
        self.changes.values().sum()
    }

    fn unknown(&self) -> u64 {
        self.unknown.values().sum()
    }

    /// Changes by their sides.
    fn by_sides(&self) -> BTreeMap<(Side, Side), u64> {
        let mut sides = BTreeMap::new();
        for (change, sessions) in &self.changes {
            *sides.entry((change.from, change.to)).or_default() += sessions;
        }
        sides
    }

    /// Of each map the entries with the highest counts, in an order that is the same each time.
    fn top<K: Ord + Clone>(counts: impl Iterator<Item = (K, u64)>, most: usize) -> Vec<(K, u64)> {
        let mut counts: Vec<(K, u64)> = counts.collect();
        counts.sort_by_key(|(key, sessions)| (Reverse(*sessions), key.clone()));
        counts.truncate(most);
        counts
    }

    fn top_networks(&self, most: usize) -> Vec<((IpNet, Side, Side), u64)> {
        Self::top(self.networks.iter().map(|(key, sessions)| (*key, *sessions)), most)
    }

    fn ordered<K: Ord + Clone>(counts: &BTreeMap<K, u64>) -> Vec<(K, u64)> {
        Self::top(counts.iter().map(|(key, sessions)| (key.clone(), *sessions)), usize::MAX)
    }

    /// For programs.
    pub(super) fn json(&self, top: usize) -> Value {
        let sides = self.by_sides().into_iter();
        json!({
            "sessions": self.sessions,
            "first": self.first,
            "last": self.last,
            "before": self.sides.iter().map(|(side, sessions)| (side.to_string(), json!(sessions))).collect::<serde_json::Map<_, _>>(),
            "unchanged": self.unchanged,
            "changed": self.changed(),
            "unknown": self.unknown(),
            "sides": sides.map(|((from, to), sessions)| json!({ "from": from, "to": to, "sessions": sessions })).collect::<Vec<_>>(),
            "changes": Self::ordered(&self.changes).into_iter().map(|(change, sessions)| json!({
                "from": change.from, "to": change.to, "was": change.was, "would_be": change.would_be, "sessions": sessions,
            })).collect::<Vec<_>>(),
            "networks": self.top_networks(top).into_iter().map(|((network, from, to), sessions)| json!({
                "network": network, "from": from, "to": to, "sessions": sessions,
            })).collect::<Vec<_>>(),
            "networks_not_counted": self.elsewhere,
            "unknown_because": Self::ordered(&self.unknown).into_iter().map(|(doubt, sessions)| json!({
                "reason": doubt.to_string(), "sessions": sessions,
            })).collect::<Vec<_>>(),
            "lines_skipped": self.skipped,
        })
    }

    /// For people.
    pub(super) fn text(&self, top: usize) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{} of {} sessions would change sides, {} would not, of {} it can't be known.",
            self.changed(),
            self.sessions,
            self.unchanged,
            self.unknown(),
        );
        if let (Some(first), Some(last)) = (self.first, self.last) {
            let _ = writeln!(text, "They began between {} and {}.", table::instant(first), table::instant(last));
        }
        for ((from, to), sessions) in self.by_sides() {
            let _ = writeln!(text, "{from} -> {to}: {sessions}");
        }
        if !self.changes.is_empty() {
            let rows = Self::ordered(&self.changes).into_iter().map(|(change, sessions)| {
                vec![sessions.to_string(), format!("{} -> {}", change.from, change.to), change.was, change.would_be]
            });
            let _ = write!(
                text,
                "\nBy reason\n{}",
                table::render(&["SESSIONS", "CHANGE", "WAS", "WOULD BE"], &rows.collect::<Vec<_>>())
            );
            let rows = self.top_networks(top).into_iter().map(|((network, from, to), sessions)| {
                vec![sessions.to_string(), format!("{from} -> {to}"), network.to_string()]
            });
            let _ = write!(
                text,
                "\nBy network\n{}",
                table::render(&["SESSIONS", "CHANGE", "NETWORK"], &rows.collect::<Vec<_>>())
            );
            let further = self.networks.len().saturating_sub(top);
            if further > 0 {
                let _ = writeln!(text, "and {further} more (--top)");
            }
            if self.elsewhere > 0 {
                let _ = writeln!(text, "and {} sessions of networks that were too many to be counted", self.elsewhere);
            }
        }
        if !self.unknown.is_empty() {
            let rows = Self::ordered(&self.unknown);
            let rows = rows.into_iter().map(|(doubt, sessions)| vec![sessions.to_string(), doubt.to_string()]);
            let _ = write!(text, "\nNot known\n{}", table::render(&["SESSIONS", "BECAUSE"], &rows.collect::<Vec<_>>()));
        }
        if self.skipped > 0 {
            let _ = writeln!(text, "\n{} lines of the journal could not be read.", self.skipped);
        }
        text
    }
}
