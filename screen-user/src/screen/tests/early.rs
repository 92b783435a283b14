//! Spec 3: pregreet and DNSBL.

use super::*;
use crate::screen::{
    bar::{Bar, Life},
    event::Interest,
    outcome::{Reason, TestResult, Verdict},
    session::State,
};

#[test]
fn the_phase_starts_with_teaser_look_up_and_timer() {
    let mut rules = dnsbl(&["a.test"], Action::Drop);
    rules.pregreet.teaser = "hello".into();
    let mut story = Story::new(rules);
    let mut visit = story.connect(CLIENT);
    assert_eq!(visit.hears(), "220-hello\n");
    assert_eq!(visit.effects(), [Effect::LookUp, Effect::Watch(Interest::Peek)]);
    assert_eq!(visit.timer, Some(story.now + seconds(6)));
}

#[test]
fn without_pregreet_neither_teaser_nor_input() {
    let mut story = Story::new(dnsbl(&["a.test"], Action::Drop));
    let mut visit = story.connect(CLIENT);
    assert_eq!(visit.hears(), "");
    assert_eq!(visit.effects(), [Effect::LookUp, Effect::Watch(Interest::Nothing)]);
}

#[test]
fn early_talk_by_action() {
    // (action, heard afterwards, forwarded)
    for (action, heard, forwarded) in
        [(Action::Ignore, "", true), (Action::Enforce, "", false), (Action::Drop, "521 5.5.1 Protocol error\n", false)]
    {
        let mut story = Story::new(pregreet(action));
        let mut visit = story.connect(CLIENT);
        visit.hears();
        visit.logs();
        story.now += Duration::from_millis(1230);
        story.tell(&mut visit, Event::Peeked(b"EHLO foo\r\n"));
        assert_eq!(visit.hears(), heard, "{action:?}");
        assert_eq!(visit.logs()[0], r"PREGREET 10 after 1.2 from [192.0.2.9]:33115: EHLO foo\r\n");
        assert_eq!(visit.forwards(), forwarded, "{action:?}");
        assert_eq!(story.record(CLIENT), None, "{action:?}");
    }
}

#[test]
fn an_enforced_early_talker_hears_no_more_of_the_greeting() {
    let mut story = Story::new(pregreet(Action::Enforce));
    let mut visit = story.connect(CLIENT);
    story.tell(&mut visit, Event::Peeked(b"HELO foo\r\n"));
    visit.hears();
    assert_eq!(story.send(&mut visit, "HELO foo\r\n"), "250 mx.example.test\n");
    story.send(&mut visit, "MAIL FROM:<\"a b\"@x>\r\n");
    visit.logs();
    assert_eq!(story.send(&mut visit, "RCPT TO:<@r:u@y>\r\n"), "550 5.5.1 Protocol error\n");
    assert_eq!(
        visit.log_text(),
        "NOQUEUE: reject: RCPT from CLIENT: 550 5.5.1 Protocol error; from=<\"a b\"@x>, to=<u@y>, proto=SMTP, helo=<foo>"
    );
    // A failure switches the deep tests on, with their actions, although none is enabled.
    assert_eq!(story.send(&mut visit, "GET / HTTP/1.0\r\n"), "521 5.7.0 Error: I can break rules, too. Goodbye.\n");
    let outcome = visit.outcome();
    assert_eq!((outcome.verdict, outcome.reason), (Verdict::Rejected, Reason::Failed(Test::NonSmtpCommand)));
    assert_eq!(outcome.tests[0].result, TestResult::Failed);
    assert_eq!(&*outcome.tests[0].evidence, r"HELO foo\r\n");
}

#[test]
fn the_pregreet_text_is_cut_after_escaping() {
    let mut story = Story::new(pregreet(Action::Enforce));
    let mut visit = story.connect(CLIENT);
    visit.logs();
    story.tell(&mut visit, Event::Peeked(&[0; 200]));
    assert_eq!(visit.log_text(), format!("PREGREET 200 after 0 from CLIENT: {}", r"\000".repeat(25)));
}

#[test]
fn a_hang_up_in_the_greet_wait() {
    for event in [Event::PeerClosed, Event::WriteFailed, Event::Peeked(b"")] {
        let mut rules = dnsbl(&["a.test"], Action::Drop);
        rules.pregreet.teaser = "hello".into();
        let mut story = Story::new(rules);
        let mut visit = story.connect(CLIENT);
        visit.hears();
        visit.logs();
        visit.effects();
        story.now += Duration::from_millis(50);
        story.tell(&mut visit, event);
        assert_eq!(visit.hears(), "");
        assert_eq!(visit.log_text(), "HANGUP after 0.05 from CLIENT in tests before SMTP handshake\nDISCONNECT CLIENT");
        let effects = visit.effects();
        assert_eq!(effects[0], Effect::EndLookUp);
        assert!(matches!(effects.as_slice(), [_, Effect::End(outcome)] if outcome.verdict == Verdict::HungUp));
        story.assert_empty();
    }
}

/// Spec 3.3, row by row: when does the early phase end?
#[test]
fn when_the_phase_ends() {
    let both = |allowlist_threshold| {
        let mut rules = dnsbl(&["a.test", "good.test*-1"], Action::Enforce);
        rules.pregreet.teaser = "hello".into();
        rules.pregreet.action = Action::Enforce;
        rules.dnsbl.allowlist_threshold = allowlist_threshold;
        rules
    };
    let only_dnsbl = || dnsbl(&["a.test", "good.test*-1"], Action::Enforce);
    // (policy, talks early, code of the allow list, seconds until the end)
    let rows = [
        (pregreet(Action::Enforce), false, None, 6.0),
        (pregreet(Action::Enforce), true, None, 1.0),
        (only_dnsbl(), false, None, 2.0),
        (both(0), false, None, 6.0),
        (both(0), false, Some("127.0.0.2"), 6.0),
        (both(-1), false, Some("127.0.0.2"), 2.0),
        (both(0), true, None, 2.0),
    ];
    for (index, (rules, talks, allowed, end)) in rows.into_iter().enumerate() {
        let asked = !rules.dnsbl.sites.zones().is_empty();
        let mut story = Story::new(rules);
        let mut visit = story.connect(CLIENT);
        let first = not_listed(0, 100);
        let second = allowed.map_or(not_listed(1, 100), |code| listed(1, code, 100));
        let events = [
            (1.0, talks.then_some(Event::Peeked(b"x"))),
            (1.5, asked.then_some(Event::Dnsbl(&first))),
            (2.0, asked.then_some(Event::Dnsbl(&second))),
        ];
        let mut ended = None;
        let start = story.now;
        for (at, event) in events {
            story.now = start + Duration::from_secs_f64(at);
            if let Some(event) = event {
                story.tell(&mut visit, event);
            }
            if visit.session.state != State::Early {
                ended = ended.or(Some(at));
            }
        }
        if ended.is_none() {
            ended = visit.timer.map(|at| (at - start).as_secs_f64());
            story.wait(&mut visit, seconds(10));
            assert_ne!(visit.session.state, State::Early);
        }
        assert_eq!(ended, Some(end), "row {index}");
    }
}

#[test]
fn after_early_talk_the_rest_of_the_wait_is_for_dnsbl() {
    let mut rules = dnsbl(&["a.test"], Action::Enforce);
    rules.pregreet.teaser = "hello".into();
    let mut story = Story::new(rules);
    let mut visit = story.connect(CLIENT);
    visit.effects();
    story.now += seconds(2);
    story.tell(&mut visit, Event::Peeked(b"x"));
    assert_eq!(visit.timer, Some(story.now + seconds(4)));
    assert_eq!(visit.effects(), [Effect::Watch(Interest::Nothing)]);
    // A second look at the same bytes is no second failure.
    visit.logs();
    story.tell(&mut visit, Event::Peeked(b"x"));
    assert_eq!(visit.log_text(), "");
}

#[test]
fn a_listed_client_by_action() {
    let reply = "5.7.1 Service unavailable; client [192.0.2.9] blocked using a.test\n";
    for (action, heard, recipient) in [
        (Action::Drop, format!("521 {reply}"), None),
        (Action::Enforce, "220 mx.example.test ESMTP\n".into(), Some(format!("550 {reply}"))),
        (Action::Ignore, String::new(), None),
    ] {
        let mut story = Story::new(dnsbl(&["a.test*2", "b.test"], action));
        let mut visit = story.connect(CLIENT);
        visit.logs();
        story.tell(&mut visit, Event::Dnsbl(&listed(0, "127.0.0.2", 500)));
        story.tell(&mut visit, Event::Dnsbl(&listed(1, "127.0.0.2", 500)));
        assert_eq!(visit.hears(), heard, "{action:?}");
        assert_eq!(visit.logs()[0], "DNSBL rank 3 for [192.0.2.9]:33115");
        if let Some(recipient) = recipient {
            story.send(&mut visit, "MAIL FROM:<>\r\n");
            assert_eq!(story.send(&mut visit, "RCPT TO:<a@b>\r\n"), recipient);
        }
        assert_eq!(visit.forwards(), action == Action::Ignore);
        assert_eq!(story.record(CLIENT), None);
    }
}

#[test]
fn the_last_failure_decides_what_recipients_hear() {
    let mut rules = dnsbl(&["a.test"], Action::Enforce);
    rules.pregreet.teaser = "hello".into();
    rules.pregreet.action = Action::Enforce;
    let mut story = Story::new(rules);
    let mut visit = story.connect(CLIENT);
    story.tell(&mut visit, Event::Peeked(b"HELO x\r\n"));
    story.tell(&mut visit, Event::Dnsbl(&listed(0, "127.0.0.2", 500)));
    story.send(&mut visit, "HELO x\r\n");
    story.send(&mut visit, "MAIL FROM:<>\r\n");
    assert!(story.send(&mut visit, "RCPT TO:<a@b>\r\n").starts_with("550 5.7.1 "));
    // Pipelining comes later still.
    assert!(story.send(&mut visit, "NOOP\r\nRCPT TO:<a@b>\r\n").ends_with("550 5.5.1 Protocol error\n"));
}

#[test]
fn an_ignored_failure_leaves_the_reason_to_an_earlier_one() {
    let mut rules = dnsbl(&["a.test"], Action::Ignore);
    rules.pregreet.teaser = "hello".into();
    rules.pregreet.action = Action::Enforce;
    let mut story = Story::new(rules);
    let mut visit = story.connect(CLIENT);
    story.tell(&mut visit, Event::Peeked(b"HELO x\r\n"));
    story.tell(&mut visit, Event::Dnsbl(&listed(0, "127.0.0.2", 500)));
    story.send(&mut visit, "HELO x\r\n");
    story.send(&mut visit, "QUIT\r\n");
    let outcome = visit.outcome();
    assert_eq!((outcome.verdict, outcome.reason), (Verdict::Rejected, Reason::Failed(Test::Pregreet)));
}

#[test]
fn partial_answers_count_when_the_wait_is_over() {
    let mut story = Story::new(dnsbl(&["a.test*2", "slow.test"], Action::Drop));
    let mut visit = story.connect(CLIENT);
    story.tell(&mut visit, Event::Dnsbl(&listed(0, "127.0.0.2", 500)));
    assert_eq!(visit.hears(), "");
    story.wait(&mut visit, seconds(6));
    assert!(visit.hears().starts_with("521 5.7.1 "));
    let outcome = visit.outcome();
    let evidence = outcome.dnsbl.unwrap();
    assert_eq!((evidence.score, evidence.complete, evidence.hits.len()), (2, false, 1));
    assert_eq!(&*evidence.hits[0].zone, "a.test");
}

#[test]
fn a_pass_lasts_as_long_as_the_answers_say() {
    // (answers, seconds): clamped to 60..3600.
    let rows: [(Vec<DnsblAnswer>, u64); 5] = [
        (vec![not_listed(0, 500), not_listed(1, 700)], 500),
        (vec![not_listed(0, 5), not_listed(1, 700)], 60),
        (vec![not_listed(0, 5000), not_listed(1, 7000)], 3600),
        (vec![not_listed(0, 500), DnsblAnswer { zone: 1, reply: ZoneReply::Failed }], 500),
        (
            vec![DnsblAnswer { zone: 0, reply: ZoneReply::Failed }, DnsblAnswer { zone: 1, reply: ZoneReply::Failed }],
            60,
        ),
    ];
    for (answers, lifetime) in rows {
        let mut story = Story::new(dnsbl(&["a.test", "b.test"], Action::Drop));
        let mut visit = story.connect(CLIENT);
        for answer in &answers {
            story.tell(&mut visit, Event::Dnsbl(answer));
        }
        assert!(visit.forwards());
        assert_eq!(story.stamp(CLIENT, Test::Dnsbl), Stamp(story.unix() + lifetime), "{answers:?}");
    }
}

#[test]
fn a_good_score_spares_all_other_tests() {
    let mut rules = deep(Action::Enforce);
    rules.pregreet.teaser = "hello".into();
    rules.bare_newline.enabled = false;
    rules.dnsbl = dnsbl(&["good.test*-2"], Action::Drop).dnsbl;
    rules.dnsbl.allowlist_threshold = -2;
    let mut story = Story::new(rules.clone());
    let mut visit = story.connect(CLIENT);
    story.tell(&mut visit, Event::Dnsbl(&listed(0, "127.0.0.2", 500)));
    assert!(visit.log_text().ends_with("PASS NEW CLIENT"));
    assert!(visit.forwards());
    for test in Test::ALL {
        assert_eq!(story.stamp(CLIENT, test), Stamp(story.unix() + 500), "{test}");
    }
    // A failure before the score is known is not forgiven, even one that is to be ignored.
    let mut story = Story::new(rules);
    let mut visit = story.connect(CLIENT);
    story.tell(&mut visit, Event::Peeked(b"x"));
    story.tell(&mut visit, Event::Dnsbl(&listed(0, "127.0.0.2", 500)));
    assert_eq!(visit.hears(), "220-hello\n220 mx.example.test ESMTP\n");
}

#[test]
fn a_good_score_at_the_end_of_the_wait_forgives_an_ignored_failure() {
    let mut rules = dnsbl(&["good.test*-2", "slow.test"], Action::Drop);
    rules.pregreet.teaser = "hello".into();
    rules.pipelining.enabled = true;
    rules.dnsbl.allowlist_threshold = -2;
    let mut story = Story::new(rules);
    let mut visit = story.connect(CLIENT);
    story.tell(&mut visit, Event::Dnsbl(&listed(0, "127.0.0.2", 500)));
    story.tell(&mut visit, Event::Peeked(b"x"));
    story.wait(&mut visit, seconds(6));
    assert!(visit.forwards());
}

#[test]
fn an_ignored_failure_keeps_the_other_passes() {
    let mut rules = dnsbl(&["a.test"], Action::Drop);
    rules.pregreet.teaser = "hello".into();
    let mut story = Story::new(rules);
    let mut visit = story.connect(CLIENT);
    visit.logs();
    story.tell(&mut visit, Event::Peeked(b"x"));
    story.tell(&mut visit, Event::Dnsbl(&not_listed(0, 500)));
    assert_eq!(visit.log_text(), "PREGREET 1 after 0 from CLIENT: x");
    assert!(visit.forwards());
    assert_eq!(story.stamp(CLIENT, Test::Pregreet), Stamp::NEVER);
    assert_eq!(story.stamp(CLIENT, Test::Dnsbl), Stamp(story.unix() + 500));
    assert_eq!(story.stamp(CLIENT, Test::Pipelining), Stamp::DISABLED);
}

fn bar(visit: &mut Visit) -> Bar {
    let bars: Vec<Bar> = visit
        .effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Bar(bar) => Some(*bar),
            _ => None,
        })
        .collect();
    assert_eq!(bars.len(), 1, "{bars:?}");
    bars[0].clone()
}

fn barred(test: Test, evidence: &str, life: Life) -> Bar {
    Bar { test, evidence: evidence.into(), life }
}

#[test]
fn failing_with_drop_bars_for_a_while() {
    // (policy, what the client does, seconds)
    let with = |mut rules: Policy| {
        rules.remember_failures = seconds(600);
        rules
    };
    let mut story = Story::new(with(pregreet(Action::Drop)));
    let mut visit = story.connect(CLIENT);
    story.tell(&mut visit, Event::Peeked(b"x"));
    assert_eq!(bar(&mut visit), barred(Test::Pregreet, "x", Life::Growing(seconds(600))));
    // A listing lasts as long as its TTL, within the limits.
    for (ttl, lasts) in [(10, 60), (1000, 1000), (100_000, 3600)] {
        let mut story = Story::new(with(dnsbl(&["a.test"], Action::Drop)));
        let mut visit = story.connect(CLIENT);
        story.tell(&mut visit, Event::Dnsbl(&listed(0, "127.0.0.2", ttl)));
        assert_eq!(bar(&mut visit), barred(Test::Dnsbl, "score 1, a.test", Life::Listing(seconds(lasts))), "{ttl}");
    }
    let mut story = Story::new(with(deep(Action::Drop)));
    let mut visit = story.connect(CLIENT);
    story.send(&mut visit, "NOOP\n");
    assert_eq!(bar(&mut visit), barred(Test::BareNewline, "NOOP", Life::Growing(seconds(600))));
    // Zero is postscreen's way.
    let mut story = Story::new(pregreet(Action::Drop));
    let mut visit = story.connect(CLIENT);
    story.tell(&mut visit, Event::Peeked(b"x"));
    assert!(!visit.effects().iter().any(|effect| matches!(effect, Effect::Bar(_))));
}

#[test]
fn zones_that_list_a_client_are_told_by_the_names_that_may_be_shown() {
    let shown = ["key1.a.test", "key2.a.test"].map(|zone| (zone.to_owned(), "a.test".to_owned()));
    let sites = ["key1.a.test", "good.test*-1", "key2.a.test*2", "b.test"].map(str::to_owned);
    let mut rules = dnsbl(&["a.test"], Action::Drop);
    rules.dnsbl.sites = Arc::new(Sites::parse(&sites, &shown.into()).unwrap());
    rules.remember_failures = seconds(600);
    let mut story = Story::new(rules);
    let mut visit = story.connect(CLIENT);
    (0..4).for_each(|zone| story.tell(&mut visit, Event::Dnsbl(&listed(zone, "127.0.0.2", 100))));
    assert_eq!(bar(&mut visit), barred(Test::Dnsbl, "score 3, a.test b.test", Life::Listing(seconds(100))));
}
