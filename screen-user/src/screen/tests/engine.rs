//! Spec 4: the dummy engine, its replies and its tests.

use super::*;
use crate::screen::{
    event::Interest,
    outcome::{Reason, TestResult, Verdict},
};

const COME_BACK: &str = "450 4.3.2 Service currently unavailable\n";
const UNKNOWN: &str = "502 5.5.2 Error: command not recognized\n";

/// A session in the engine, with the deep tests on.
fn engine(rules: Policy) -> (Story, Visit) {
    let mut story = Story::new(rules);
    let mut visit = story.connect(CLIENT);
    assert_eq!(visit.hears(), "220 mx.example.test ESMTP\n");
    visit.logs();
    (story, visit)
}

fn strict() -> Policy {
    let mut rules = deep(Action::Enforce);
    rules.smtp.helo_required = true;
    rules.smtp.disable_vrfy = true;
    rules
}

/// Spec 4.4, row by row: commands in order, and the reply to the last one.
#[test]
fn every_command_and_reply() {
    const MAIL: &str = "MAIL FROM:<s@x>";
    let plain: [(&[&str], &str); 44] = [
        (&["HELO"], "501 Syntax: HELO hostname\n"),
        (&["HELO  "], "501 Syntax: HELO hostname\n"),
        (&["HELO a b c"], "250 mx.example.test\n"),
        (&["helo a"], "250 mx.example.test\n"),
        (&["EHLO"], "501 Syntax: EHLO hostname\n"),
        (&[MAIL], "250 2.1.0 Ok\n"),
        (&["  mail  FROM:<s@x> SIZE=1"], "250 2.1.0 Ok\n"),
        (&["MAIL x:y@z"], "250 2.1.0 Ok\n"),
        (&["MAIL FROM:<>"], "250 2.1.0 Ok\n"),
        (&[MAIL, MAIL], "503 5.5.1 Error: nested MAIL command\n"),
        (&["MAIL"], "501 5.5.4 Syntax: MAIL FROM:<address>\n"),
        (&["MAIL FROM <s@x>"], "501 5.5.4 Syntax: MAIL FROM:<address>\n"),
        (&["MAIL\tFROM:<s@x>"], UNKNOWN),
        (&["RCPT TO:<r@y>"], "503 5.5.1 Error: need MAIL command\n"),
        (&[MAIL, "RCPT"], "501 5.5.4 Syntax: RCPT TO:<address>\n"),
        (&[MAIL, "RCPT TO"], "501 5.5.4 Syntax: RCPT TO:<address>\n"),
        (&[MAIL, "RCPT TO:<r@y>"], COME_BACK),
        (&[MAIL, "RCPT TO:"], COME_BACK),
        (&[MAIL, "HELO a", "RCPT TO:<r@y>"], "503 5.5.1 Error: need MAIL command\n"),
        (&[MAIL, "EHLO a", "RCPT TO:<r@y>"], "503 5.5.1 Error: need MAIL command\n"),
        (&[MAIL, "RSET", "RCPT TO:<r@y>"], "503 5.5.1 Error: need MAIL command\n"),
        (&["DATA"], "503 5.5.1 Error: need RCPT command\n"),
        (&["DATA now"], "501 5.5.4 Syntax: DATA\n"),
        (&[MAIL, "DATA"], "554 5.5.1 Error: no valid recipients\n"),
        (&[MAIL, "RCPT TO:<r@y>", "DATA"], "554 5.5.1 Error: no valid recipients\n"),
        (&["BDAT"], "501 5.5.4 Syntax: BDAT count [LAST]\n"),
        (&["BDAT 3 LAST"], "554 5.5.1 Error: need MAIL command\n"),
        (&[MAIL, "BDAT 3"], "554 5.5.1 Error: no valid recipients\n"),
        (&["RSET x"], "250 2.0.0 Ok\n"),
        (&["NOOP x"], "250 2.0.0 Ok\n"),
        (&["VRFY"], "501 5.5.4 Syntax: VRFY address\n"),
        (&["VRFY a b"], COME_BACK),
        (&["ETRN"], "500 Syntax: ETRN domain\n"),
        (&["ETRN example.test"], "458 Unable to queue messages\n"),
        (&["QUIT now"], "221 2.0.0 Bye\n"),
        (&["STARTTLS"], "502 5.5.1 Error: command not implemented\n"),
        (&["STARTTLS now"], "501 5.5.4 Syntax: STARTTLS\n"),
        (&[""], UNKNOWN),
        (&["HELP"], UNKNOWN),
        (&["EXPN list"], UNKNOWN),
        (&["AUTH PLAIN x"], UNKNOWN),
        (&["XCLIENT NAME=x"], UNKNOWN),
        (&["XFORWARD NAME=x"], UNKNOWN),
        (&["NOOP\0QUIT"], "250 2.0.0 Ok\n"),
    ];
    let strictly: [(&[&str], &str); 7] = [
        (&[MAIL], "503 5.5.1 Error: send HELO/EHLO first\n"),
        (&["HELO a", MAIL], "250 2.1.0 Ok\n"),
        (&["EHLO a", MAIL], "250 2.1.0 Ok\n"),
        (&["ETRN a"], "503 5.5.1 Error: send HELO/EHLO first\n"),
        (&["HELO a", "ETRN"], "500 Syntax: ETRN domain\n"),
        (&["VRFY"], "501 5.5.4 Syntax: VRFY address\n"),
        (&["VRFY a"], "502 5.5.1 VRFY command is disabled\n"),
    ];
    let rows = plain.iter().map(|row| (deep(Action::Enforce), row)).chain(strictly.iter().map(|row| (strict(), row)));
    for (rules, (commands, reply)) in rows {
        let (mut story, mut visit) = engine(rules);
        let heard = commands.iter().map(|command| story.send(&mut visit, &format!("{command}\r\n"))).last().unwrap();
        assert_eq!(heard, *reply, "{commands:?}");
        let ends = ["DATA", "BDAT", "QUIT"].iter().any(|verb| commands.last().unwrap().starts_with(verb));
        assert_eq!(visit.session.has_ended(), ends, "{commands:?}");
    }
}

#[test]
fn data_and_bdat_are_logged() {
    for verb in ["DATA", "BDAT"] {
        let (mut story, mut visit) = engine(deep(Action::Enforce));
        story.send(&mut visit, &format!("{verb}\r\n"));
        assert_eq!(visit.log_text(), format!("{verb} without valid RCPT from CLIENT\nDISCONNECT CLIENT"));
    }
}

#[test]
fn ehlo_lists_what_is_not_discarded() {
    let everything = "250-mx.example.test\n250-SIZE 10240000\n250-VRFY\n250-ETRN\n250-ENHANCEDSTATUSCODES\n250-8BITMIME\n250-DSN\n250-SMTPUTF8\n250 CHUNKING\n";
    let (mut story, mut visit) = engine(deep(Action::Enforce));
    assert_eq!(story.send(&mut visit, "EHLO a\r\n"), everything);

    let words = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut rules = deep(Action::Enforce);
    rules.smtp.message_size_limit = 0;
    rules.smtp.disable_vrfy = true;
    rules.smtp.smtputf8 = false;
    rules.smtp.discard_ehlo_keywords = words("CHUNKING NONSENSE DSN");
    rules.smtp.discard_ehlo_keywords_by_client = vec![
        ("192.0.2.0/28".parse().unwrap(), words("DSN ETRN")),
        (
            "192.0.2.16/28".parse().unwrap(),
            words("SILENT-DISCARD SIZE VRFY ETRN ENHANCEDSTATUSCODES 8BITMIME DSN SMTPUTF8 CHUNKING"),
        ),
        ("192.0.2.32/28".parse().unwrap(), words("DSN CHUNKING")),
    ];
    let mut story = Story::new(rules);
    // (client, reply, logged, reply to BDAT)
    let rows = [
        (
            "192.0.2.99:7",
            "250-mx.example.test\n250-SIZE\n250-ETRN\n250-ENHANCEDSTATUSCODES\n250 8BITMIME\n",
            "",
            "502 5.5.1 Error: command not implemented\n",
        ),
        (
            "192.0.2.1:7",
            "250-mx.example.test\n250-SIZE\n250-ENHANCEDSTATUSCODES\n250-8BITMIME\n250 CHUNKING\n",
            "[192.0.2.1]7: discarding EHLO keywords: ETRN DSN",
            "501 5.5.4 Syntax: BDAT count [LAST]\n",
        ),
        ("192.0.2.17:7", "250 mx.example.test\n", "", "502 5.5.1 Error: command not implemented\n"),
        // The same set as the general one is no set of its own.
        (
            "192.0.2.33:7",
            "250-mx.example.test\n250-SIZE\n250-ETRN\n250-ENHANCEDSTATUSCODES\n250 8BITMIME\n",
            "",
            "502 5.5.1 Error: command not implemented\n",
        ),
    ];
    for (client, reply, logged, bdat) in rows {
        let mut visit = story.connect(client);
        visit.hears();
        visit.logs();
        assert_eq!(story.send(&mut visit, "EHLO a\r\n"), reply);
        assert_eq!(visit.log_text(), logged);
        assert_eq!(story.send(&mut visit, "BDAT\r\n"), bdat);
    }
}

#[test]
fn the_reject_line_shows_the_envelope() {
    // (MAIL, RCPT, what the line ends with)
    let rows = [
        ("MAIL FROM:<>", "RCPT TO:<>", "from=<>, to=<>, proto=ESMTP, helo=<h>"),
        ("MAIL FROM: s@x SIZE=1", "RCPT TO:r@y NOTIFY=NEVER", "from=<s@x>, to=<r@y>, proto=ESMTP, helo=<h>"),
        ("MAIL FROM:<\"a b\"@x>", "RCPT TO:<a\\>b@y>", "from=<\"a b\"@x>, to=<\"a>b\"@y>, proto=ESMTP, helo=<h>"),
        ("MAIL FROM:<@r,@s:u@y>", "RCPT TO:<@r:u@y>", "from=<u@y>, to=<u@y>, proto=ESMTP, helo=<h>"),
        ("MAIL FROM:<open@x", "RCPT TO:<\"\">", "from=<open@x>, to=<>, proto=ESMTP, helo=<h>"),
        (
            "MAIL FROM:<\"q\\\"\\\\\"@x>",
            "RCPT TO:<.a@y>",
            "from=<\"q\\\"\\\\\"@x>, to=<\".a\"@y>, proto=ESMTP, helo=<h>",
        ),
        ("MAIL FROM:<\u{e9}\u{1}@x>", "RCPT TO:<@y>", "from=<\"\u{e9}?\"@x>, to=<\"\"@y>, proto=ESMTP, helo=<h>"),
    ];
    for (mail, rcpt, end) in rows {
        let (mut story, mut visit) = engine(deep(Action::Enforce));
        story.send(&mut visit, "EHLO h there\r\n");
        story.send(&mut visit, &format!("{mail}\r\n"));
        visit.logs();
        story.send(&mut visit, &format!("{rcpt}\r\n"));
        assert_eq!(
            visit.log_text(),
            format!("NOQUEUE: reject: RCPT from CLIENT: 450 4.3.2 Service currently unavailable; {end}")
        );
    }
}

/// Spec 4.6: (line, log line, reply with drop, reply with enforce)
#[test]
fn the_three_deep_tests() {
    let rows = [
        ("NOOP a\n", "BARE NEWLINE from CLIENT after NOOP a", "521 5.5.1 Protocol error\n", "250 2.0.0 Ok\n"),
        ("\n", "BARE NEWLINE from CLIENT after ", "521 5.5.1 Protocol error\n", UNKNOWN),
        (
            "get / HTTP/1.0\r\n",
            "NON-SMTP COMMAND from CLIENT after HELO: get / HTTP/1.0",
            "521 5.7.0 Error: I can break rules, too. Goodbye.\n",
            UNKNOWN,
        ),
        (
            "Subject: x\r\n",
            "NON-SMTP COMMAND from CLIENT after HELO: Subject: x",
            "521 5.7.0 Error: I can break rules, too. Goodbye.\n",
            UNKNOWN,
        ),
        (
            "MAIL:\r\n",
            "NON-SMTP COMMAND from CLIENT after HELO: MAIL: ",
            "521 5.7.0 Error: I can break rules, too. Goodbye.\n",
            UNKNOWN,
        ),
        (
            "250 ok\\\r\n",
            r"NON-SMTP COMMAND from CLIENT after HELO: 250 ok\\",
            "521 5.7.0 Error: I can break rules, too. Goodbye.\n",
            UNKNOWN,
        ),
        (
            "nOop\r\nRSET\r\n",
            r"COMMAND PIPELINING from CLIENT after nOop: RSET\r\n",
            "521 5.5.1 Protocol error\n",
            "250 2.0.0 Ok\n250 2.0.0 Ok\n",
        ),
        (
            "XYZZY\r\n\u{e9}",
            r"COMMAND PIPELINING from CLIENT after XYZZY: \303\251",
            "521 5.5.1 Protocol error\n",
            UNKNOWN,
        ),
    ];
    for (input, line, dropped, enforced) in rows {
        for (action, reply) in [(Action::Drop, dropped), (Action::Enforce, enforced), (Action::Ignore, enforced)] {
            let (mut story, mut visit) = engine(deep(action));
            story.send(&mut visit, "HELO a\r\n");
            assert_eq!(story.send(&mut visit, input), reply, "{input:?} {action:?}");
            assert_eq!(visit.logs()[0].replace("[192.0.2.9]:33115", "CLIENT"), line, "{input:?}");
            assert_eq!(visit.session.has_ended(), action == Action::Drop);
            // Once in a session is enough.
            if action != Action::Drop {
                story.send(&mut visit, input);
                assert!(!visit.log_text().contains(line.split_once(" from").unwrap().0));
            }
        }
    }
}

#[test]
fn what_is_no_violation() {
    let (mut story, mut visit) = engine(deep(Action::Drop));
    for line in ["XYZZY\r\n", "Subject : x\r\n", "NOOP a\r\r\n", "NOOP a\rb\r\n", "BDA", "T", "\r\n"] {
        story.send(&mut visit, line);
    }
    assert_eq!(visit.log_text(), "BDAT without valid RCPT from CLIENT\nDISCONNECT CLIENT");
    let (mut story, mut visit) = engine(deep(Action::Drop));
    story.send(&mut visit, "BDAT 5 LAST\r\nhello");
    assert!(!visit.log_text().contains("PIPELINING"));
}

#[test]
fn malformed_utf8_is_not_smtp_where_utf8_is_spoken() {
    for (smtputf8, known) in [(true, true), (false, false)] {
        let mut rules = deep(Action::Enforce);
        rules.smtp.smtputf8 = smtputf8;
        rules.forbidden = ForbiddenCommands::default();
        let (mut story, mut visit) = engine(rules);
        story.tell(&mut visit, Event::Received(b"X\xff\r\n"));
        assert_eq!(visit.log_text().starts_with("NON-SMTP COMMAND from CLIENT after CONNECT: X? "), known);
    }
}

#[test]
fn a_good_client_passes_at_a_recipient_and_is_told_to_come_back() {
    let (mut story, mut visit) = engine(deep(Action::Enforce));
    story.well_behaved(&mut visit);
    let log = visit.log_text();
    assert!(log.ends_with("helo=<a>\nPASS NEW CLIENT\nDISCONNECT CLIENT"), "{log}");
    assert_eq!(story.stamp(CLIENT, Test::BareNewline), Stamp(story.unix() + 30 * DAY));
    assert_eq!(story.stamp(CLIENT, Test::Pregreet), Stamp::DISABLED);
    let outcome = visit.outcome();
    assert_eq!((outcome.verdict, outcome.reason), (Verdict::Deferred, Reason::Passed));
    assert_eq!(outcome.smtp.unwrap().recipients, 1);
    assert!(story.connect(CLIENT).forwards());
}

#[test]
fn a_recipient_in_any_state_passes_the_deep_tests() {
    let mut encrypted = deep(Action::Enforce);
    encrypted.tls = TlsLevel::Encrypt;
    for (rules, lines) in [
        (deep(Action::Enforce), vec!["RCPT TO:<r@y>"]),
        (deep(Action::Enforce), vec!["MAIL FROM:<>", "RCPT r@y"]),
        (encrypted, vec!["MAIL FROM:<>", "RCPT TO:<r@y>"]),
    ] {
        let (mut story, mut visit) = engine(rules);
        for line in &lines {
            story.send(&mut visit, &format!("{line}\r\n"));
        }
        story.send(&mut visit, "QUIT\r\n");
        assert!(visit.log_text().contains("PASS NEW CLIENT"), "{lines:?}");
    }
}

#[test]
fn an_ignored_failure_counts_as_long_as_the_shortest_pass() {
    let mut rules = deep(Action::Ignore);
    rules.pipelining.ttl = seconds(5 * DAY);
    rules.dnsbl.min_ttl = seconds(60);
    let (mut story, mut visit) = engine(rules);
    story.send(&mut visit, "HELO a\n");
    story.well_behaved(&mut visit);
    assert!(visit.log_text().contains("PASS NEW CLIENT"));
    assert_eq!(story.stamp(CLIENT, Test::BareNewline), Stamp(story.unix() + 5 * DAY));
    assert_eq!(visit.outcome().tests[4].result, TestResult::Ignored);
    // It comes back a quarter of an hour later, as mail servers do.
    story.now += seconds(900);
    assert!(story.connect(CLIENT).forwards());
}

#[test]
fn pipelined_commands_are_all_answered() {
    let (mut story, mut visit) = engine(deep(Action::Enforce));
    let heard = story.send(&mut visit, "HELO x\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\n");
    assert_eq!(
        heard,
        "250 mx.example.test\n250 2.1.0 Ok\n550 5.5.1 Protocol error\n554 5.5.1 Error: no valid recipients\n"
    );
    assert!(
        visit
            .log_text()
            .starts_with(r"COMMAND PIPELINING from CLIENT after HELO: MAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\n")
    );
}

#[test]
fn soft_bounce_softens_replies_and_the_reject_line() {
    let mut rules = deep(Action::Enforce);
    rules.smtp.soft_bounce = true;
    let (mut story, mut visit) = engine(rules);
    assert_eq!(story.send(&mut visit, "HELP\r\n"), "402 4.5.2 Error: command not recognized\n");
    assert_eq!(story.send(&mut visit, "HELO\r\n"), "401 Syntax: HELO hostname\n");
    story.send(&mut visit, "MAIL FROM:<>\n");
    visit.logs();
    assert_eq!(story.send(&mut visit, "RCPT TO:<b>\r\n"), "450 4.5.1 Protocol error\n");
    assert!(visit.log_text().contains(": 450 4.5.1 Protocol error; from=<>"));
}

#[test]
fn commands_are_rewritten_by_the_first_rule_that_matches() {
    let rule = |pattern: &str, to: &str| (regex::bytes::Regex::new(pattern).unwrap(), to.to_owned());
    let mut rules = deep(Action::Enforce);
    rules.smtp.command_rewrite = vec![rule("^PING (.*)", "NOOP ${1}"), rule("^PING", "QUIT")];
    let (mut story, mut visit) = engine(rules);
    assert_eq!(story.send(&mut visit, "\t PING a\u{1}b\r\n"), "250 2.0.0 Ok\n");
    assert_eq!(visit.log_text(), "CLIENT: replacing command \"PING a?b\" with \"NOOP a?b\"");
    assert_eq!(story.send(&mut visit, "PING\r\n"), "221 2.0.0 Bye\n");
}

fn tls(level: TlsLevel) -> Policy {
    let mut rules = deep(Action::Enforce);
    rules.tls = level;
    rules
}

#[test]
fn starttls_forgets_what_was_said_in_the_clear() {
    let (mut story, mut visit) = engine(tls(TlsLevel::May));
    assert!(story.send(&mut visit, "EHLO a\r\n").contains("250-STARTTLS\n"));
    story.send(&mut visit, "MAIL FROM:<>\r\n");
    visit.effects();
    // Commands behind STARTTLS are no commands, whoever put them there.
    assert_eq!(story.send(&mut visit, "STARTTLS\r\nRCPT TO:<r@y>\r\nNOO"), "220 2.0.0 Ready to start TLS\n");
    assert_eq!(visit.effects(), [Effect::Watch(Interest::Nothing), Effect::StartTls]);
    assert!(visit.log_text().contains(r"COMMAND PIPELINING from CLIENT after STARTTLS: RCPT TO:<r@y>\r\nNOO"));
    // Nor is what still comes before the handshake.
    assert_eq!(story.send(&mut visit, "QUIT\r\n"), "");
    story.tell(&mut visit, Event::TlsEstablished);
    assert_eq!(visit.effects(), [Effect::Watch(Interest::Read)]);
    assert_eq!(story.send(&mut visit, "RCPT TO:<r@y>\r\n"), "503 5.5.1 Error: need MAIL command\n");
    assert_eq!(story.send(&mut visit, "STARTTLS\r\n"), "554 5.5.1 Error: TLS already active\n");
    assert!(!story.send(&mut visit, "EHLO a\r\n").contains("STARTTLS"));
    story.send(&mut visit, "QUIT\r\n");
    assert!(visit.outcome().smtp.unwrap().tls);
}

#[test]
fn a_handshake_that_fails_or_takes_too_long_is_a_hang_up() {
    for late in [false, true] {
        let (mut story, mut visit) = engine(tls(TlsLevel::May));
        story.send(&mut visit, "STARTTLS\r\n");
        if late {
            story.wait(&mut visit, seconds(300));
        } else {
            story.tell(&mut visit, Event::PeerClosed);
        }
        assert_eq!(visit.hears(), "");
        let after = if late { "300" } else { "0" };
        assert_eq!(
            visit.log_text(),
            format!("HANGUP after {after} from CLIENT in tests after SMTP handshake\nDISCONNECT CLIENT")
        );
    }
}

#[test]
fn starttls_that_can_not_be_served() {
    for (state, reply, announced) in [
        (TlsState::Absent, "502 5.5.1 Error: command not implemented\n", false),
        (TlsState::Broken, "454 4.7.0 TLS not available due to local problem\n", true),
    ] {
        let (mut story, mut visit) = engine(tls(TlsLevel::May));
        story.screen.set_tls(state);
        assert_eq!(story.send(&mut visit, "EHLO a\r\n").contains("STARTTLS"), announced);
        // Input behind a refused STARTTLS is answered at once.
        assert_eq!(story.send(&mut visit, "STARTTLS\r\nNOOP\r\n"), format!("{reply}250 2.0.0 Ok\n"));
    }
}

#[test]
fn encryption_can_be_demanded() {
    let must = "530 5.7.0 Must issue a STARTTLS command first\n";
    let (mut story, mut visit) = engine(tls(TlsLevel::Encrypt));
    for command in ["MAIL FROM:<>", "RCPT TO:<a>", "RSET", "VRFY a", "ETRN a", "DATA", "BDAT 1 LAST"] {
        assert_eq!(story.send(&mut visit, &format!("{command}\r\n")), must, "{command}");
    }
    for (command, reply) in [
        ("NOOP", "250 2.0.0 Ok\n"),
        ("HELO a", "250 mx.example.test\n"),
        ("AUTH x", UNKNOWN),
        ("QUIT", "221 2.0.0 Bye\n"),
    ] {
        assert_eq!(story.send(&mut visit, &format!("{command}\r\n")), reply, "{command}");
    }
}

#[test]
fn a_hang_up_keeps_what_was_passed() {
    for event in [Event::PeerClosed, Event::WriteFailed] {
        let (mut story, mut visit) = engine(deep(Action::Enforce));
        for line in ["EHLO a\r\n", "MAIL FROM:<>\r\n", "RCPT TO:<r@y>\r\n"] {
            story.send(&mut visit, line);
        }
        visit.logs();
        story.now += seconds(11);
        story.tell(&mut visit, event);
        assert_eq!(
            visit.log_text(),
            "HANGUP after 11 from CLIENT in tests after SMTP handshake\nPASS NEW CLIENT\nDISCONNECT CLIENT"
        );
        assert!(story.record(CLIENT).is_some());
    }
}
