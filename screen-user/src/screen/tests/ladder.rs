//! Spec 1.6 to 1.8, rung by rung.

use super::*;
use crate::screen::outcome::{Reason, Verdict};

#[test]
fn one_connection_too_many() {
    let mut rules = pregreet(Action::Ignore);
    rules.limits.client_connections = 2;
    let mut story = Story::new(rules);
    let _first = story.connect("192.0.2.9:1");
    let _second = story.connect("192.0.2.9:2");
    let mut third = story.connect(CLIENT);
    assert_eq!(third.hears(), "421 4.7.0 Error: too many connections\n");
    assert_eq!(
        third.log_text(),
        "CONNECT from CLIENT to SERVER\nNOQUEUE: reject: CONNECT from CLIENT: too many connections\nDISCONNECT CLIENT"
    );
    let outcome = third.outcome();
    assert_eq!((outcome.verdict, outcome.reason), (Verdict::Deferred, Reason::TooManyConnections));
    assert_eq!(story.screen.snapshot().checking, 2);
}

#[test]
fn the_limit_counts_prefixes_and_comes_before_the_access_list() {
    let mut rules = pregreet(Action::Ignore);
    rules.limits.client_connections = 1;
    let mut story = Story::new(rules);
    let _first = story.connect("[2001:db8:1:2::1]:1");
    let mut second = story.open("[2001:db8:1:2:ffff::1]:2", "[2001:db8::25]:25", Standing::Allowed);
    assert_eq!(second.hears(), "421 4.7.0 Error: too many connections\n");
    assert!(story.connect("[2001:db8:1:3::1]:3").hears().starts_with("220-"));
}

#[test]
fn zero_limits_nothing() {
    let mut rules = pregreet(Action::Ignore);
    rules.limits = Limits { client_connections: 0, pre_queue: 0, post_queue: 0, ..rules.limits };
    let mut story = Story::new(rules);
    let mut visits: Vec<Visit> = (1..=200).map(|port| story.connect(&format!("192.0.2.9:{port}"))).collect();
    assert!(visits.iter_mut().all(|visit| visit.hears() == "220-mx.example.test ESMTP\n"));
    assert!(!story.screen.snapshot().stress);
}

#[test]
fn all_server_ports_busy_hits_everybody() {
    let mut rules = policy();
    rules.limits.post_queue = 1;
    let mut story = Story::new(rules);
    let mut waiting = story.connect("192.0.2.1:1");
    assert!(waiting.forwards());
    let mut next = story.open(CLIENT, "198.51.100.2:25", Standing::Allowed);
    assert_eq!(next.hears(), "421 4.3.2 All server ports are busy\n");
    assert_eq!(
        next.log_text(),
        "CONNECT from CLIENT to SERVER\nNOQUEUE: reject: CONNECT from CLIENT: all server ports busy\nDISCONNECT CLIENT"
    );
    story.tell(&mut waiting, ACCEPTED);
    assert!(story.connect(CLIENT).forwards());
}

#[test]
fn screening_ports_are_busy_one_below_the_limit() {
    let mut rules = pregreet(Action::Ignore);
    rules.limits.pre_queue = 3;
    let mut story = Story::new(rules);
    let mut first = story.connect("192.0.2.1:1");
    let _second = story.connect("192.0.2.2:1");
    let mut third = story.connect(CLIENT);
    assert_eq!(third.hears(), "421 4.3.2 All screening ports are busy\n");
    let log = third.log_text();
    assert!(log.contains("\nreject: connect from CLIENT: all screening ports busy\nDISCONNECT CLIENT"), "{log}");
    // A client that waits for the mail server is not being screened any more.
    story.wait(&mut first, seconds(6));
    assert_eq!(story.connect("192.0.2.3:1").hears(), "220-mx.example.test ESMTP\n");
}

#[test]
fn listed_clients_by_standing_action_and_wording() {
    let denied = |action| Policy { denylist_action: action, ..policy() };
    let classic = |rules: Policy| Policy { log_style: LogStyle::Classic, ..rules };
    // (policy, standing, heard at once, second log line, forwarded)
    let rows = [
        (policy(), Standing::Allowed, "", "ALLOWLISTED CLIENT", true),
        (classic(policy()), Standing::Allowed, "", "WHITELISTED CLIENT", true),
        (
            denied(Action::Drop),
            Standing::Denied,
            "521 5.3.2 Service currently unavailable\n",
            "DENYLISTED CLIENT",
            false,
        ),
        (
            classic(denied(Action::Drop)),
            Standing::Denied,
            "521 5.3.2 Service currently unavailable\n",
            "BLACKLISTED CLIENT",
            false,
        ),
        (denied(Action::Enforce), Standing::Denied, "220 mx.example.test ESMTP\n", "DENYLISTED CLIENT", false),
        (denied(Action::Ignore), Standing::Denied, "", "DENYLISTED CLIENT", true),
        (
            denied(Action::Ignore),
            Standing::Barred,
            "521 5.3.2 Service currently unavailable\n",
            "DENYLISTED CLIENT",
            false,
        ),
        (policy(), Standing::Unlisted, "", "", true),
    ];
    for (rules, standing, heard, line, forwarded) in rows {
        let row = format!("{standing:?} {:?}", rules.denylist_action);
        let mut story = Story::new(rules);
        let mut visit = story.open(CLIENT, "198.51.100.2:25", standing);
        assert_eq!(visit.hears(), heard, "{row}");
        let log = visit.log_text();
        assert_eq!(log.lines().nth(1).unwrap_or_default(), line, "{row}");
        assert_eq!(visit.forwards(), forwarded, "{row}");
    }
}

#[test]
fn a_denied_client_under_enforce_gets_550_and_earns_nothing() {
    let mut rules = pregreet(Action::Ignore);
    rules.denylist_action = Action::Enforce;
    let mut story = Story::new(rules);
    let mut visit = story.open(CLIENT, "198.51.100.2:25", Standing::Denied);
    story.wait(&mut visit, seconds(6));
    assert_eq!(visit.hears(), "220-mx.example.test ESMTP\n220 mx.example.test ESMTP\n");
    story.send(&mut visit, "EHLO a\r\n");
    story.send(&mut visit, "MAIL FROM:<>\r\n");
    assert_eq!(story.send(&mut visit, "RCPT TO:<r@y>\r\n"), "550 5.3.2 Service currently unavailable\n");
    story.send(&mut visit, "QUIT\r\n");
    let outcome = visit.outcome();
    assert_eq!((outcome.verdict, outcome.reason), (Verdict::Rejected, Reason::Denied));
    assert_eq!(story.record(CLIENT), None);
}

#[test]
fn barring_is_not_renewed_by_coming_again() {
    let mut rules = policy();
    rules.remember_failures = seconds(600);
    let mut story = Story::new(rules);
    let mut visit = story.open(CLIENT, "198.51.100.2:25", Standing::Barred);
    assert!(!visit.effects().iter().any(|effect| matches!(effect, Effect::Bar(_))));
}

#[test]
fn known_clients_go_straight_on_and_are_new_only_once() {
    let mut story = Story::new(pregreet(Action::Enforce));
    let mut first = story.connect(CLIENT);
    story.wait(&mut first, seconds(6));
    assert_eq!(first.log_text(), "CONNECT from CLIENT to SERVER\nPASS NEW CLIENT");
    story.tell(&mut first, ACCEPTED);
    let mut second = story.connect(CLIENT);
    assert_eq!(second.log_text(), "CONNECT from CLIENT to SERVER\nPASS OLD CLIENT");
    assert_eq!(second.hears(), "");
    story.tell(&mut second, ACCEPTED);
    assert_eq!(second.outcome().reason, Reason::Known);
    // Valid in its last second, and not after it.
    story.now += seconds(DAY);
    assert!(story.connect("192.0.2.9:2").forwards());
    story.now += seconds(1);
    let mut third = story.connect(CLIENT);
    assert_eq!(third.hears(), "220-mx.example.test ESMTP\n");
    third.logs();
    story.wait(&mut third, seconds(6));
    assert_eq!(third.log_text(), "PASS OLD CLIENT");
}

#[test]
fn of_overlapping_sessions_the_first_is_new() {
    let mut story = Story::new(pregreet(Action::Enforce));
    let mut first = story.connect("192.0.2.9:1");
    let mut second = story.connect("192.0.2.9:2");
    first.logs();
    second.logs();
    story.wait(&mut first, seconds(6));
    story.wait(&mut second, seconds(0));
    assert_eq!(first.logs(), ["PASS NEW [192.0.2.9]:1"]);
    assert_eq!(second.logs(), ["PASS OLD [192.0.2.9]:2"]);
}

#[test]
fn without_tests_nothing_is_logged_or_kept() {
    let mut story = Story::new(policy());
    let mut visit = story.connect(CLIENT);
    assert_eq!(visit.log_text(), "CONNECT from CLIENT to SERVER");
    assert!(visit.forwards());
    story.tell(&mut visit, ACCEPTED);
    assert_eq!(story.record(CLIENT), None);
    story.assert_empty();
}

fn with_backup_address(mut rules: Policy) -> Policy {
    let all = "0.0.0.0/0".parse().unwrap();
    rules.allowlist_addresses = AddressList::new(vec![(false, "198.51.100.3/32".parse().unwrap()), (true, all)]);
    rules
}

#[test]
fn a_backup_address_earns_nothing_but_honours_what_was_earned() {
    let mut story = Story::new(with_backup_address(pregreet(Action::Enforce)));
    let mut vetoed = story.open(CLIENT, "198.51.100.3:25", Standing::Unlisted);
    assert_eq!(vetoed.logs()[1], "ALLOWLIST VETO [192.0.2.9]:33115");
    story.wait(&mut vetoed, seconds(6));
    story.send(&mut vetoed, "MAIL FROM:<>\r\n");
    vetoed.hears();
    assert_eq!(story.send(&mut vetoed, "RCPT TO:<r@y>\r\n"), "450 4.3.2 Service currently unavailable\n");
    story.send(&mut vetoed, "QUIT\r\n");
    assert_eq!(vetoed.outcome().reason, Reason::Vetoed);
    assert_eq!(story.record(CLIENT), None);
    let mut passed = story.connect(CLIENT);
    story.wait(&mut passed, seconds(6));
    story.tell(&mut passed, ACCEPTED);
    assert!(story.open(CLIENT, "198.51.100.3:25", Standing::Unlisted).forwards());
}

#[test]
fn a_parallel_session_of_a_valid_client_is_not_vetoed() {
    let mut story = Story::new(with_backup_address(pregreet(Action::Enforce)));
    let mut first = story.connect("192.0.2.9:1");
    story.wait(&mut first, seconds(6));
    // Still waiting for the mail server.
    let mut second = story.open(CLIENT, "198.51.100.3:25", Standing::Unlisted);
    assert_eq!(second.log_text(), "CONNECT from CLIENT to [198.51.100.3]:25");
    assert!(second.forwards());
}

#[test]
fn deep_passes_are_shared_before_their_session_concludes() {
    let mut story = Story::new(deep(Action::Enforce));
    let mut first = story.connect("192.0.2.9:1");
    for line in ["EHLO a\r\n", "MAIL FROM:<>\r\n", "RCPT TO:<r@y>\r\n"] {
        story.send(&mut first, line);
    }
    assert!(story.connect("192.0.2.9:2").forwards());
    // A later violation takes the shared pass away again.
    story.send(&mut first, "NOOP\n");
    let mut third = story.connect("192.0.2.9:3");
    assert_eq!(third.hears(), "220 mx.example.test ESMTP\n");
    story.send(&mut first, "QUIT\r\n");
    assert_eq!(story.record(CLIENT), None);
}

#[test]
fn a_client_that_was_turned_away_first_is_still_looked_up() {
    let mut rules = pregreet(Action::Enforce);
    rules.limits.client_connections = 2;
    let mut story = Story::new(rules);
    let mut stamps = [Stamp::NEVER; 5];
    stamps[Test::Pregreet as usize] = Stamp(story.unix() + 100);
    let known = Record::of_stamps(stamps);
    story.screen.restore(
        [(Client::of("192.0.2.9".parse().unwrap(), ClientPrefix { ipv4: 32, ipv6: 64 }), known)],
        story.unix(),
    );
    let mut allowed = story.open("192.0.2.9:1", "198.51.100.2:25", Standing::Allowed);
    assert!(allowed.forwards());
    assert!(story.connect("192.0.2.9:2").forwards());
}

#[test]
fn a_failed_hand_over_without_a_greeting() {
    for (result, reply) in [
        (ForwardResult::Unreachable, "421 4.3.2 All server ports are busy\n"),
        (ForwardResult::Failed, "421 4.3.2 No system resources\n"),
        (ForwardResult::ClientLeft, ""),
    ] {
        let mut story = Story::new(policy());
        let mut visit = story.open(CLIENT, "198.51.100.2:25", Standing::Allowed);
        story.tell(&mut visit, Event::Forwarded(result));
        assert_eq!(visit.hears(), reply);
        assert_eq!(visit.log_text(), "CONNECT from CLIENT to SERVER\nALLOWLISTED CLIENT\nDISCONNECT CLIENT");
        assert!(!visit.outcome().was_forwarded());
        story.assert_empty();
    }
}

#[test]
fn a_failed_hand_over_after_the_teaser_answers_one_command() {
    for (command, reply) in [
        ("EHLO a\r\n", "421 4.3.2 No system resources\n"),
        ("GET / HTTP/1.0\r\nHost: x\r\n", "421 4.3.2 No system resources\n"),
        ("QUIT\r\n", "221 2.0.0 Bye\n"),
    ] {
        let mut story = Story::new(pregreet(Action::Enforce));
        let mut visit = story.connect(CLIENT);
        story.wait(&mut visit, seconds(6));
        story.tell(&mut visit, Event::Forwarded(ForwardResult::Unreachable));
        assert_eq!(visit.hears(), "220-mx.example.test ESMTP\n220 mx.example.test ESMTP\n");
        assert_eq!(story.send(&mut visit, command), reply);
        assert_eq!(visit.log_text(), "CONNECT from CLIENT to SERVER\nPASS NEW CLIENT\nDISCONNECT CLIENT");
        assert_eq!(visit.outcome().reason, Reason::NoBackend);
        // The pass was earned all the same.
        assert!(story.stamp(CLIENT, Test::Pregreet).is_valid(story.unix()));
    }
}
