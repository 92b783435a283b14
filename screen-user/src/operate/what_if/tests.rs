//! Lines of a journal, judged by configurations.

use std::path::Path;

use serde_json::{Value, json};

use super::{judge::Judge, report::Report};
use crate::{
    config::{self, Config},
    journal::{Entry, parse},
};

/// Seen off by nobody: a stranger who was silent, with an answer of one zone.
const GOOD: &str = r#""found":{"sessions":1,"checking":1,"tls":"absent","known":"nothing","early":6001,"watched":true,"zones":[{"zone":"a.test","ms":20,"codes":["127.0.0.2"]}],"heard":[{"ms":6002,"what":{"forwarded":"accepted"}}]}"#;
const EARLY: &str = r#""found":{"sessions":1,"checking":1,"tls":"absent","known":"nothing","early":6001,"watched":true,"zones":[{"zone":"a.test","ms":20,"codes":[]}],"heard":[{"ms":500,"what":{"early":"EHLO x\r\n"}},{"ms":6002,"what":{"forwarded":"accepted"}}]}"#;

fn entry(client: &str, verdict: &str, reason: &str, rest: &str) -> Entry {
    let line = format!(
        r#"{{"time":1700000000,"client":"{client}:1","server":"198.51.100.2:25","ms":6002,"verdict":"{verdict}","reason":"{reason}",{rest}}}"#
    );
    parse(line.as_bytes()).unwrap_or_else(|| panic!("{line}"))
}

fn kernel(client: &str, list: &str, stood: &str) -> Entry {
    let rest = format!(r#""kernel":"{list}","found":{{"stood":{stood},"sessions":0,"checking":0,"tls":"absent"}}"#);
    entry(client, "rejected", "barred", &rest)
}

fn config(text: &str) -> Config {
    let base = "hostname = \"mx.example.test\"\n[dnsbl]\nsites = [\"a.test\"]\nthreshold = 2\naction = \"drop\"\n";
    config::load_text(&format!("{text}\n{base}"), Path::new("/etc/mxscreen/test.toml"), &[]).unwrap().config
}

fn report(present: &str, new: &str, entries: &[Entry]) -> Value {
    let (mut before, mut after) = Judge::of_both(config(present), config(new));
    let mut report = Report::default();
    for entry in entries {
        let was = before.judge(entry).unwrap_or_else(|_| Judge::what_happened(entry));
        report.add(entry, was, after.judge(entry));
    }
    report.json(10)
}

fn everybody() -> Vec<Entry> {
    vec![
        entry("192.0.2.1", "forwarded", "passed", GOOD),
        entry("192.0.2.2", "forwarded", "passed", GOOD),
        entry("[2001:db8::1]", "forwarded", "none", EARLY),
        kernel("198.51.100.9", "access list", r#"{"rejected":"list:1"}"#),
        kernel("198.51.100.10", "operator", r#""deny-entry""#),
        kernel("198.51.100.11", "failed test", r#"{"failed":"pregreet"}"#),
    ]
}

#[test]
fn whom_the_kernel_lets_in_for_a_dry_run_is_turned_away_when_it_is_over() {
    let few = entry(
        "198.51.100.12",
        "deferred",
        "too-many-connections",
        r#""kernel":"","found":{"sessions":0,"checking":0,"tls":"absent"}"#,
    );
    let entries = [kernel("198.51.100.10", "operator", r#""deny-entry""#), few].map(Entry::let_in);
    let dry = report("dry_run = true", "dry_run = true", &entries);
    assert_eq!((&dry["sessions"], &dry["changed"], &dry["unknown"]), (&json!(2), &json!(0), &json!(0)), "{dry}");
    let over = report("dry_run = true", "", &entries);
    assert_eq!((&over["changed"], &over["unknown"]), (&json!(2), &json!(0)), "{over}");
}

#[test]
fn by_the_same_configuration_nobody_changes_sides() {
    let same = "pregreet.action = \"drop\"\naccess.denylist_action = \"drop\"\naccess.list = [{ cidr = [\"198.51.100.9 reject\"] }]";
    let said = report(same, same, &everybody());
    assert_eq!((&said["sessions"], &said["changed"], &said["unknown"]), (&json!(6), &json!(0), &json!(0)), "{said}");
}

#[test]
fn changes_are_counted_by_reason_and_network() {
    let said = report("", "pregreet.action = \"drop\"", &everybody()[..3]);
    let change =
        json!([{ "from": "passed", "to": "refused", "was": "none", "would_be": "failed pregreet", "sessions": 1 }]);
    assert_eq!(said["changes"], change);
    let network = json!([{ "network": "2001:db8::/64", "from": "passed", "to": "refused", "sessions": 1 }]);
    assert_eq!(said["networks"], network);
    assert_eq!(said["unchanged"], 2);

    let rejects = "access.denylist_action = \"drop\"\naccess.list = [{ cidr = [\"192.0.2.0/24 reject\"] }]";
    let said = report("", rejects, &everybody()[..3]);
    let network = json!([{ "network": "192.0.2.0/24", "from": "passed", "to": "refused", "sessions": 2 }]);
    assert_eq!(said["networks"], network);
    assert_eq!(said["changes"][0]["would_be"], "denied");
}

#[test]
fn who_was_turned_away_in_the_kernel_is_let_in_by_a_permit_and_unknown_otherwise() {
    let denied = &everybody()[3..];
    let present = "access.denylist_action = \"drop\"\npregreet.action = \"drop\"\naccess.list = [{ cidr = [\"198.51.100.9 reject\"] }]";
    let said = report(present, "access.list = [\"permit\"]", denied);
    assert_eq!((&said["changed"], &said["sides"][0]["to"]), (&json!(3), &json!("passed")), "{said}");
    let said = report(present, "", denied);
    assert_eq!((&said["changed"], &said["unchanged"], &said["unknown"]), (&json!(0), &json!(1), &json!(2)), "{said}");
    let reasons: Vec<&str> =
        said["unknown_because"].as_array().unwrap().iter().map(|row| row["reason"].as_str().unwrap()).collect();
    assert!(reasons.contains(&"the kernel turned the client away before a test"), "{reasons:?}");
    assert!(reasons.contains(&"the client was turned away for a failure before, which might not count"), "{reasons:?}");
}

#[test]
fn domains_that_were_not_asked_are_not_guessed() {
    let permitted = entry(
        "192.0.2.7",
        "forwarded",
        "allowlisted",
        r#""found":{"stood":{"permitted":"spf:a.example"},"sessions":1,"checking":1,"tls":"absent"}"#,
    );
    let stranger = entry("192.0.2.1", "forwarded", "passed", GOOD);
    let (a, b) = ("access.list = [\"spf:a.example\"]", "access.list = [\"spf:a.example\", \"spf:b.example\"]");
    let said = report(a, a, &[permitted.clone(), stranger.clone()]);
    assert_eq!((&said["unchanged"], &said["unknown"]), (&json!(2), &json!(0)), "{said}");
    let said = report(a, b, &[permitted.clone(), stranger]);
    assert_eq!(said["unknown_because"], json!([{ "reason": "spf:b.example was not asked", "sessions": 1 }]));
    let said = report(a, "", &[permitted]);
    assert_eq!(said["unknown_because"][0]["reason"], "it was not looked up what was known of the client");
}

#[test]
fn another_life_of_a_pass_leaves_open_who_is_known() {
    let known = r#""found":{"sessions":1,"checking":1,"tls":"absent","known":{"record":[1700000100,1700000100,0,0,0]},"heard":[{"ms":3,"what":{"forwarded":"accepted"}}]}"#;
    let known = [entry("192.0.2.1", "forwarded", "known", known)];
    assert_eq!(report("", "", &known)["unchanged"], 1);
    assert_eq!(
        report("", "pregreet.ttl = \"2d\"", &known)["unchanged"],
        1,
        "a valid pass stays valid if it lasts longer"
    );
    let said = report("", "pregreet.ttl = \"1h\"", &known);
    assert_eq!(
        said["unknown_because"][0]["reason"],
        "an earlier pass of the pregreet test would have lasted for another time"
    );
}

#[test]
fn the_text_says_the_same() {
    let (mut before, mut after) = Judge::of_both(config(""), config("pregreet.action = \"drop\""));
    let mut report = Report::default();
    for entry in &everybody()[..4] {
        let was = before.judge(entry).unwrap_or_else(|_| Judge::what_happened(entry));
        report.add(entry, was, after.judge(entry));
    }
    report.skipped = 1;
    let expected = "\
1 of 4 sessions would change sides, 2 would not, of 1 it can't be known.
They began between 2023-11-14 22:13:20Z and 2023-11-14 22:13:20Z.
passed -> refused: 1

By reason
SESSIONS  CHANGE             WAS   WOULD BE
1         passed -> refused  none  failed pregreet

By network
SESSIONS  CHANGE             NETWORK
1         passed -> refused  2001:db8::/64

Not known
SESSIONS  BECAUSE
1         the kernel turned the client away before a test

1 lines of the journal could not be read.
";
    assert_eq!(report.text(10), expected);
}
