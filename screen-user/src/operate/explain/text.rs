//! What `mxscreen explain` says to people.

use std::fmt::Write as _;

use serde_json::Value;

use super::{past::Past, zones};
use crate::{
    gate::words,
    journal::Entry,
    operate::table,
    screen::{found::What, outcome::TestResult},
};

/// A field that is a text; empty if it is none.
pub(super) fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// For people: the answer in one sentence, then what it rests on.
pub(super) fn text(answer: &Value, past: &Past) -> String {
    let mut text = format!("{} {}: {}.\n", field(answer, "address"), field(answer, "now"), field(answer, "because"));
    // Writing to a string does not fail.
    let _ = match field(answer, "decided_by") {
        "kernel" => writeln!(text, "The kernel decides that, before there is a connection."),
        _ => writeln!(text, "The screener decides that."),
    };
    lists(&mut text, answer);
    tests(&mut text, answer);
    zones::write(&mut text, answer, past);
    counters(&mut text, answer);
    sessions(&mut text, answer, past);
    text
}

fn lists(text: &mut String, answer: &Value) {
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name}: {value}");
    };
    line("counts as", field(answer, "client").to_owned());
    let list = answer.get("access_list").unwrap_or(&Value::Null);
    let rule = field(list, "rule");
    let rule = if rule.is_empty() { String::new() } else { format!(" ({rule})") };
    line("access list", format!("{}{rule}", field(list, "verdict")));
    for (name, key) in [("allow entry", "allow_entry"), ("deny entry", "deny_entry")] {
        if let Some(entry) = answer.get(key).filter(|entry| !entry.is_null()) {
            let (reason, host) = (field(entry, "reason"), field(entry, "host"));
            let host = if host.is_empty() { String::new() } else { format!(", by {host}") };
            let until = entry.get("until").and_then(Value::as_u64);
            let until = until
                .map_or_else(|| "until it is forgotten".to_owned(), |until| format!("until {}", table::instant(until)));
            line(name, format!("{} {until}{host}: {reason}", field(entry, "net")));
        }
    }
    if let Some(failures) = answer.get("failures_remembered").and_then(Value::as_u64).filter(|&failures| failures > 0) {
        line("failures remembered", failures.to_string());
    }
    if let Some(list) = answer.get("imported_list").and_then(Value::as_str) {
        line("block list", list.to_owned());
    }
    if let Some(credit) = answer.get("pool_credit").filter(|credit| !credit.is_null()) {
        let left = credit.get("seconds_left").and_then(Value::as_u64).unwrap_or_default();
        let (network, earned) = (field(credit, "network"), field(credit, "earned_by"));
        line("credit", format!("of {network}, earned by {earned}, for {} more", table::span(left)));
    }
    if let Some(kernel) = answer.get("kernel_says").and_then(Value::as_str) {
        line("the kernel's tables", kernel.to_owned());
    }
}

fn tests(text: &mut String, answer: &Value) {
    let Some(tests) = answer.get("tests").and_then(Value::as_array) else {
        let _ = writeln!(text, "\nTests: nothing is remembered of this client.");
        return;
    };
    let rows: Vec<Vec<String>> = tests
        .iter()
        .map(|test| {
            let learnt = test.get("learnt").and_then(Value::as_u64).map_or_else(|| "-".to_owned(), table::instant);
            vec![
                field(test, "test").to_owned(),
                field(test, "state").to_owned(),
                learnt,
                field(test, "grounds").to_owned(),
            ]
        })
        .collect();
    let host = field(answer, "learnt_by");
    let host = if host.is_empty() { String::new() } else { format!(", the last by {host}") };
    let _ = write!(text, "\nTests{host}\n{}", table::render(&["TEST", "STATE", "LEARNT", "WHY"], &rows));
}

fn counters(text: &mut String, answer: &Value) {
    for (title, key) in
        [("Connections, by the kernel", "kernel_counters"), ("Turned away by the kernel", "kernel_refused")]
    {
        if let Some(counters) = answer.get(key).and_then(Value::as_object) {
            let numbers = counters.iter().filter(|(_, count)| !count.is_null());
            let numbers = numbers.map(|(name, count)| match count.as_str() {
                Some(word) => format!("{name} {word}"),
                None => format!("{name} {count}"),
            });
            let _ = writeln!(text, "\n{title}: {}", numbers.collect::<Vec<_>>().join(", "));
        }
    }
}

fn sessions(text: &mut String, answer: &Value, past: &Past) {
    let rows: Vec<Vec<String>> = past.sessions.iter().rev().map(row).collect();
    if rows.is_empty() {
        let recent = answer.get("last_sessions").and_then(Value::as_array).map_or(0, Vec::len);
        let _ = writeln!(text, "\nSessions: {recent} in memory, none in the journal.");
    } else {
        let shown = if past.count > rows.len() as u64 { format!(", the last {}", rows.len()) } else { String::new() };
        let head = ["WHEN", "VERDICT", "REASON", "WHAT WAS FOUND"];
        let _ = write!(text, "\nSessions in the journal: {}{shown}\n{}", past.count, table::render(&head, &rows));
    }
    // The journal is written behind.
    if let Some(last) = answer.get("last_sessions").and_then(Value::as_array).and_then(|last| last.first()) {
        let verdict = field(last, "verdict");
        let started = last.get("started").and_then(Value::as_u64).map_or_else(String::new, table::instant);
        let _ = writeln!(text, "\nThe last session in memory: {verdict}, {started}");
        if let Some(syn) = last.get("syn").and_then(Value::as_str) {
            let _ = writeln!(text, "  syn: {syn}");
        }
    }
    if let Some(trouble) = &past.trouble {
        let _ = writeln!(text, "\nThe journal could not be read: {trouble}");
    }
}

fn row(entry: &Entry) -> Vec<String> {
    let failed = entry.tests.iter().filter(|test| matches!(test.result, TestResult::Failed | TestResult::Ignored));
    let mut found: Vec<String> = failed.map(|test| format!("{}: {}", test.test, test.evidence)).collect();
    if let Some(objection) = entry.objection {
        found.push(format!("let through in a dry run, in spite of {}", words(objection)));
    }
    if let Some(list) = &entry.kernel {
        found.push(format!("in the kernel {list}").trim_end().to_owned());
    }
    if let (Some(score), true) = (entry.score, found.is_empty()) {
        found.push(format!("score {score}"));
    }
    let lines = entry.found.iter().flat_map(|found| &found.heard).filter_map(|heard| match &heard.what {
        What::Said(said) => Some(said),
        _ => None,
    });
    // The envelope is what whoever complains knows of his mail.
    let envelope = lines.flat_map(|said| said.0.split(|byte| *byte == b'\n')).filter(|line| {
        let starts = |verb: &[u8]| line.get(..verb.len()).is_some_and(|head| head.eq_ignore_ascii_case(verb));
        starts(b"HELO") || starts(b"EHLO") || starts(b"MAIL") || starts(b"RCPT")
    });
    found.extend(envelope.take(3).map(|line| line.trim_ascii_end().escape_ascii().to_string()));
    vec![table::instant(entry.time), words(entry.verdict), words(entry.reason), found.join("; ")]
}
