//! Differences from the record that are meant, and the verdict on a run in their light.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, bail};

use super::probe::{Outcome, Played};

/// `group/scenario` to the reason why it differs.
pub(super) type Listed = BTreeMap<String, String>;

/// What a run amounts to.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Scenarios that did what they should, meant differences included.
    pub(super) passed: usize,
    /// Scenarios that did not.
    pub(super) failed: usize,
    /// What there is to say about single scenarios.
    pub(super) lines: Vec<String>,
}

/// Reads the list: lines `group/scenario: reason`, `#` starts a comment. No file means no differences.
///
/// # Errors
/// When a line has no name or no reason, or names a scenario twice; file and line are named.
pub(super) fn load(file: &Path) -> Result<Listed> {
    if !file.exists() {
        return Ok(Listed::new());
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    parse(&text).with_context(|| format!("in {}", file.display()))
}

fn parse(text: &str) -> Result<Listed> {
    let mut listed = Listed::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, reason)) = line.split_once(": ").filter(|(name, _)| name.contains('/')) else {
            bail!("line {number}: expected `group/scenario: reason`");
        };
        if listed.insert(name.to_owned(), reason.trim().to_owned()).is_some() {
            bail!("line {number}: {name} is listed twice");
        }
    }
    Ok(listed)
}

/// Compares what differed with what may differ. Listed scenarios that were not played say nothing.
pub(super) fn judge(played: &[Played], listed: &Listed) -> Verdict {
    let mut verdict = Verdict::default();
    for Played { name, outcome } in played {
        match (outcome, listed.get(name)) {
            (Outcome::Same, None) => verdict.passed += 1,
            (Outcome::Differs(_), Some(reason)) => {
                verdict.passed += 1;
                verdict.lines.push(format!("differs as listed {name}: {reason}"));
            }
            (Outcome::Same, Some(_)) => {
                verdict.failed += 1;
                verdict.lines.push(format!("FAIL {name}"));
                verdict.lines.push("     listed as different, but it is not: take it off the list".to_owned());
            }
            (Outcome::Differs(diff), None) => {
                verdict.failed += 1;
                verdict.lines.push(format!("FAIL {name}"));
                verdict.lines.extend(diff.iter().cloned());
            }
            (Outcome::NotRun(why), _) => {
                verdict.failed += 1;
                verdict.lines.push(format!("FAIL {name}"));
                verdict.lines.push(format!("     not run: {why}"));
            }
            (Outcome::Unreachable, _) => {
                verdict.lines.push(format!("skipped {name}: needs an address that this host has not"));
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(name: &str, outcome: Outcome) -> Played {
        Played { name: name.to_owned(), outcome }
    }

    #[test]
    fn comments_and_blank_lines_are_no_entries() {
        let listed = parse("# meant\n\ntls-may/late: kinder: the client keeps its mail\n").unwrap();
        assert_eq!(listed["tls-may/late"], "kinder: the client keeps its mail");
        assert_eq!(listed.len(), 1);
    }

    #[test]
    fn a_line_without_reason_or_given_twice_is_an_error_with_its_number() {
        assert!(parse("a/b: x\na/c\n").unwrap_err().to_string().contains("line 2"));
        assert!(parse("a/b: x\n\na/b: y\n").unwrap_err().to_string().contains("line 3"));
    }

    #[test]
    fn a_listed_difference_passes_and_an_unlisted_one_fails() {
        let listed = parse("g/meant: because\n").unwrap();
        let verdict = judge(
            &[
                played("g/meant", Outcome::Differs(vec!["-a".to_owned()])),
                played("g/not-meant", Outcome::Differs(vec!["-b".to_owned()])),
                played("g/same", Outcome::Same),
            ],
            &listed,
        );
        assert_eq!((verdict.passed, verdict.failed), (2, 1));
        assert!(verdict.lines.contains(&"differs as listed g/meant: because".to_owned()));
        assert!(verdict.lines.contains(&"-b".to_owned()) && !verdict.lines.contains(&"-a".to_owned()));
    }

    #[test]
    fn a_listed_difference_that_is_gone_fails_only_if_it_was_played() {
        let listed = parse("g/gone: because\ng/elsewhere: because\n").unwrap();
        let verdict = judge(&[played("g/gone", Outcome::Same), played("g/same", Outcome::Same)], &listed);
        assert_eq!((verdict.passed, verdict.failed), (1, 1));
    }

    #[test]
    fn a_scenario_whose_gate_did_not_start_fails_even_if_listed() {
        let listed = parse("g/a: because\n").unwrap();
        let verdict = judge(&[played("g/a", Outcome::NotRun("no gate".to_owned()))], &listed);
        assert_eq!((verdict.passed, verdict.failed), (0, 1));
    }
}
