//! A session that is over, judged once more: by the same settings it ends as it did, by others as a session would.

use std::collections::VecDeque;

use proptest::{prelude::*, sample::select};

use super::{properties::rules, *};
use crate::screen::{
    event::Interest,
    found::{Found, Stood, What},
    outcome::{Reason, Verdict},
    retrial::{Case, Gap, Retrial, retry},
};

/// What a client and the zones do, in milliseconds.
#[derive(Debug, Clone)]
struct Script {
    talks: Option<u64>,
    leaves: Option<u64>,
    zones: Vec<(u64, Option<bool>)>,
    words: Vec<(u64, &'static str)>,
    hangs_up: bool,
    results: Vec<ForwardResult>,
    standing: Standing,
}

fn script() -> impl Strategy<Value = Script> {
    let words = select(vec![
        "HELO a\r\n",
        "EHLO b\r\nMAIL FROM:<a@b>\r\n",
        "MAIL FROM:<a@b>\r\n",
        "RCPT TO:<c@d>\r\n",
        "RCPT TO:<c@d>\r\nDATA\r\n",
        "NOOP\n",
        "GET /\r\n",
        "STARTTLS\r\n",
        "QUIT\r\n",
        "AUTH PLAIN c2VjcmV0\r\n",
        "\u{ff}",
    ]);
    let result = select(vec![
        ForwardResult::Accepted,
        ForwardResult::Accepted,
        ForwardResult::Unreachable,
        ForwardResult::Failed,
        ForwardResult::ClientLeft,
    ]);
    let standing =
        select(vec![Standing::Unlisted, Standing::Unlisted, Standing::Allowed, Standing::Denied, Standing::Barred]);
    (
        prop::option::of(1_u64..8000),
        prop::option::of(1_u64..16_000),
        prop::collection::vec((1_u64..9000, any::<Option<bool>>()), 3),
        prop::collection::vec((1_u64..20_000, words), 0..8),
        any::<bool>(),
        prop::collection::vec(result, 0..3),
        standing,
    )
        .prop_map(|(talks, leaves, zones, words, hangs_up, results, standing)| Script {
            talks,
            leaves,
            zones,
            words,
            hangs_up,
            results,
            standing,
        })
}

/// A driver with a clock of its own. Due timers come before input, as in production.
fn play(screen: &mut Screen, client: &str, began: u64, script: &Script) -> Outcome {
    let clock = |ms: u64| Now { monotonic: Duration::from_millis(began + ms), unix_millis: UNIX * 1000 + began + ms };
    let endpoints = Endpoints { client: client.parse().unwrap(), server: "198.51.100.2:25".parse().unwrap() };
    let (mut session, mut effects) = screen.open(endpoints, script.standing.clone(), clock(0));
    let (mut now, mut timer, mut interest) = (0_u64, None, Interest::Nothing);
    let mut answers: Vec<(u64, DnsblAnswer)> = Vec::new();
    let mut words: Option<VecDeque<(u64, &str)>> = None;
    let mut results: VecDeque<ForwardResult> = script.results.iter().copied().collect();
    loop {
        let (mut forward, mut handshake) = (false, false);
        for effect in std::mem::take(&mut effects) {
            match effect {
                Effect::Arm(delay) => timer = Some(now + u64::try_from(delay.as_millis()).unwrap()),
                Effect::Watch(new) => interest = new,
                Effect::LookUp => {
                    let zones = script.zones.iter().enumerate();
                    answers = zones
                        .map(|(zone, (at, says))| match says {
                            Some(true) => (*at, bad(zone)),
                            Some(false) => (*at, not_listed(zone, 60)),
                            None => (*at, DnsblAnswer { zone, reply: ZoneReply::Failed }),
                        })
                        .collect();
                    answers.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
                }
                Effect::EndLookUp => answers.clear(),
                Effect::StartTls => handshake = true,
                Effect::Forward | Effect::Replay(_) => forward = true,
                Effect::End(outcome) => return *outcome,
                Effect::Send(_) | Effect::Log(_) | Effect::Remember(_) | Effect::Bar(_) => {}
            }
        }
        let (due, before) = (timer.unwrap_or(u64::MAX), now);
        let mut tell = |at: u64, event: Event<'_>| {
            now = at.max(now);
            effects = session.on(event, screen, clock(now));
        };
        if forward {
            tell(before + 3, Event::Forwarded(results.pop_front().unwrap_or(ForwardResult::Accepted)));
        } else if handshake {
            tell(before + 5, Event::TlsEstablished);
        } else if interest == Interest::Read {
            let words = words.get_or_insert_with(|| {
                let mut at = before;
                script
                    .words
                    .iter()
                    .map(|(pause, word)| {
                        at += pause;
                        (at, *word)
                    })
                    .collect()
            });
            match words.front().copied() {
                Some((at, word)) if at < due => {
                    words.pop_front();
                    tell(at, Event::Received(word.as_bytes()));
                }
                None if script.hangs_up => tell(before + 7, Event::PeerClosed),
                _ => {
                    timer = None;
                    tell(due, Event::TimerFired);
                }
            }
        } else {
            let peeks = interest == Interest::Peek;
            let early = [script.talks.map(|at| (at, true)), script.leaves.map(|at| (at, false))];
            let early = early.into_iter().flatten().min().filter(|_| peeks);
            let answer = answers.last().map_or(u64::MAX, |(at, _)| *at);
            match early {
                _ if due <= answer && early.is_none_or(|(at, _)| due <= at) => {
                    timer = None;
                    tell(due, Event::TimerFired);
                }
                Some((at, talks)) if at < answer => {
                    tell(at, if talks { Event::Peeked(b"EHLO x\r\n") } else { Event::PeerClosed });
                }
                _ => {
                    let (at, answer) = answers.pop().unwrap();
                    tell(at, Event::Dnsbl(&answer));
                }
            }
        }
    }
}

fn bad(zone: usize) -> DnsblAnswer {
    listed(zone, "127.0.0.2", 60)
}

/// What is kept of a session, as it comes back from the disk.
fn kept(outcome: &Outcome) -> Found {
    let line = serde_json::to_string(outcome.found.as_deref().unwrap()).unwrap();
    let found: Found = serde_json::from_str(&line).unwrap();
    assert_eq!(found, **outcome.found.as_ref().unwrap(), "{line}");
    assert!(!line.contains("c2VjcmV0"), "{line}");
    found
}

fn again(policy: &Policy, outcome: &Outcome, standing: Standing) -> Retrial {
    let found = kept(outcome);
    let endpoints = Endpoints { client: outcome.client, server: outcome.server };
    let lasted = u32::try_from(outcome.duration.as_millis()).unwrap();
    let case = Case { endpoints, started: outcome.started * 1000, lasted, found: &found };
    retry(&mut Screen::new(policy.clone()), &case, standing)
}

fn screen(policy: &Policy) -> Screen {
    let mut screen = Screen::new(policy.clone());
    screen.set_tls(TlsState::Usable);
    screen.keep_found(true);
    screen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    /// The former sessions of the client are known, and one of them may still be there.
    #[test]
    fn by_the_same_settings_nobody_changes_sides(
        rules in rules(),
        scripts in prop::collection::vec((0_u64..100_000, script()), 1..4),
        other in any::<bool>(),
    ) {
        let mut screen = screen(&rules);
        let mut began = 0;
        let endpoints = Endpoints { client: CLIENT.parse().unwrap(), server: "198.51.100.2:25".parse().unwrap() };
        let other = other.then(|| {
            let now = Now { monotonic: Duration::ZERO, unix_millis: UNIX * 1000 };
            screen.open(endpoints, Standing::Unlisted, now)
        });
        for (pause, script) in &scripts {
            // Whole seconds, as the journal has them.
            began = (began + pause).next_multiple_of(1000);
            let outcome = play(&mut screen, CLIENT, began, script);
            let found = outcome.found.as_deref().unwrap();
            prop_assert!(!found.cut);
            let retrial = again(&rules, &outcome, script.standing.clone());
            let expected = Retrial { verdict: outcome.verdict, reason: outcome.reason, gap: None };
            prop_assert_eq!(retrial, expected, "{:?}", found);
            began += u64::try_from(outcome.duration.as_millis()).unwrap();
        }
        drop(other);
    }

    #[test]
    fn whatever_a_journal_holds_a_retrial_ends(rules in rules(), other in rules(), script in script(), noise in any::<[u32; 4]>()) {
        let outcome = play(&mut screen(&rules), CLIENT, 0, &script);
        let mut found = kept(&outcome);
        for (heard, ms) in found.heard.iter_mut().zip(noise) {
            heard.ms = ms;
        }
        found.early = noise[0];
        let endpoints = Endpoints { client: outcome.client, server: outcome.server };
        let case = Case { endpoints, started: u64::from(noise[1]) << 32, lasted: noise[2], found: &found };
        let mut judge = Screen::new(other);
        retry(&mut judge, &case, script.standing.clone());
        let snapshot = judge.snapshot();
        prop_assert_eq!((snapshot.checking, snapshot.forwarding, snapshot.clients, snapshot.records), (0, 0, 0, 0));
    }
}

/// A client that says nothing amiss, and is taken by the mail server.
fn quiet() -> Script {
    Script {
        talks: None,
        leaves: None,
        zones: Vec::new(),
        words: Vec::new(),
        hangs_up: false,
        results: Vec::new(),
        standing: Standing::Unlisted,
    }
}

fn tried(was: &Policy, script: &Script, would_be: &Policy) -> Retrial {
    let outcome = play(&mut screen(was), CLIENT, 0, script);
    again(would_be, &outcome, script.standing.clone())
}

fn sure(verdict: Verdict, reason: Reason) -> Retrial {
    Retrial { verdict, reason, gap: None }
}

#[test]
fn an_early_talker_is_turned_away_by_drop_and_goes_on_by_ignore() {
    let early = Script { talks: Some(500), ..quiet() };
    let (ignore, drop) = (pregreet(Action::Ignore), pregreet(Action::Drop));
    assert_eq!(tried(&ignore, &early, &drop), sure(Verdict::Rejected, Reason::Failed(Test::Pregreet)));
    assert_eq!(tried(&drop, &early, &ignore), sure(Verdict::Forwarded, Reason::None));
}

#[test]
fn a_wait_that_is_longer_than_the_client_was_watched_leaves_it_open() {
    let mut longer = pregreet(Action::Drop);
    longer.pregreet.wait.normal = seconds(9);
    assert_eq!(tried(&pregreet(Action::Drop), &quiet(), &longer).gap, Some(Gap::Wait));
    let mut shorter = pregreet(Action::Drop);
    shorter.pregreet.wait.normal = seconds(2);
    assert_eq!(tried(&pregreet(Action::Drop), &quiet(), &shorter), sure(Verdict::Forwarded, Reason::Passed));
    // Who talks after that has waited long enough.
    let late = Script { talks: Some(4000), ..quiet() };
    assert_eq!(tried(&pregreet(Action::Ignore), &late, &shorter), sure(Verdict::Forwarded, Reason::Passed));
    assert_eq!(tried(&policy(), &quiet(), &longer).gap, Some(Gap::Pregreet));
}

#[test]
fn answers_are_weighed_anew_and_zones_that_were_not_asked_are_not_guessed() {
    let ask = |sites: &[&str], threshold| {
        let mut policy = dnsbl(sites, Action::Drop);
        policy.dnsbl.threshold = threshold;
        policy
    };
    let listed = Script { zones: vec![(30, Some(true)), (40, Some(false))], ..quiet() };
    let was = ask(&["a.test", "b.test"], 2);
    let refused = sure(Verdict::Rejected, Reason::Failed(Test::Dnsbl));
    let passed = sure(Verdict::Forwarded, Reason::Passed);
    assert_eq!(tried(&was, &listed, &was), passed);
    assert_eq!(tried(&was, &listed, &ask(&["a.test", "b.test"], 1)), refused);
    assert_eq!(tried(&was, &listed, &ask(&["b.test", "a.test*2"], 2)), refused);
    assert_eq!(tried(&was, &listed, &ask(&["a.test=127.0.0.3*2"], 2)), passed);
    assert_eq!(tried(&was, &listed, &ask(&["a.test", "new.test"], 2)).gap, Some(Gap::Zone("new.test".into())));
    // A zone that can only add to it changes nothing any more; one that can take from it may.
    assert_eq!(tried(&was, &listed, &ask(&["a.test*2", "new.test"], 2)), refused);
    assert_eq!(tried(&was, &listed, &ask(&["a.test*2", "new.test*-1"], 2)).gap, Some(Gap::Zone("new.test".into())));
}

#[test]
fn what_was_said_is_tested_and_what_was_not_said_is_not_known() {
    let words = vec![(10, "EHLO b\r\nMAIL FROM:<a@b>\r\n"), (10, "RCPT TO:<c@d>\r\n"), (10, "QUIT\r\n")];
    let pipelines = Script { words, ..quiet() };
    let mut was = deep(Action::Ignore);
    was.replays = true;
    let mut enforces = deep(Action::Enforce);
    enforces.replays = true;
    let refused = sure(Verdict::Rejected, Reason::Failed(Test::Pipelining));
    assert_eq!(tried(&was, &pipelines, &enforces), refused);
    assert_eq!(tried(&enforces, &pipelines, &was).verdict, Verdict::Forwarded);
    assert_eq!(tried(&policy(), &quiet(), &enforces).gap, Some(Gap::Deep));
    // Denied in the dummy engine, whatever it says there.
    let mut denies = policy();
    denies.denylist_action = Action::Enforce;
    let denied = Script { standing: Standing::Denied, ..quiet() };
    assert_eq!(tried(&policy(), &denied, &denies), sure(Verdict::Rejected, Reason::Denied));
}

#[test]
fn what_is_kept_is_bounded_and_more_than_that_is_not_known() {
    let mut was = deep(Action::Ignore);
    was.replays = true;
    let noop: &str = Box::leak("NOOP \r\n".replace(' ', &" ".repeat(200)).into_boxed_str());
    let mut words = vec![(10, "EHLO b\r\n"); 1];
    words.extend(vec![(10, noop); 8]);
    words.extend([(10, "MAIL FROM:<a@b>\r\n"), (10, "RCPT TO:<c@d>\r\n")]);
    let outcome = play(&mut screen(&was), CLIENT, 0, &Script { words, ..quiet() });
    assert_eq!(outcome.verdict, Verdict::Forwarded);
    let found = kept(&outcome);
    assert!(found.cut);
    assert!(found.heard.iter().all(|heard| !matches!(heard.what, What::Forwarded(_))));
    assert_eq!(again(&was, &outcome, Standing::Unlisted).gap, Some(Gap::Cut));
}

#[test]
fn a_client_that_waits_costs_little_more() {
    assert!(size_of::<Found>() <= 128, "{}", size_of::<Found>());
}

#[test]
fn who_was_not_looked_up_is_not_taken_for_a_stranger() {
    let allowed = Script { standing: Standing::Allowed, ..quiet() };
    let outcome = play(&mut screen(&pregreet(Action::Drop)), CLIENT, 0, &allowed);
    assert_eq!(outcome.found.as_ref().unwrap().stood, Stood::Unlisted, "nobody said more");
    let retrial = again(&pregreet(Action::Drop), &outcome, Standing::Unlisted);
    assert_eq!(retrial.gap, Some(Gap::Record));
    assert_eq!(again(&policy(), &outcome, Standing::Unlisted), sure(Verdict::Forwarded, Reason::None));
}
