//! Sessions that go on to the mail server after the deep tests.

use super::*;
use crate::screen::{
    Extensions,
    event::{Envelope, Interest},
    outcome::{Reason, Verdict},
};

const COME_BACK: &str = "450 4.3.2 Service currently unavailable\n";
const UNREACHABLE: Event<'static> = Event::Forwarded(ForwardResult::Unreachable);
const FAILED: Event<'static> = Event::Forwarded(ForwardResult::Failed);

/// The deep tests on, with this action; who passes them goes on.
fn replaying(action: Action) -> Policy {
    Policy { replays: true, ..deep(action) }
}

fn envelope(visit: &mut Visit) -> Option<Envelope> {
    visit.effects().into_iter().find_map(|effect| match effect {
        Effect::Replay(envelope) => Some(*envelope),
        _ => None,
    })
}

fn said(hello: Option<&str>, mail: &str, rcpt: &str, behind: &str) -> Envelope {
    let bytes = |text: &str| text.as_bytes().into();
    Envelope { hello: hello.map(bytes), mail: Some(bytes(mail)), rcpt: Some(bytes(rcpt)), behind: bytes(behind) }
}

/// A client that has said these lines, one at a time, and waits for the mail server.
fn waiting(rules: Policy, lines: &[&str]) -> (Story, Visit) {
    let mut story = Story::new(rules);
    let mut visit = story.connect(CLIENT);
    for line in lines {
        visit.hears();
        story.send(&mut visit, line);
    }
    assert_eq!(visit.hears(), "", "the answer is the mail server's");
    (story, visit)
}

const LINES: [&str; 3] = ["EHLO a\r\n", "MAIL FROM:<s@x> SIZE=9\r\n", "RCPT TO:<r@y> NOTIFY=NEVER\r\n"];

#[test]
fn the_first_recipient_is_the_mail_servers() {
    let (mut story, mut visit) = waiting(replaying(Action::Enforce), &LINES);
    assert_eq!(story.screen.snapshot().forwarding, 1);
    let effects = visit.effects();
    assert!(effects.contains(&Effect::Watch(Interest::Nothing)), "what comes now is not for the dummy engine");
    let envelope = said(Some("EHLO a"), "MAIL FROM:<s@x> SIZE=9", "RCPT TO:<r@y> NOTIFY=NEVER", "");
    assert!(effects.contains(&Effect::Replay(Box::new(envelope))));
    assert_eq!(visit.log_text(), "CONNECT from CLIENT to SERVER\nPASS NEW CLIENT");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Remember(_))), "whatever becomes of it");
    assert!(story.stamp(CLIENT, Test::Pipelining).is_pass());

    story.tell(&mut visit, ACCEPTED);
    assert_eq!((visit.hears(), visit.log_text()), (String::new(), String::new()));
    let outcome = visit.outcome();
    assert_eq!((outcome.verdict, outcome.reason), (Verdict::Forwarded, Reason::Passed));
    assert_eq!(outcome.smtp.unwrap().recipients, 0, "none was refused here");
    story.assert_empty();

    let mut again = story.connect(CLIENT);
    assert!(again.forwards(), "it is known from now on");
}

#[test]
fn what_was_said_last_is_said_again() {
    for (lines, envelope) in [
        (
            &["HELO b\r\n", "MAIL FROM:<>\r\n", "rcpt TO:<r@y>\r\n"][..],
            said(Some("HELO b"), "MAIL FROM:<>", "RCPT TO:<r@y>", ""),
        ),
        (
            &["EHLO a\r\n", "HELO b\r\n", "MAIL FROM:<s@x>\r\n", "RCPT TO:<r@y>\r\n"],
            said(Some("HELO b"), "MAIL FROM:<s@x>", "RCPT TO:<r@y>", ""),
        ),
        (
            &["EHLO a\r\n", "MAIL FROM:<s@x>\r\n", "RSET\r\n", "MAIL FROM:<t@x>\r\n", "RCPT TO:<r@y>\r\n"],
            said(Some("EHLO a"), "MAIL FROM:<t@x>", "RCPT TO:<r@y>", ""),
        ),
        (&["MAIL FROM:<s@x>\r\n", "RCPT TO:<r@y>\r\n"], said(None, "MAIL FROM:<s@x>", "RCPT TO:<r@y>", "")),
        (
            &["EHLO a\r\n", "STARTTLS\r\n", "EHLO b\r\n", "MAIL FROM:<s@x>\r\n", "RCPT TO:<r@y>\r\n"],
            said(Some("EHLO b"), "MAIL FROM:<s@x>", "RCPT TO:<r@y>", ""),
        ),
    ] {
        let mut story = Story::new(Policy { tls: TlsLevel::May, ..replaying(Action::Enforce) });
        let mut visit = story.connect(CLIENT);
        for line in lines {
            story.send(&mut visit, line);
            if *line == "STARTTLS\r\n" {
                story.tell(&mut visit, Event::TlsEstablished);
            }
        }
        assert_eq!(self::envelope(&mut visit), Some(envelope), "{lines:?}");
    }
}

#[test]
fn what_comes_behind_the_recipient_goes_with_it() {
    let mut rules = replaying(Action::Enforce);
    rules.pipelining.enabled = false;
    let lines = ["EHLO a\r\n", "MAIL FROM:<s@x>\r\n", "RCPT TO:<r@y>\r\nDATA\r\nSubj"];
    let (mut story, mut visit) = waiting(rules.clone(), &lines);
    let behind = envelope(&mut visit).unwrap().behind;
    assert_eq!(&*behind, b"DATA\r\nSubj");
    story.tell(&mut visit, ACCEPTED);
    assert_eq!(visit.hears(), "", "it is not heard here");

    let (mut story, mut visit) = waiting(rules, &["EHLO a\r\n", "MAIL FROM:<s@x>\r\n", "RCPT TO:<r@y>\r\nRSET\r\nNO"]);
    story.tell(&mut visit, UNREACHABLE);
    assert_eq!(visit.hears(), [COME_BACK, "250 2.0.0 Ok\n"].concat(), "without a mail server it is");
    assert_eq!(story.send(&mut visit, "OP\r\n"), "250 2.0.0 Ok\n", "and so is an unfinished line");
}

#[test]
fn without_a_mail_server_the_client_comes_back_and_is_known() {
    for failure in [UNREACHABLE, FAILED] {
        let (mut story, mut visit) = waiting(replaying(Action::Enforce), &LINES);
        visit.logs();
        story.tell(&mut visit, failure);
        assert_eq!(visit.hears(), COME_BACK);
        let rejected = "NOQUEUE: reject: RCPT from CLIENT: 450 4.3.2 Service currently unavailable; from=<s@x>, to=<r@y>, proto=ESMTP, helo=<a>";
        assert_eq!(visit.log_text(), rejected);
        visit.effects();
        assert_eq!(story.send(&mut visit, "RCPT TO:<q@y>\r\n"), COME_BACK);
        assert_eq!(envelope(&mut visit), None, "it is not tried again in this session");
        visit.logs();
        assert_eq!(story.send(&mut visit, "QUIT\r\n"), "221 2.0.0 Bye\n");
        assert_eq!(visit.log_text(), "DISCONNECT CLIENT", "it has passed once");
        let outcome = visit.outcome();
        assert_eq!((outcome.verdict, outcome.reason), (Verdict::Deferred, Reason::NoBackend));
        story.assert_empty();
        assert!(story.connect(CLIENT).forwards(), "what it has passed counts");
    }
}

#[test]
fn whoever_failed_a_test_does_not_go_on() {
    for (line, reply) in
        [("NOOP\r\nNOOP\r\n", "550 5.5.1 Protocol error\n"), ("Subject: x\r\n", "550 5.5.1 Protocol error\n")]
    {
        let mut story = Story::new(replaying(Action::Enforce));
        let mut visit = story.connect(CLIENT);
        story.send(&mut visit, line);
        story.send(&mut visit, "MAIL FROM:<s@x>\r\n");
        assert_eq!(story.send(&mut visit, "RCPT TO:<r@y>\r\n"), reply);
        assert_eq!(envelope(&mut visit), None, "{line:?}");
    }
    let mut rules = replaying(Action::Enforce);
    rules.denylist_action = Action::Enforce;
    let mut story = Story::new(rules);
    let mut visit = story.open(CLIENT, "198.51.100.2:25", Standing::Denied);
    story.well_behaved(&mut visit);
    assert_eq!(envelope(&mut visit), None, "denied");
    let mut rules = replaying(Action::Enforce);
    rules.allowlist_addresses = AddressList::default();
    let mut story = Story::new(rules);
    let mut visit = story.connect(CLIENT);
    story.well_behaved(&mut visit);
    assert_eq!(envelope(&mut visit), None, "it came to an address where no pass is earned");
}

#[test]
fn a_failure_that_is_ignored_does_not_count() {
    let mut story = Story::new(replaying(Action::Ignore));
    let mut visit = story.connect(CLIENT);
    story.send(&mut visit, "NOOP\n");
    LINES.iter().for_each(|line| drop(story.send(&mut visit, line)));
    assert!(envelope(&mut visit).is_some());
}

#[test]
fn a_client_that_leaves_or_is_given_up_is_counted_out() {
    let (mut story, mut visit) = waiting(replaying(Action::Enforce), &LINES);
    story.tell(&mut visit, Event::Forwarded(ForwardResult::ClientLeft));
    assert_eq!(visit.outcome().verdict, Verdict::HungUp);
    story.assert_empty();
    let (mut story, mut visit) = waiting(replaying(Action::Enforce), &LINES);
    let now = story.clock();
    visit.session.abort(&mut story.screen, now);
    story.assert_empty();
}

#[test]
fn events_while_the_mail_server_is_asked_change_nothing() {
    let (mut story, mut visit) = waiting(replaying(Action::Enforce), &LINES);
    visit.effects();
    for event in [Event::Received(b"DATA\r\n"), Event::PeerClosed, Event::WriteFailed, Event::TlsEstablished] {
        story.tell(&mut visit, event);
    }
    story.wait(&mut visit, seconds(3000));
    assert_eq!((visit.hears(), visit.effects().len()), (String::new(), 0));
    story.tell(&mut visit, ACCEPTED);
    assert_eq!(visit.outcome().verdict, Verdict::Forwarded);
}

#[test]
fn nothing_is_promised_that_the_mail_server_does_not_keep() {
    let mut rules = Policy { tls: TlsLevel::May, ..replaying(Action::Enforce) };
    rules.smtp.message_size_limit = 1000;
    let ehlo = |story: &mut Story| {
        let mut visit = story.connect(CLIENT);
        visit.hears();
        story.send(&mut visit, "EHLO a\r\n")
    };
    let mut story = Story::new(rules.clone());
    assert_eq!(ehlo(&mut story), "250-mx.example.test\n250 STARTTLS\n", "as long as nobody knows");
    let announced = b"250-x\r\n250-PIPELINING\r\n250-SIZE 500\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n";
    story.screen.set_extensions(Extensions::of_reply(announced));
    assert_eq!(ehlo(&mut story), "250-mx.example.test\n250-SIZE 500\n250-STARTTLS\n250-8BITMIME\n250 SMTPUTF8\n");
    story.screen.set_extensions(Extensions::of_reply(b"250-x\r\n250-DSN\r\n250 SIZE\r\n"));
    assert_eq!(ehlo(&mut story), "250-mx.example.test\n250-SIZE 1000\n250-STARTTLS\n250 DSN\n");
    rules.denylist_action = Action::Enforce;
    let mut story = Story::new(rules.clone());
    let mut denied = story.open(CLIENT, "198.51.100.2:25", Standing::Denied);
    assert!(story.send(&mut denied, "EHLO a\r\n").ends_with("250 CHUNKING\n"), "it will never get there");
    rules.replays = false;
    let everything = ehlo(&mut Story::new(rules));
    assert!(everything.ends_with("250 CHUNKING\n"), "whoever comes back hears it from the mail server itself");
}
