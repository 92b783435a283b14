//! `mxscreen explain`: what the gate knows of one client, and what the journal has of it.

use std::{collections::VecDeque, fmt::Write as _, net::IpAddr, path::Path};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    cli::ExplainArgs,
    command::{json as print_json, print},
    exit::Failure,
    request::{self, Request},
    table,
};
use crate::{
    gate::words,
    journal::{Entry, Reader},
    screen::{
        found::{What, ZoneFound},
        outcome::TestResult,
    },
};

/// Sessions of the journal that are shown.
const SHOWN: usize = 20;

/// Asks the gate, and reads the journal.
///
/// # Errors
/// No gate answers.
pub(super) fn run(gate: &Path, arguments: &ExplainArgs) -> Result<(), Failure> {
    let (answer, past) = known(gate, arguments.address)?;
    if arguments.json { print_json(&answer) } else { print(&text(&answer, &past)) }
}

/// What `mxscreen explain` prints of a client.
///
/// # Errors
/// No gate answers.
pub(super) fn shown(gate: &Path, address: IpAddr) -> Result<String, Failure> {
    known(gate, address).map(|(answer, past)| text(&answer, &past))
}

fn known(gate: &Path, address: IpAddr) -> Result<(Value, Past), Failure> {
    let mut answer = request::ask(gate, &Request::Explain { address })?;
    let folder = answer.get("journal").and_then(Value::as_str).map(str::to_owned);
    let client: Option<IpNet> = answer.get("client").and_then(Value::as_str).and_then(|net| net.parse().ok());
    let past = match (folder, client) {
        (Some(folder), Some(client)) => Past::read(Path::new(&folder), client),
        _ => Past::default(),
    };
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("past".to_owned(), past.json());
    }
    Ok((answer, past))
}

/// What the journal has of a client.
#[derive(Debug, Default)]
struct Past {
    /// The last ones, oldest first.
    sessions: VecDeque<Entry>,
    /// How many there are.
    count: u64,
    /// Why it could not be read to its end.
    trouble: Option<String>,
}

impl Past {
    /// What can be read; an operator who may ask the gate may not be allowed to read its files.
    fn read(folder: &Path, client: IpNet) -> Self {
        let mut past = Self::default();
        let result = Reader::begin(folder).and_then(|mut reader| {
            while let Some(entry) = reader.next_entry()? {
                if client.contains(&entry.client.ip()) {
                    past.add(entry);
                }
            }
            Ok(())
        });
        // Before the first session there is no folder.
        past.trouble = result
            .err()
            .filter(|error| error.kind() != std::io::ErrorKind::NotFound)
            .map(|error| format!("{}: {error}", folder.display()));
        past
    }

    fn add(&mut self, entry: Entry) {
        self.count += 1;
        if self.sessions.len() == SHOWN {
            self.sessions.pop_front();
        }
        self.sessions.push_back(entry);
    }

    /// What the zones said when they were asked last, and when that was.
    fn zones(&self) -> Option<(u64, &[ZoneFound])> {
        self.sessions.iter().rev().find_map(|entry| {
            let found = entry.found.as_deref()?;
            (!found.zones.is_empty()).then_some((entry.time, found.zones.as_slice()))
        })
    }

    fn json(&self) -> Value {
        json!({ "sessions": self.count, "last": self.sessions, "trouble": self.trouble })
    }
}

/// A field that is a text; empty if it is none.
fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// For people: the answer in one sentence, then what it rests on.
fn text(answer: &Value, past: &Past) -> String {
    let mut text = format!("{} {}: {}.\n", field(answer, "address"), field(answer, "now"), field(answer, "because"));
    // Writing to a string does not fail.
    let _ = match field(answer, "decided_by") {
        "kernel" => writeln!(text, "The kernel decides that, before there is a connection."),
        _ => writeln!(text, "The screener decides that."),
    };
    lists(&mut text, answer);
    tests(&mut text, answer);
    zones(&mut text, past);
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

fn zones(text: &mut String, past: &Past) {
    let Some((time, zones)) = past.zones() else { return };
    // What tells zones of one name apart in the journal means nothing to a reader.
    let name = |zone: &ZoneFound| zone.zone.split('#').next().unwrap_or_default().to_owned();
    let rows: Vec<Vec<String>> = zones.iter().map(|zone| vec![name(zone), said(zone)]).collect();
    let _ = write!(text, "\nDNSBL answers of {}\n{}", table::instant(time), table::render(&["ZONE", "ANSWER"], &rows));
}

fn said(zone: &ZoneFound) -> String {
    match (zone.ms, zone.codes.as_deref()) {
        (None, _) => "none in time".to_owned(),
        (Some(_), None) => "none that can be used".to_owned(),
        (Some(_), Some([])) => "not listed".to_owned(),
        (Some(_), Some(codes)) => {
            format!("listed: {}", codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that an operator's users ask about: everything that there can be.
    fn answer() -> Value {
        json!({
            "address": "192.0.2.9", "client": "192.0.2.9/32",
            "now": "is turned away",
            "because": "it has failed a test (pregreet: EHLO x\\r\\n), for 420 s more",
            "decided_by": "kernel",
            "access_list": { "verdict": "undecided", "rule": null },
            "allow_entry": null,
            "deny_entry": {
                "net": "192.0.2.9/32", "until": 1_700_000_600, "reason": "pregreet: EHLO x\\r\\n", "host": "mx1.example.test",
            },
            "failures_remembered": 2,
            "imported_list": null,
            "pool_credit": null,
            "kernel_says": "denied",
            "tests": [
                { "test": "pregreet", "state": "never passed", "grounds": "unknown", "learnt": null },
                { "test": "dnsbl", "state": "passed, valid for 60 s", "grounds": "the test was taken", "learnt": 1_700_000_000 },
            ],
            "learnt_by": "mx1.example.test",
            "last_sessions": [{ "verdict": "rejected", "started": 1_700_000_000, "syn": "ttl=64 win=1" }],
            "kernel_counters": { "active": 0, "accepted": 3 },
            "kernel_refused": { "denied": 7, "limited": 0, "list": "failed test" },
        })
    }

    fn past() -> Past {
        let lines = [
            r#"{"time":1700000000,"client":"192.0.2.9:1","server":"198.51.100.2:25","ms":900,"verdict":"rejected","reason":{"failed":"pregreet"},"tests":[{"test":"pregreet","result":"failed","evidence":"EHLO x\\r\\n"}],"score":2,"found":{"sessions":1,"checking":1,"tls":"absent","known":"nothing","early":900,"watched":true,"zones":[{"zone":"a.test","ms":20,"codes":["127.0.0.2"]},{"zone":"b.test","ms":21,"codes":[]},{"zone":"c.test","ms":22},{"zone":"d.test#9d90abc2"}],"heard":[{"ms":900,"what":{"early":"EHLO x\r\n"}}]}}"#,
            r#"{"time":1700000100,"client":"192.0.2.9:2","server":"198.51.100.2:25","verdict":"rejected","reason":"barred","kernel":"failed test","found":{"stood":{"failed":"pregreet"},"sessions":0,"checking":0,"tls":"absent"}}"#,
            r#"{"time":1700000200,"client":"192.0.2.9:3","server":"198.51.100.2:25","ms":7000,"verdict":"deferred","reason":"none","tests":[{"test":"pipelining","result":"passed"}],"found":{"sessions":1,"checking":1,"tls":"absent","known":"nothing","heard":[{"ms":6000,"what":{"said":"EHLO \u00ff\r\n"}},{"ms":6010,"what":{"said":"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"}}]}}"#,
        ];
        let mut past = Past::default();
        lines.iter().map(|line| crate::journal::parse(line.as_bytes()).unwrap()).for_each(|entry| past.add(entry));
        past
    }

    #[test]
    fn the_answer_comes_first_and_what_it_rests_on_after() {
        let expected = "\
192.0.2.9 is turned away: it has failed a test (pregreet: EHLO x\\r\\n), for 420 s more.
The kernel decides that, before there is a connection.
  counts as: 192.0.2.9/32
  access list: undecided
  deny entry: 192.0.2.9/32 until 2023-11-14 22:23:20Z, by mx1.example.test: pregreet: EHLO x\\r\\n
  failures remembered: 2
  the kernel's tables: denied

Tests, the last by mx1.example.test
TEST      STATE                   LEARNT                WHY
pregreet  never passed            -                     unknown
dnsbl     passed, valid for 60 s  2023-11-14 22:13:20Z  the test was taken

DNSBL answers of 2023-11-14 22:13:20Z
ZONE    ANSWER
a.test  listed: 127.0.0.2
b.test  not listed
c.test  none that can be used
d.test  none in time

Connections, by the kernel: active 0, accepted 3

Turned away by the kernel: denied 7, limited 0, list failed test

Sessions in the journal: 3
WHEN                  VERDICT   REASON           WHAT WAS FOUND
2023-11-14 22:16:40Z  deferred  none             EHLO \\xff; MAIL FROM:<a@b>; RCPT TO:<c@d>
2023-11-14 22:15:00Z  rejected  barred           in the kernel failed test
2023-11-14 22:13:20Z  rejected  failed pregreet  pregreet: EHLO x\\r\\n

The last session in memory: rejected, 2023-11-14 22:13:20Z
  syn: ttl=64 win=1
";
        assert_eq!(text(&answer(), &past()), expected);
    }

    #[test]
    fn of_a_stranger_little_is_said() {
        let answer = json!({
            "address": "192.0.2.8", "client": "192.0.2.8/32", "now": "is screened",
            "because": "no list knows it, and it has no valid pass of every enabled test",
            "decided_by": "screener",
            "access_list": { "verdict": "undecided", "rule": null },
            "tests": null, "last_sessions": [],
        });
        let expected = "\
192.0.2.8 is screened: no list knows it, and it has no valid pass of every enabled test.
The screener decides that.
  counts as: 192.0.2.8/32
  access list: undecided

Tests: nothing is remembered of this client.

Sessions: 0 in memory, none in the journal.
";
        assert_eq!(text(&answer, &Past::default()), expected);
    }
}
