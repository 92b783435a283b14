use serde_json::{Value, json};

use super::{past::Past, text::text};

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

#[test]
fn what_the_gate_has_heard_of_the_zones_comes_before_the_journal() {
    let mut answer = answer();
    answer["dnsbl"] = json!({
        "client": "192.0.2.9", "asked": 1_700_000_300, "listed_by": ["a.test"], "score": 2, "threshold": 3, "blocked": false,
        "zones": [
            { "zone": "a.test", "answer": "listed", "codes": ["127.0.0.2", "127.0.0.4"], "score": 2, "until": 1_700_000_600 },
            { "zone": "b.test", "answer": "not-listed", "codes": null, "score": null, "until": 1_700_000_360 },
            { "zone": "c.test", "answer": "failed", "codes": null, "score": null, "until": null },
            { "zone": "d.test", "answer": "awaited", "codes": null, "score": null, "until": null },
        ],
    });
    let expected = "
DNSBL answers of 2023-11-14 22:18:20Z: score 2, threshold 3
ZONE    ANSWER                       SCORE  UNTIL
a.test  listed: 127.0.0.2 127.0.0.4  2      2023-11-14 22:23:20Z
b.test  not listed                   -      2023-11-14 22:19:20Z
c.test  none that can be used        -      -
d.test  none yet                     -      -

";
    let said = text(&answer, &past());
    assert!(said.contains(expected) && said.matches("DNSBL answers").count() == 1, "{said}");
    answer["dnsbl"]["client"] = "192.0.2.10".into();
    let said = text(&answer, &past());
    assert!(said.contains("DNSBL answers of 2023-11-14 22:18:20Z about 192.0.2.10: score 2"), "{said}");
}
