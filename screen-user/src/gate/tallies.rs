//! What sessions came to, counted since the start: the tests' results, and how long verdicts took.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    screen::{
        outcome::{Outcome, TestResult, Verdict},
        policy::Action,
        record::Test,
    },
    share::{Histogram, Latency},
};

/// A test, what came of it, and what was to be done about its failure if it failed.
pub(super) type Result = (Test, TestResult, Option<Action>);

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Tallies(Mutex<Tallied>);

#[derive(Debug, Default)]
struct Tallied {
    results: BTreeMap<Result, u64>,
    took: BTreeMap<Verdict, Latency>,
}

impl Tallies {
    /// Counts a session that is over. Tests that were not to be taken in it are left out.
    pub(super) fn add(&self, outcome: &Outcome) {
        let mut tallied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (test, taken) in Test::ALL.into_iter().zip(&outcome.tests) {
            if taken.result != TestResult::NotTaken {
                *tallied.results.entry((test, taken.result, taken.action)).or_default() += 1;
            }
        }
        tallied.took.entry(outcome.verdict).or_default().add(outcome.duration);
    }

    /// How often tests came to what.
    pub(super) fn results(&self) -> BTreeMap<Result, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).results.clone()
    }

    /// How long sessions took, by how they ended.
    pub(super) fn took(&self) -> BTreeMap<Verdict, Histogram> {
        let tallied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tallied.took.iter().map(|(verdict, took)| (*verdict, Latency::histogram([took]))).collect()
    }
}
