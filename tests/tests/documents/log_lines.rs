//! `docs/log-lines.md` has every line that the program logs, as far as its sources tell.

use std::fs;

use regex::Regex;
use screen_tests::documents::{Page, workspace};

use super::sources::{sources, texts};

/// Calls whose first text is a line of the log, or what one says of itself.
const LOGGING: &str = r#"(?:\b(?:info|warn|notice)\(|\bsay\((?:true|false),|tracing::(?:info|warn|error)!\(|\b(?:notices|complaints)\.push\()\s*(?:&?format!\()?\s*"#;

/// Files in which each of these is a line as well.
const LINES: [(&str, &str); 9] = [
    ("dns/report.rs", r"write!\(\s*f,\s*"),
    ("forward/backend.rs", r"#\[error\(\s*"),
    ("forward/pass.rs", r"#\[error\(\s*"),
    ("kernel/backlog.rs", r"said\.push\(format!\(\s*"),
    ("kernel/owners.rs", r"format!\(\s*"),
    ("keeper/shift.rs", r"End::Died\(format!\(\s*"),
    ("net/proxy_wait.rs", r"format!\(\s*"),
    ("operate/log.rs", r"let text = format!\(\s*"),
    ("sandbox.rs", r"vec!\[\s*"),
];

/// Texts that follow these patterns and that no log has.
const NO_LINES: [&str; 2] = [
    // The record that each session leaves, at priority debug.
    "outcome of ",
    // It corrects what is remembered, and is logged by that.
    "late DNSBL result for",
];

#[test]
fn every_line_of_the_log_is_explained() {
    let page = Page::read("docs/log-lines.md").text;
    let mut missing = Vec::new();
    let mut found = 0;
    for (file, source) in sources() {
        let own = LINES.iter().filter(|(name, _)| file.ends_with(&format!("src/{name}"))).map(|(_, pattern)| *pattern);
        for pattern in own.chain([LOGGING]) {
            for text in texts(pattern, &source) {
                if NO_LINES.iter().any(|known| known.contains(&text)) {
                    continue;
                }
                found += 1;
                if !page.contains(&text) {
                    missing.push(format!("{file}: {text}"));
                }
            }
        }
    }
    assert!(found > 80, "the sources have {found} lines");
    assert_eq!(missing, [""; 0], "lines that docs/log-lines.md does not have");
}

#[test]
fn every_line_about_a_client_is_explained() {
    let page = Page::read("docs/log-lines.md").text;
    let source = fs::read_to_string(workspace().join("screen-user/src/screen/log.rs")).unwrap();
    let (_, lines) = source.split_once("pub enum LogLine {\n").unwrap();
    let (lines, _) = lines.split_once("\n}\n").unwrap();
    let (_, events) = source.split_once("fn event(&self)").unwrap();
    let (events, _) = events.split_once("\n    }\n").unwrap();
    // What is set as code, but for links.
    let comments = Regex::new("///[^\n]*").unwrap();
    let (code, names) = (Regex::new("(?:^|[^\\[])`([^`]+)`").unwrap(), Regex::new(r#"=> "([^"]+)""#).unwrap());
    let comments = comments.find_iter(lines).map(|comment| comment.as_str());
    let shown = comments.flat_map(|comment| code.captures_iter(comment).map(|code| code[1].to_owned()));
    let events = names.captures_iter(events).map(|event| format!("`{}`", &event[1]));
    let wanted: Vec<String> = shown.map(|line| format!("`{line}`")).chain(events).collect();
    assert!(wanted.len() > 50, "{wanted:?}");
    let missing: Vec<&String> = wanted.iter().filter(|text| !page.contains(text.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
