//! Whatever happens, in whatever order: what must hold of every session.

use proptest::{prelude::*, sample::select};

use super::*;
use crate::screen::{outcome::Verdict, session::State};

#[derive(Debug, Clone)]
enum Happening {
    Peek(Vec<u8>),
    Read(Vec<u8>),
    Close,
    WriteFails,
    Timer,
    Answer(usize, Option<bool>),
    Tls,
    Forwarded(ForwardResult),
    Wait(u64),
    Connect(u8),
    Abort,
    Swap,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let words = select(vec![
        "HELO a\r\n",
        "EHLO b\r\n",
        "MAIL FROM:<a@b>\r\n",
        "RCPT TO:<c@d>\r\n",
        "RCPT",
        "DATA\r\n",
        "BDAT 1\r\n",
        "STARTTLS\r\n",
        "QUIT\r\n",
        "NOOP\n",
        "\r",
        "\n",
        "\0",
        "Subject: x\r\n",
        "GET /\r\n",
        "VRFY \"x\r\n",
        "RSET\r\n",
        "ETRN x\r\n",
        ":",
        "<\"\\",
    ]);
    prop_oneof![
        prop::collection::vec(words, 0..8).prop_map(|words| words.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..300),
        (1_usize..4096).prop_map(|length| vec![b'x'; length]),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        1 => bytes().prop_map(Happening::Peek),
        8 => bytes().prop_map(Happening::Read),
        1 => Just(Happening::Close),
        1 => Just(Happening::WriteFails),
        2 => Just(Happening::Timer),
        3 => (0_usize..4, any::<Option<bool>>()).prop_map(|(zone, listed)| Happening::Answer(zone, listed)),
        1 => Just(Happening::Tls),
        1 => select(vec![ForwardResult::Accepted, ForwardResult::Unreachable, ForwardResult::Failed, ForwardResult::ClientLeft])
            .prop_map(Happening::Forwarded),
        3 => (0_u64..400).prop_map(Happening::Wait),
        1 => (0_u8..3).prop_map(Happening::Connect),
        1 => Just(Happening::Abort),
        2 => Just(Happening::Swap),
    ]
}

pub(super) fn rules() -> impl Strategy<Value = Policy> {
    let action = || select(vec![Action::Ignore, Action::Enforce, Action::Drop]);
    (any::<[bool; 9]>(), action(), action(), action(), 0_u32..4, -2_i32..2).prop_map(
        |(on, early, zones, later, limit, allow)| {
            let mut rules = deep(later);
            rules.pregreet.teaser = if on[0] { "hello".into() } else { String::new() };
            rules.pregreet.action = early;
            if on[1] {
                rules.dnsbl = dnsbl(&["a.test", "b.test=127.0.0.2*2", "c.test*-3"], zones).dnsbl;
                rules.dnsbl.allowlist_threshold = allow;
            }
            rules.pipelining.enabled = on[2];
            rules.bare_newline.enabled = on[3];
            rules.tls = if on[4] { TlsLevel::May } else { TlsLevel::None };
            rules.smtp.soft_bounce = on[5];
            rules.smtp.reject_footer =
                if on[6] { "\\c, see $server_name\\nat $localtime".into() } else { String::new() };
            rules.remember_failures = if on[7] { seconds(600) } else { Duration::ZERO };
            rules.replays = on[8];
            rules.limits =
                Limits { client_connections: limit, pre_queue: limit * 2, post_queue: limit, ..rules.limits };
            rules
        },
    )
}

/// A session with what must hold of it.
struct Watched {
    visit: Visit,
    ends: usize,
    last_command_was_recipient: bool,
}

impl Watched {
    fn check(&mut self) {
        let before = self.ends;
        let effects = self.visit.effects();
        let count = effects.iter().filter(|effect| matches!(effect, Effect::End(_))).count();
        self.ends += count;
        assert!(self.ends <= 1, "a second end");
        if count == 1 {
            assert!(matches!(effects.last(), Some(Effect::End(_))), "something after the end: {effects:?}");
            assert!(self.visit.session.has_ended());
        }
        let heard = self.visit.hears();
        let logged = self.visit.logs();
        assert!(
            before == 0 || (effects.is_empty() && heard.is_empty() && logged.is_empty()),
            "something after the end"
        );
        assert!(heard.is_empty() || heard.ends_with('\n'));
        if self.last_command_was_recipient {
            assert!(
                !heard.lines().any(|line| line.starts_with('2') && !line.contains("-hello")),
                "RCPT accepted: {heard}"
            );
        }
        for effect in &effects {
            if let Effect::Bar(bar) = effect {
                assert!(bar.evidence.len() < 1024 && !bar.evidence.contains(char::is_control), "{bar:?}");
            }
        }
        for line in logged {
            assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
            assert!(line.len() < 8192);
        }
        let kept = self.visit.session.kept_bytes();
        assert!(kept <= 8 * policy().smtp.line_length_limit, "{kept} bytes kept");
        self.last_command_was_recipient = false;
    }
}

fn play(story: &mut Story, watched: &mut Watched, happening: &Happening) {
    let answer;
    let event = match happening {
        Happening::Peek(bytes) => Event::Peeked(&bytes[..bytes.len().min(1023)]),
        Happening::Read(bytes) => Event::Received(bytes),
        Happening::Close => Event::PeerClosed,
        Happening::WriteFails => Event::WriteFailed,
        Happening::Timer => Event::TimerFired,
        Happening::Answer(zone, listed_there) => {
            answer = match listed_there {
                Some(true) => listed(*zone, "127.0.0.2", 500),
                Some(false) => not_listed(*zone, 500),
                None => DnsblAnswer { zone: *zone, reply: ZoneReply::Failed },
            };
            Event::Dnsbl(&answer)
        }
        Happening::Tls => Event::TlsEstablished,
        Happening::Forwarded(result) => Event::Forwarded(*result),
        Happening::Wait(time) => return story.wait(&mut watched.visit, seconds(*time)),
        Happening::Abort => {
            let now = story.clock();
            let effects = watched.visit.session.abort(&mut story.screen, now);
            return watched.visit.take(effects, story.now);
        }
        Happening::Connect(_) | Happening::Swap => return,
    };
    story.tell(&mut watched.visit, event);
}

/// Brings a session to its end by nothing but its timer and the mail server's silence. Returns how many timer events that took.
fn run_out(story: &mut Story, watched: &mut Watched) -> usize {
    let mut fired = 0;
    while !watched.visit.session.has_ended() && fired < 100 {
        match watched.visit.timer.take() {
            Some(at) => {
                story.now = story.now.max(at);
                story.tell(&mut watched.visit, Event::TimerFired);
                fired += 1;
            }
            None => story.tell(&mut watched.visit, Event::Forwarded(ForwardResult::Unreachable)),
        }
        if watched.visit.session.state == State::Forwarding {
            story.tell(&mut watched.visit, Event::Forwarded(ForwardResult::Unreachable));
        }
        watched.check();
    }
    fired
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn sessions_end_once_and_leave_nothing(rules in rules(), happenings in prop::collection::vec(happening(), 0..60)) {
        let mut story = Story::new(rules);
        let mut sessions = Vec::new();
        let mut current = 0;
        for happening in std::iter::once(&Happening::Connect(0)).chain(&happenings) {
            if let Happening::Connect(host) = happening {
                let visit = story.connect(&format!("192.0.2.{host}:{}", 1000 + sessions.len()));
                current = sessions.len();
                sessions.push(Watched { visit, ends: 0, last_command_was_recipient: false });
            } else if matches!(happening, Happening::Swap) {
                current = (current + 1) % sessions.len();
            } else {
                let watched = &mut sessions[current];
                play(&mut story, watched, happening);
            }
            sessions[current].check();
        }
        for watched in &mut sessions {
            let fired = run_out(&mut story, watched);
            prop_assert!(fired <= 3, "{fired} timer events to the end");
            prop_assert_eq!(watched.ends, 1);
        }
        story.assert_empty();
    }

    #[test]
    fn in_a_dry_run_nobody_is_turned_away(rules in rules(), happenings in prop::collection::vec(happening(), 0..60), talks_on: bool) {
        let limits = Limits { post_queue: 0, ..rules.limits };
        let mut story = Story::new(Policy { dry_run: true, replays: true, limits, ..rules });
        let mut sessions = vec![story.connect("192.0.2.1:1")];
        let mut current = 0;
        for happening in &happenings {
            match happening {
                Happening::Connect(host) => {
                    current = sessions.len();
                    sessions.push(story.connect(&format!("192.0.2.{host}:{}", 1000 + current)));
                }
                Happening::Swap => current = (current + 1) % sessions.len(),
                // A mail server that fails is no fault of the gate's.
                Happening::Forwarded(ForwardResult::Unreachable | ForwardResult::Failed) => {}
                _ => {
                    let visit = sessions.swap_remove(current);
                    let mut watched = Watched { visit, ends: 0, last_command_was_recipient: false };
                    play(&mut story, &mut watched, happening);
                    sessions.push(watched.visit);
                    current = sessions.len() - 1;
                }
            }
        }
        for visit in &mut sessions {
            while !visit.session.has_ended() {
                match visit.timer.take() {
                    Some(at) if talks_on || !matches!(visit.session.state, State::Forwarding | State::Replaying) => {
                        story.now = story.now.max(at);
                        story.tell(visit, Event::TimerFired);
                    }
                    _ => story.tell(visit, ACCEPTED),
                }
            }
            let heard = visit.hears();
            prop_assert!(!heard.lines().any(|line| line.starts_with(['4', '5'])), "{heard}");
            let outcome = visit.outcome();
            match outcome.verdict {
                Verdict::Forwarded | Verdict::HungUp | Verdict::Aborted => {}
                Verdict::Deferred => prop_assert!(heard.ends_with("221 2.0.0 Bye\n"), "{outcome:?}: {heard}"),
                Verdict::Rejected => prop_assert!(false, "{outcome:?}: {heard}"),
            }
        }
        story.assert_empty();
    }

    #[test]
    fn no_recipient_is_accepted(
        rules in rules(),
        before in prop::collection::vec(bytes(), 0..4),
        recipient in prop::collection::vec(any::<u8>().prop_filter("one line", |b| *b != b'\n'), 0..80),
    ) {
        let mut story = Story::new(Policy { limits: policy().limits, ..rules });
        let mut watched = Watched { visit: story.connect(CLIENT), ends: 0, last_command_was_recipient: false };
        story.wait(&mut watched.visit, seconds(6));
        watched.check();
        for bytes in &before {
            story.tell(&mut watched.visit, Event::Received(bytes));
            watched.check();
        }
        // Whatever hangs in the buffer is ended first.
        story.tell(&mut watched.visit, Event::Received(b"\r\n"));
        story.tell(&mut watched.visit, Event::TlsEstablished);
        story.tell(&mut watched.visit, Event::Received(b"RSET\r\n"));
        story.tell(&mut watched.visit, Event::Received(b"MAIL FROM:<>\r\n"));
        watched.check();
        watched.last_command_was_recipient = true;
        let line = [b"RCPT TO:".as_slice(), &recipient, b"\r\n"].concat();
        story.tell(&mut watched.visit, Event::Received(&line));
        watched.check();
    }

    #[test]
    fn input_in_pieces_means_the_same(bytes in bytes(), cuts in prop::collection::vec(1_usize..50, 0..20)) {
        // Without the pipelining test, which is about pieces.
        let mut rules = deep(Action::Enforce);
        rules.pipelining.enabled = false;
        rules.non_smtp_command.action = Action::Ignore;
        rules.bare_newline.action = Action::Ignore;
        let hear = |pieces: Vec<&[u8]>| {
            let mut story = Story::new(rules.clone());
            let mut visit = story.connect(CLIENT);
            for piece in pieces {
                story.tell(&mut visit, Event::Received(piece));
            }
            (visit.hears(), visit.logs())
        };
        let mut pieces = Vec::new();
        let mut rest = bytes.as_slice();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        prop_assert_eq!(hear(vec![&bytes]), hear(pieces));
    }
}
