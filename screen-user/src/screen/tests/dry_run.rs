//! Nobody is turned away in a dry run, and all that speaks against a client is logged and remembered.

use super::*;
use crate::screen::{
    bar::{Bar, Life},
    event::Envelope,
    log::LimitReached,
    outcome::{Reason, Verdict},
};

/// These rules in a dry run; who has taken the deep tests goes on.
fn dry(rules: Policy) -> Policy {
    Policy { dry_run: true, replays: true, remember_failures: seconds(600), ..rules }
}

fn objection(story: &mut Story, visit: &mut Visit) -> Option<Reason> {
    story.tell(visit, ACCEPTED);
    let outcome = visit.outcome();
    assert_eq!(outcome.verdict, Verdict::Forwarded);
    story.assert_empty();
    outcome.objection
}

fn bar(effects: &[Effect]) -> Option<&Bar> {
    effects.iter().find_map(|effect| match effect {
        Effect::Bar(bar) => Some(&**bar),
        _ => None,
    })
}

/// What goes to the mail server, of a client in front of the dummy engine that says these lines, each by itself.
fn handed_on(rules: Policy, lines: &[&str]) -> (Story, Visit, Envelope) {
    let mut story = Story::new(dry(rules));
    let mut visit = story.connect(CLIENT);
    for line in lines {
        assert!(!visit.hears().contains("\n5"));
        story.send(&mut visit, line);
    }
    assert_eq!(visit.hears(), "", "the answer is the mail server's");
    let effects = visit.effects();
    let envelope = effects.iter().find_map(|effect| match effect {
        Effect::Replay(envelope) => Some((**envelope).clone()),
        _ => None,
    });
    visit.effects = effects;
    (story, visit, envelope.expect("the session goes on to the mail server"))
}

#[test]
fn an_early_talker_goes_to_the_mail_server_and_its_failure_is_remembered() {
    for action in [Action::Enforce, Action::Drop] {
        let mut story = Story::new(dry(pregreet(action)));
        let mut visit = story.connect(CLIENT);
        visit.hears();
        story.tell(&mut visit, Event::Peeked(b"EHLO foo\r\n"));
        story.wait(&mut visit, seconds(6));
        assert_eq!(visit.hears(), "", "{action:?}");
        assert_eq!(
            visit.log_text(),
            "CONNECT from CLIENT to SERVER\nPREGREET 10 after 0 from CLIENT: EHLO foo\\r\\n (dry run)"
        );
        let effects = visit.effects();
        assert!(effects.contains(&Effect::Forward), "{action:?}");
        let barred = Bar { test: Test::Pregreet, evidence: "EHLO foo\\r\\n".into(), life: Life::Growing(seconds(600)) };
        assert_eq!(bar(&effects), (action == Action::Drop).then_some(&barred), "for the time after the dry run");
        assert_eq!(objection(&mut story, &mut visit), Some(Reason::Failed(Test::Pregreet)));
        assert_eq!(story.record(CLIENT), None, "it has passed nothing");
    }
}

#[test]
fn a_listed_client_goes_to_the_mail_server() {
    for action in [Action::Enforce, Action::Drop] {
        let mut story = Story::new(dry(dnsbl(&["a.test"], action)));
        let mut visit = story.connect(CLIENT);
        story.tell(&mut visit, Event::Dnsbl(&listed(0, "127.0.0.2", 500)));
        assert_eq!(visit.log_text(), "CONNECT from CLIENT to SERVER\nDNSBL rank 1 for CLIENT (dry run)");
        let effects = visit.effects();
        assert!(effects.contains(&Effect::Forward));
        assert_eq!(bar(&effects).map(|bar| bar.test), (action == Action::Drop).then_some(Test::Dnsbl));
        assert_eq!(objection(&mut story, &mut visit), Some(Reason::Failed(Test::Dnsbl)));
    }
}

#[test]
fn what_is_ignored_has_no_mark() {
    let mut story = Story::new(dry(pregreet(Action::Ignore)));
    let mut visit = story.connect(CLIENT);
    story.tell(&mut visit, Event::Peeked(b"EHLO foo\r\n"));
    assert!(visit.log_text().ends_with("EHLO foo\\r\\n"));
    assert_eq!(objection(&mut story, &mut visit), None);
}

#[test]
fn lists_turn_nobody_away() {
    let denied = |denylist_action| Policy { denylist_action, ..policy() };
    for (rules, standing, reason) in [
        (policy(), Standing::Barred, Reason::Barred),
        (denied(Action::Drop), Standing::Denied, Reason::Denied),
        (denied(Action::Enforce), Standing::Denied, Reason::Denied),
    ] {
        let mut story = Story::new(dry(rules));
        let mut visit = story.open(CLIENT, "198.51.100.2:25", standing);
        assert_eq!(visit.log_text(), "CONNECT from CLIENT to SERVER\nDENYLISTED CLIENT (dry run)");
        assert_eq!(objection(&mut story, &mut visit), Some(reason));
        assert_eq!(visit.hears(), "");
    }
    let mut story =
        Story::new(dry(Policy { allowlist_addresses: AddressList::new(Vec::new()), ..pregreet(Action::Drop) }));
    let mut visit = story.connect(CLIENT);
    story.wait(&mut visit, seconds(6));
    assert_eq!(visit.log_text(), "CONNECT from CLIENT to SERVER\nALLOWLIST VETO CLIENT (dry run)");
    assert_eq!(objection(&mut story, &mut visit), Some(Reason::Vetoed));
    assert_eq!(story.record(CLIENT), None, "no pass can be earned there");
}

#[test]
fn limits_on_clients_are_logged_and_let_everybody_on() {
    let mut rules = dry(pregreet(Action::Drop));
    rules.limits = Limits { client_connections: 1, pre_queue: 3, ..rules.limits };
    let mut story = Story::new(rules);
    let _first = story.connect("192.0.2.9:1");
    let mut second = story.connect(CLIENT);
    assert_eq!(second.hears(), "220-mx.example.test ESMTP\n", "it is tested like anybody");
    assert!(second.log_text().ends_with("NOQUEUE: reject: CONNECT from CLIENT: too many connections (dry run)"));
    let mut third = story.connect("192.0.2.3:3");
    assert!(
        third.logs().contains(&"reject: connect from [192.0.2.3]:3: all screening ports busy (dry run)".to_owned())
    );
    assert!(third.forwards(), "without a test, as there is no room for one");
    story.tell(&mut third, ACCEPTED);
    story.wait(&mut second, seconds(6));
    story.tell(&mut second, ACCEPTED);
    assert_eq!(second.outcome().objection, Some(Reason::TooManyConnections));
}

#[test]
fn a_full_queue_for_the_mail_server_still_holds() {
    let mut rules = dry(policy());
    rules.limits.post_queue = 1;
    let mut story = Story::new(rules);
    assert!(story.connect("192.0.2.1:1").forwards());
    assert_eq!(story.connect(CLIENT).hears(), "421 4.3.2 All server ports are busy\n");
}

#[test]
fn who_fails_a_deep_test_goes_on_with_what_it_has_said() {
    for (lines, mail, behind, test) in [
        (&["EHLO a\r\n", "MAIL FROM:<s@x>\r\nRCPT"][..], None, "MAIL FROM:<s@x>\r\nRCPT", Test::Pipelining),
        (
            &["EHLO a\r\n", "MAIL FROM:<s@x>\r\n", "RCPT TO:<r@y>\n"],
            Some("MAIL FROM:<s@x>"),
            "RCPT TO:<r@y>\n",
            Test::BareNewline,
        ),
        (&["EHLO a\r\n", "GE", "T / HTTP\r\n"], None, "GET / HTTP\r\n", Test::NonSmtpCommand),
    ] {
        for action in [Action::Enforce, Action::Drop] {
            let (mut story, mut visit, envelope) = handed_on(deep(action), lines);
            assert_eq!(envelope.hello.as_deref(), Some(&b"EHLO a"[..]));
            assert_eq!(envelope.mail.as_deref(), mail.map(str::as_bytes));
            assert_eq!((envelope.rcpt, &*envelope.behind), (None, behind.as_bytes()), "{test}");
            assert!(visit.log_text().ends_with(" (dry run)"));
            let barred = bar(&visit.effects).map(|bar| bar.test);
            assert_eq!(barred, (action == Action::Drop).then_some(test));
            assert_eq!(objection(&mut story, &mut visit), Some(Reason::Failed(test)));
            assert_eq!(story.record(CLIENT), None, "{test}");
        }
    }
}

#[test]
fn who_passes_the_deep_tests_is_known_and_goes_on_with_its_recipient() {
    let (mut story, mut visit, envelope) =
        handed_on(deep(Action::Drop), &["EHLO a\r\n", "MAIL FROM:<s@x>\r\n", "RCPT TO:<r@y>\r\n"]);
    assert_eq!(envelope.rcpt.as_deref(), Some(&b"RCPT TO:<r@y>"[..]));
    assert!(visit.log_text().ends_with("PASS NEW CLIENT"));
    assert_eq!(objection(&mut story, &mut visit), None);
    assert!(story.stamp(CLIENT, Test::Pipelining).is_pass());
}

#[test]
fn the_dummy_engine_refuses_no_command() {
    let unknown =
        ["AUTH PLAIN", "VRFY x", "ETRN x", "XCLIENT x", "DATA", "BDAT 1", "WHAT", "HELO", "MAIL x", "RCPT TO:<r@y>"];
    for command in unknown {
        let line = format!("{command}\r\n");
        let (_, _, envelope) = handed_on(deep(Action::Drop), &["EHLO a\r\n", &line]);
        assert_eq!((envelope.mail, envelope.rcpt, &*envelope.behind), (None, None, line.as_bytes()));
    }
    let encrypted = Policy { tls: TlsLevel::Encrypt, ..deep(Action::Drop) };
    let (_, _, envelope) = handed_on(encrypted, &["EHLO a\r\n", "MAIL FROM:<s@x>\r\n"]);
    assert_eq!(&*envelope.behind, b"MAIL FROM:<s@x>\r\n");
    let (_, _, envelope) = handed_on(deep(Action::Drop), &["EHLO a\r\n", "STARTTLS\r\n"]);
    assert_eq!(&*envelope.behind, b"STARTTLS\r\n", "where this host offers none, the mail server may");
}

#[test]
fn at_a_limit_of_the_dummy_engine_the_mail_server_goes_on() {
    let short = |line_length_limit| {
        let rules = deep(Action::Drop);
        Policy { smtp: Smtp { line_length_limit, ..rules.smtp.clone() }, ..rules }
    };
    let (mut story, mut visit, envelope) = handed_on(short(12), &["EHLO a\r\n", "MAIL FROM", ":<s@x.exam"]);
    assert_eq!((envelope.hello.as_deref(), &*envelope.behind), (Some(&b"EHLO a"[..]), &b"MAIL FROM:<s@x.exam"[..]));
    assert_eq!(objection(&mut story, &mut visit), Some(Reason::Limit(LimitReached::CommandLength)));

    let rules = deep(Action::Drop);
    let rules = Policy { smtp: Smtp { session_byte_limit: 12, command_count_limit: 2, ..rules.smtp.clone() }, ..rules };
    let (mut story, mut visit, envelope) = handed_on(rules.clone(), &["EHLO a\r\n", "NO", "OP\r\nNOOP\r\n"]);
    assert_eq!(&*envelope.behind, b"NOOP\r\nNOOP\r\n", "nothing is lost");
    assert_eq!(objection(&mut story, &mut visit), Some(Reason::Limit(LimitReached::SessionBytes)));
    let rules = Policy { smtp: Smtp { session_byte_limit: 0, ..rules.smtp.clone() }, ..rules };
    let (mut story, mut visit, envelope) = handed_on(rules, &["EHLO a\r\n", "NOOP\r\n", "RSET\r\n"]);
    assert_eq!(&*envelope.behind, b"RSET\r\n");
    assert_eq!(objection(&mut story, &mut visit), Some(Reason::Limit(LimitReached::CommandCount)));

    let mut story = Story::new(dry(deep(Action::Drop)));
    let mut visit = story.connect(CLIENT);
    story.send(&mut visit, "EHLO a\r\n");
    story.send(&mut visit, "MAI");
    story.wait(&mut visit, seconds(400));
    assert_eq!(visit.hears(), "");
    assert!(visit.log_text().ends_with("COMMAND TIME LIMIT from CLIENT after EHLO (dry run)"));
    assert!(visit.effects().iter().any(|effect| matches!(effect, Effect::Replay(said) if &*said.behind == b"MAI")));
    assert_eq!(objection(&mut story, &mut visit), Some(Reason::Limit(LimitReached::CommandTime)));
}

#[test]
fn only_a_mail_server_that_is_away_turns_somebody_away() {
    let (mut story, mut visit, _) = handed_on(deep(Action::Drop), &["EHLO a\r\n", "AUTH PLAIN\r\n"]);
    story.tell(&mut visit, Event::Forwarded(ForwardResult::Unreachable));
    assert_eq!(visit.hears(), "421 4.3.2 No system resources\n");
    let outcome = visit.outcome();
    assert_eq!((outcome.verdict, outcome.reason, outcome.objection), (Verdict::Deferred, Reason::NoBackend, None));
    story.assert_empty();
}
