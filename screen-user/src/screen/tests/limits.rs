//! Spec 4.2 and 7: limits of the engine, of a session, and stress.

use super::*;
use crate::screen::log::LimitReached;
use crate::screen::outcome::Reason;

fn engine(rules: Policy) -> (Story, Visit) {
    let mut story = Story::new(rules);
    let mut visit = story.connect(CLIENT);
    visit.hears();
    visit.logs();
    (story, visit)
}

const TRY_AGAIN: &str = "421 mx.example.test Service unavailable - try again later\n";
const TIMEOUT: &str = "421 4.4.2 mx.example.test Error: timeout exceeded\n";

#[test]
fn a_line_of_the_limit_fits_and_one_byte_more_does_not() {
    for pieces in [1, 7, 2048] {
        for (length, fits) in [(2048, true), (2049, false)] {
            let (mut story, mut visit) = engine(deep(Action::Enforce));
            let line = format!("NOOP {}\r\n", "x".repeat(length - 7));
            let mut heard = String::new();
            for piece in line.as_bytes().chunks(line.len().div_ceil(pieces)) {
                story.tell(&mut visit, Event::Received(piece));
                heard.push_str(&visit.hears());
            }
            assert_eq!(heard, if fits { "250 2.0.0 Ok\n" } else { TRY_AGAIN }, "{length} in {pieces}");
            if !fits {
                assert_eq!(visit.log_text(), "COMMAND LENGTH LIMIT from CLIENT after CONNECT\nDISCONNECT CLIENT");
            }
        }
    }
}

#[test]
fn the_command_time_is_for_a_whole_line() {
    let (mut story, mut visit) = engine(deep(Action::Enforce));
    story.wait(&mut visit, seconds(200));
    story.send(&mut visit, "HELO a\r\n");
    story.wait(&mut visit, seconds(299));
    // Part of a line does not win time.
    assert_eq!(story.send(&mut visit, "NOO"), "");
    assert!(!visit.session.has_ended());
    story.wait(&mut visit, seconds(1));
    assert_eq!(visit.hears(), TIMEOUT);
    assert_eq!(visit.log_text(), "COMMAND TIME LIMIT from CLIENT after HELO\nDISCONNECT CLIENT");
    assert_eq!(visit.outcome().reason, Reason::Limit(LimitReached::CommandTime));
}

#[test]
fn the_command_after_the_last_may_only_be_quit() {
    for (last, reply, line) in [
        ("NOOP", TRY_AGAIN, "COMMAND COUNT LIMIT from CLIENT after UNIMPLEMENTED\n"),
        ("XYZ", TRY_AGAIN, "COMMAND COUNT LIMIT from CLIENT after UNIMPLEMENTED\n"),
        ("quit", "221 2.0.0 Bye\n", ""),
    ] {
        let (mut story, mut visit) = engine(deep(Action::Enforce));
        for _ in 0..20 {
            assert_eq!(story.send(&mut visit, "FOO\r\n"), "502 5.5.2 Error: command not recognized\n");
        }
        assert_eq!(story.send(&mut visit, &format!("{last}\r\n")), reply);
        assert_eq!(visit.log_text(), format!("{line}DISCONNECT CLIENT"));
    }
}

#[test]
fn a_session_has_a_deadline() {
    let mut rules = deep(Action::Enforce);
    rules.smtp.session_time_limit = seconds(400);
    let (mut story, mut visit) = engine(rules);
    story.wait(&mut visit, seconds(250));
    story.send(&mut visit, "HELO a\r\n");
    story.wait(&mut visit, seconds(149));
    assert!(!visit.session.has_ended());
    story.wait(&mut visit, seconds(1));
    assert_eq!(visit.hears(), TIMEOUT);
    assert_eq!(visit.log_text(), "SESSION TIME LIMIT from CLIENT after HELO\nDISCONNECT CLIENT");
}

#[test]
fn the_deadline_holds_before_the_greeting_too() {
    let mut rules = dnsbl(&["a.test"], Action::Drop);
    rules.smtp.session_time_limit = seconds(3);
    let (mut story, mut visit) = engine(rules);
    story.wait(&mut visit, seconds(3));
    assert_eq!(visit.hears(), TIMEOUT);
    assert_eq!(visit.log_text(), "SESSION TIME LIMIT from CLIENT after CONNECT\nDISCONNECT CLIENT");
    assert!(visit.effects().contains(&Effect::EndLookUp));
}

#[test]
fn a_session_may_send_so_much() {
    let mut rules = deep(Action::Enforce);
    rules.smtp.session_byte_limit = 10;
    let (mut story, mut visit) = engine(rules);
    assert_eq!(story.send(&mut visit, "NOOP abc\r\n"), "250 2.0.0 Ok\n");
    assert_eq!(story.send(&mut visit, "Q"), TRY_AGAIN);
    assert_eq!(visit.log_text(), "SESSION BYTE LIMIT from CLIENT after NOOP\nDISCONNECT CLIENT");
}

#[test]
fn a_timer_that_goes_off_early_is_armed_again() {
    let (mut story, mut visit) = engine(pregreet(Action::Enforce));
    story.now += seconds(2);
    story.tell(&mut visit, Event::TimerFired);
    assert_eq!(visit.timer, Some(story.now + seconds(4)));
}

#[test]
fn stress_begins_at_nine_tenths_and_ends_at_seven() {
    let mut rules = pregreet(Action::Enforce);
    rules.limits.pre_queue = 10;
    let mut story = Story::new(rules);
    let mut visits: Vec<Visit> = (0..8).map(|host| story.connect(&format!("192.0.2.{host}:1"))).collect();
    assert!(!story.screen.snapshot().stress);
    let mut ninth = story.connect(CLIENT);
    assert_eq!(ninth.log_text(), "CONNECT from CLIENT to SERVER\nentering STRESS mode with 9 connections");
    // Shorter waits from now on, for new ones only.
    assert_eq!(ninth.timer, Some(story.now + seconds(2)));
    assert_eq!(visits[0].timer, Some(story.now + seconds(6)));
    story.now += seconds(1);
    story.tell(&mut visits[0], Event::PeerClosed);
    assert!(story.screen.snapshot().stress);
    story.tell(&mut visits[1], Event::PeerClosed);
    let log = visits[1].logs();
    assert_eq!(log[log.len() - 2..], ["DISCONNECT [192.0.2.1]:1", "leaving STRESS mode with 7 connections"]);
}

#[test]
fn stress_shortens_command_times_and_what_is_left_of_a_wait() {
    let mut rules = dnsbl(&["a.test"], Action::Enforce);
    rules.pregreet.teaser = "hello".into();
    rules.pregreet.action = Action::Enforce;
    rules.limits.pre_queue = 10;
    let mut story = Story::new(rules);
    let mut first = story.connect(CLIENT);
    let _others: Vec<Visit> = (20..28).map(|host| story.connect(&format!("192.0.2.{host}:1"))).collect();
    story.now += seconds(1);
    story.tell(&mut first, Event::Peeked(b"x"));
    assert_eq!(first.timer, Some(story.now + seconds(1)));
    story.wait(&mut first, seconds(1));
    assert_eq!(first.timer, Some(story.now + seconds(10)));
}

#[test]
fn an_aborted_session_gives_its_place_back() {
    let mut story = Story::new(pregreet(Action::Enforce));
    let mut early = story.connect(CLIENT);
    let mut forwarding = story.open("192.0.2.1:1", "198.51.100.2:25", Standing::Allowed);
    let now = story.clock();
    for visit in [&mut early, &mut forwarding] {
        let effects = visit.session.abort(&mut story.screen, now);
        assert!(matches!(effects.as_slice(), [Effect::End(_)]));
        assert!(visit.session.abort(&mut story.screen, now).is_empty());
    }
    story.assert_empty();
}

#[test]
fn a_waiting_client_is_cheap() {
    // What 15,000 waiting clients cost: the session itself, without an engine, a tally or evidence.
    assert!(size_of::<Session>() <= 320, "{}", size_of::<Session>());
}
