//! What the test programs' output says, added up.

/// Results of one or several test programs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    passed: usize,
    failed: usize,
    failures: Vec<String>,
    skipped: Vec<String>,
    ignored: Vec<String>,
    /// Between `successes:` and the next result, where `--show-output` repeats what passing tests printed.
    in_outputs: bool,
}

impl Tally {
    /// Takes in one line of output and says whether it is worth showing: what passing tests print is not, except for skips.
    pub(super) fn read(&mut self, line: &str) -> bool {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.in_outputs = false;
            self.passed += count_before(rest, "passed");
            self.failed += count_before(rest, "failed");
            return true;
        }
        if let Some(reason) = skip(line) {
            self.skipped.push(reason.to_owned());
            return true;
        }
        match line {
            "successes:" => self.in_outputs = true,
            "failures:" => self.in_outputs = false,
            _ => {}
        }
        if let Some(test) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(test.to_owned());
        } else if let Some((test, why)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ignored")) {
            // Left out by its author wherever it runs, so that no right that is missing here is to blame.
            self.ignored.push(format!("{test}{why}"));
        } else if let Some(scenario) = line.strip_prefix("FAIL ") {
            self.failures.push(scenario.to_owned());
        } else if let Some((passed, failed)) = totals(line) {
            self.passed += passed;
            self.failed += failed;
            // The one total that closes the output is printed at the very end.
            return false;
        }
        !self.in_outputs
    }

    /// Counts something that is no test of its own as failed.
    pub(super) fn fail(&mut self, what: &str) {
        self.failed += 1;
        self.failures.push(what.to_owned());
    }

    /// Notes something that was not run.
    pub(super) fn skip(&mut self, what: &str) {
        self.skipped.push(what.to_owned());
    }

    /// Counts a program that succeeded without counting anything itself.
    pub(super) fn finish_as_one(&mut self) {
        self.passed += 1;
    }

    /// Tests that passed.
    pub(super) fn passed(&self) -> usize {
        self.passed
    }

    /// Tests that failed.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    /// Takes over the results of a part.
    pub(super) fn add(&mut self, part: Self) {
        self.passed += part.passed;
        self.failed += part.failed;
        self.failures.extend(part.failures);
        self.skipped.extend(part.skipped);
        self.ignored.extend(part.ignored);
    }

    /// Whether all is well; where a skip counts as a failure there must be none.
    pub(super) fn is_success(&self, skip_fails: bool) -> bool {
        self.failed == 0 && self.passed > 0 && (self.skipped.is_empty() || !skip_fails)
    }

    /// The closing lines, totals last.
    pub(super) fn report(&self, skip_fails: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for ignored in &self.ignored {
            lines.push(format!("left out {ignored}"));
        }
        for skipped in &self.skipped {
            lines.push(format!("skipped {skipped}"));
        }
        if skip_fails && !self.skipped.is_empty() {
            lines.push("in CI a skipped test is a failed one".to_owned());
        }
        for failure in &self.failures {
            lines.push(format!("failed {failure}"));
        }
        let also_failed = if skip_fails { self.skipped.len() } else { 0 };
        lines.push(format!("{} passed, {} failed", self.passed, self.failed + also_failed));
        lines
    }
}

/// A line by which a test says that it could not run here: `skipped NAME: REASON`. The test runner may have begun the line.
fn skip(line: &str) -> Option<&str> {
    let said = line.rsplit(" ... ").next().unwrap_or(line);
    said.strip_prefix("skipped ").filter(|rest| rest.contains(':'))
}

/// `N passed, N failed` alone on a line.
fn totals(line: &str) -> Option<(usize, usize)> {
    let (passed, rest) = line.split_once(" passed, ")?;
    let failed = rest.strip_suffix(" failed")?;
    Some((passed.parse().ok()?, failed.parse().ok()?))
}

/// The number before a word, in libtest's `ok. 12 passed; 0 failed; ...`.
fn count_before(text: &str, word: &str) -> usize {
    let mut before = "";
    for part in text.split([' ', ';', '.']).filter(|part| !part.is_empty()) {
        if part == word {
            return before.parse().unwrap_or(0);
        }
        before = part;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(text: &str) -> (Tally, Vec<&str>) {
        let mut tally = Tally::default();
        let shown = text.lines().filter(|line| tally.read(line)).collect();
        (tally, shown)
    }

    #[test]
    fn results_of_several_test_programs_add_up() {
        let (tally, _) = reading(
            "test a ... ok\ntest b ... FAILED\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
             test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s\n",
        );
        assert_eq!((tally.passed, tally.failed), (13, 1));
        assert_eq!(tally.failures, ["b"]);
        assert!(!tally.is_success(false));
        assert_eq!(tally.report(false).last().unwrap(), "13 passed, 1 failed");
    }

    #[test]
    fn a_skip_is_reported_and_fails_in_ci_only() {
        let (tally, shown) = reading(
            "test a ... ok\nsuccesses:\n---- a stdout ----\nchatter\nskipped a: no CAP_BPF here\n\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(tally.skipped, ["a: no CAP_BPF here"]);
        assert!(shown.contains(&"skipped a: no CAP_BPF here") && !shown.contains(&"chatter"));
        assert!(tally.is_success(false) && !tally.is_success(true));
        assert_eq!(tally.report(true).last().unwrap(), "1 passed, 1 failed");
    }

    #[test]
    fn a_skip_on_standard_error_is_found_behind_what_the_runner_prints() {
        let (tally, _) = reading("test a ... skipped a, missing: root\nok\nskipped b, missing: bpffs\ntest b ... ok\n");
        assert_eq!(tally.skipped, ["a, missing: root", "b, missing: bpffs"]);
    }

    #[test]
    fn a_test_that_its_author_left_out_is_reported_and_fails_nowhere() {
        let (tally, _) = reading(
            "test helper ... ignored, another test runs it\n\
             test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n",
        );
        assert!(tally.is_success(true));
        assert_eq!(tally.report(true)[0], "left out helper, another test runs it");
    }

    #[test]
    fn scenario_totals_count_and_are_not_shown_twice() {
        let (tally, shown) = reading("FAIL dnsbl-drop/listed\n7 passed, 1 failed\n");
        assert_eq!((tally.passed, tally.failed), (7, 1));
        assert_eq!(tally.failures, ["dnsbl-drop/listed"]);
        assert!(!shown.contains(&"7 passed, 1 failed"));
    }

    #[test]
    fn nothing_run_is_no_success() {
        assert!(!Tally::default().is_success(false));
    }
}
