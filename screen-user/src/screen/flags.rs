//! Sets of tests and the flags that a session keeps about each of them (spec 2.1).

use super::record::Test;

/// A set of tests, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct TestSet(u8);

impl TestSet {
    /// The tests before the greeting.
    pub(super) const EARLY: Self = Self(0b00011);
    /// The tests of the dummy engine.
    pub(super) const DEEP: Self = Self(0b11100);

    const fn bit(test: Test) -> u8 {
        1 << test as u8
    }

    pub(super) const fn has(self, test: Test) -> bool {
        self.0 & Self::bit(test) != 0
    }

    pub(super) const fn insert(&mut self, test: Test) {
        self.0 |= Self::bit(test);
    }

    pub(super) const fn remove(&mut self, test: Test) {
        self.0 &= !Self::bit(test);
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl FromIterator<Test> for TestSet {
    fn from_iter<I: IntoIterator<Item = Test>>(tests: I) -> Self {
        let mut set = Self::default();
        for test in tests {
            set.insert(test);
        }
        set
    }
}

/// What a session knows of the five tests, and the failures that are no test.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flags {
    /// To be taken in this session.
    pub(super) todo: TestSet,
    /// Passed in this session.
    pub(super) pass: TestSet,
    /// Passed for the credit of the client's network.
    pub(super) spared: TestSet,
    /// Failed, and the failure counts.
    pub(super) fail: TestSet,
    /// Early: the result is known. Deep: not looked at again.
    pub(super) done: TestSet,
    /// The access list rejects the client, and that counts.
    pub(super) denied: bool,
    /// The client came to a server address where no pass can be earned.
    pub(super) vetoed: bool,
    /// The client must not reach the mail server in this session.
    pub(super) no_forward: bool,
    /// Nothing was known of the client when it came.
    pub(super) new: bool,
}

impl Flags {
    /// Whether anything at all counts as failed (spec 2.2, "any-FAIL").
    pub(super) const fn any_fail(&self) -> bool {
        !self.fail.is_empty() || self.denied || self.vetoed
    }

    /// Whether every early test has its result (spec 2.2).
    pub(super) fn early_complete(&self) -> bool {
        self.done.and(TestSet::EARLY) == self.todo.and(TestSet::EARLY)
    }

    /// Whether `test` is to be watched for: asked for, and not settled.
    pub(super) const fn watching(&self, test: Test) -> bool {
        self.todo.has(test) && !self.done.has(test)
    }
}
