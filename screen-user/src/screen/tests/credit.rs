//! `cache.pool_credit`: who vouches for whom, how long, and what ends it.

use std::{collections::HashMap, net::IpAddr};

use proptest::{prelude::*, sample::select};

use super::*;
use crate::screen::outcome::TestResult;

const POOL: PoolCredit = PoolCredit { ipv4: Some(24), ipv6: Some(48) };
const NEIGHBOUR: &str = "192.0.2.77:1";

fn pool(mut rules: Policy) -> Policy {
    rules.pool_credit = POOL;
    rules
}

/// The pregreet test and the deep tests.
fn every() -> Policy {
    let mut rules = pool(deep(Action::Enforce));
    rules.pregreet.teaser = "hello".into();
    rules.pregreet.action = Action::Enforce;
    rules
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn until(story: &Story, client: &str) -> Option<u64> {
    story.screen.credit(ip(client), story.unix()).map(|(_, credit)| credit.until)
}

/// A client that passes whatever it is asked; whether the deep tests were among it, and what was logged.
fn visit(story: &mut Story, client: &str) -> (bool, String, Outcome) {
    let mut visit = story.connect(client);
    story.wait(&mut visit, seconds(6));
    let deep = visit.hears().contains("220 mx");
    if deep {
        story.well_behaved(&mut visit);
    } else {
        story.tell(&mut visit, ACCEPTED);
    }
    let log = visit.logs().join("\n");
    (deep, log, visit.outcome())
}

fn takes_deep_tests(story: &mut Story, client: &str) -> bool {
    visit(story, client).0
}

#[test]
fn a_neighbour_is_spared_the_deep_tests_and_nothing_else() {
    let mut story = Story::new(every());
    let (deep, log, _) = visit(&mut story, CLIENT);
    assert!(deep && log.contains("PASS NEW [192.0.2.9]:33115"), "{log}");
    let (network, credit) = story.screen.credit(ip("192.0.2.200"), story.unix()).unwrap();
    assert_eq!(
        (network.net().to_string().as_str(), credit.earned_by.net().to_string().as_str()),
        ("192.0.2.0/24", "192.0.2.9/32")
    );
    assert_eq!(credit.until, story.unix() + 30 * DAY);

    let (deep, log, outcome) = visit(&mut story, NEIGHBOUR);
    assert!(!deep);
    assert_eq!(
        log, "CONNECT from [192.0.2.77]:1 to [198.51.100.2]:25\nPASS NEW [192.0.2.77]:1",
        "it waited for the greeting and passed as any client"
    );
    let results: Vec<TestResult> = outcome.tests.iter().map(|test| test.result).collect();
    assert_eq!(
        results,
        [TestResult::Passed, TestResult::NotTaken, TestResult::Spared, TestResult::Spared, TestResult::Spared]
    );
    // What it was spared counts a day, then the credit is looked at again.
    assert_eq!(story.stamp(NEIGHBOUR, Test::BareNewline), Stamp(story.unix() + DAY));
    assert!(visit(&mut story, NEIGHBOUR).1.ends_with("PASS OLD [192.0.2.77]:1"));
    assert!(takes_deep_tests(&mut story, "192.0.3.1:1"), "another network");
}

#[test]
fn an_ipv6_network_is_its_own() {
    let mut story = Story::new(every());
    assert!(takes_deep_tests(&mut story, "[2001:db8:1:2::1]:1"));
    assert!(!takes_deep_tests(&mut story, "[2001:db8:1:ff::1]:1"));
    assert!(takes_deep_tests(&mut story, "[2001:db8:2::1]:1"));
    let mut only4 = every();
    only4.pool_credit.ipv6 = None;
    let mut story = Story::new(only4);
    assert!(takes_deep_tests(&mut story, "[2001:db8:1:2::1]:1"));
    assert!(takes_deep_tests(&mut story, "[2001:db8:1:ff::1]:1"));
}

#[test]
fn without_early_tests_a_neighbour_goes_straight_on_and_is_new() {
    let mut story = Story::new(pool(deep(Action::Enforce)));
    assert!(takes_deep_tests(&mut story, CLIENT));
    let (deep, log, _) = visit(&mut story, NEIGHBOUR);
    assert!(!deep && log.ends_with("PASS NEW [192.0.2.77]:1"), "{log}");
}

#[test]
fn credit_lasts_as_long_as_the_shortest_deep_pass() {
    let mut rules = every();
    rules.non_smtp_command.ttl = seconds(2 * DAY);
    let mut story = Story::new(rules);
    takes_deep_tests(&mut story, CLIENT);
    let end = story.unix() + 2 * DAY;
    assert_eq!(until(&story, "192.0.2.1"), Some(end));
    assert!(story.screen.credit(ip("192.0.2.1"), end).is_some());
    assert!(story.screen.credit(ip("192.0.2.1"), end + 1).is_none());
    // A neighbour that was spared adds nothing, and its own passes end with the credit.
    story.now += seconds(2 * DAY - 3600);
    assert!(!takes_deep_tests(&mut story, NEIGHBOUR));
    assert_eq!(story.stamp(NEIGHBOUR, Test::Pipelining), Stamp(end));
    assert_eq!(until(&story, "192.0.2.1"), Some(end));
    story.now += seconds(3600);
    assert!(takes_deep_tests(&mut story, "192.0.2.3:1"));
}

#[test]
fn whoever_fails_takes_the_credit_of_the_network_away() {
    for action in [Action::Ignore, Action::Enforce, Action::Drop] {
        let mut rules = every();
        rules.pregreet.action = action;
        let mut story = Story::new(rules);
        takes_deep_tests(&mut story, CLIENT);
        let mut early = story.connect(NEIGHBOUR);
        story.tell(&mut early, Event::Peeked(b"EHLO now\r\n"));
        assert_eq!(until(&story, "192.0.2.1"), None, "{action:?}");
        assert!(takes_deep_tests(&mut story, "192.0.2.3:1"), "{action:?}");
    }
}

#[test]
fn who_fails_is_not_spared_even_if_the_failure_is_ignored() {
    let mut rules = every();
    rules.pregreet.action = Action::Ignore;
    let mut story = Story::new(rules);
    takes_deep_tests(&mut story, CLIENT);
    let mut early = story.connect(NEIGHBOUR);
    story.tell(&mut early, Event::Peeked(b"EHLO now\r\n"));
    // Another one earns the credit anew meanwhile.
    takes_deep_tests(&mut story, "192.0.2.3:1");
    story.wait(&mut early, seconds(6));
    assert!(early.hears().contains("220 mx"), "the dummy engine");
    story.well_behaved(&mut early);
    assert_eq!(
        story.screen.credit(ip("192.0.2.1"), story.unix()).unwrap().1.earned_by.net().to_string(),
        "192.0.2.3/32"
    );
}

#[test]
fn a_listed_client_is_blocked_and_ends_the_credit_late_answers_too() {
    let mut rules = pool(deep(Action::Enforce));
    rules.dnsbl = dnsbl(&["a.test"], Action::Enforce).dnsbl;
    let mut story = Story::new(rules);
    let clean = |story: &mut Story, client: &str| {
        let mut visit = story.connect(client);
        story.tell(&mut visit, Event::Dnsbl(&not_listed(0, 60)));
        story.wait(&mut visit, seconds(6));
        let deep = visit.hears().contains("220 mx");
        if deep {
            story.well_behaved(&mut visit);
        }
        deep
    };
    assert!(clean(&mut story, CLIENT));
    let mut listed_one = story.connect(NEIGHBOUR);
    story.tell(&mut listed_one, Event::Dnsbl(&listed(0, "127.0.0.2", 60)));
    story.wait(&mut listed_one, seconds(6));
    assert!(listed_one.hears().contains("220 mx"));
    assert!(story.send(&mut listed_one, "EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n").contains("550"));
    assert_eq!(until(&story, "192.0.2.1"), None);

    assert!(clean(&mut story, "192.0.2.3:1"));
    assert!(!clean(&mut story, "192.0.2.4:1"));
    let late = Client::of(ip("192.0.2.4"), ClientPrefix { ipv4: 32, ipv6: 64 });
    let now = story.clock();
    story.screen.correct_dnsbl(late, &[listed(0, "127.0.0.2", 60)], now);
    assert_eq!(until(&story, "192.0.2.1"), None);
}

#[test]
fn a_score_that_spares_the_tests_earns_no_credit() {
    let mut rules = pool(deep(Action::Enforce));
    rules.dnsbl = dnsbl(&["white.test*-5"], Action::Enforce).dnsbl;
    rules.dnsbl.allowlist_threshold = -1;
    let mut story = Story::new(rules);
    let mut exempt = story.connect(CLIENT);
    story.tell(&mut exempt, Event::Dnsbl(&listed(0, "127.0.0.2", 3600)));
    story.wait(&mut exempt, seconds(6));
    assert!(exempt.forwards());
    assert_eq!(until(&story, "192.0.2.1"), None);
}

#[test]
fn a_denied_client_and_one_at_a_veto_are_not_spared() {
    let mut rules = every();
    rules.denylist_action = Action::Enforce;
    rules.allowlist_addresses = AddressList::new(vec![(true, "198.51.100.2/32".parse().unwrap())]);
    let mut story = Story::new(rules);
    takes_deep_tests(&mut story, CLIENT);
    for (server, standing) in [("198.51.100.2:25", Standing::Denied), ("198.51.100.3:25", Standing::Unlisted)] {
        let mut visit = story.open(NEIGHBOUR, server, standing.clone());
        story.wait(&mut visit, seconds(6));
        assert!(visit.hears().contains("220 mx"), "{standing:?}");
        story.well_behaved(&mut visit);
    }
    let mut barred = story.open(NEIGHBOUR, "198.51.100.2:25", Standing::Barred);
    assert!(barred.hears().starts_with("521"));
}

#[test]
fn it_ends_with_forget_with_another_setting_and_with_its_time() {
    let mut story = Story::new(every());
    takes_deep_tests(&mut story, CLIENT);
    story.forget("192.0.2.10/32".parse().unwrap());
    assert!(until(&story, "192.0.2.1").is_some());
    story.forget("192.0.2.9/32".parse().unwrap());
    assert_eq!(until(&story, "192.0.2.1"), None, "its earner is forgotten");

    takes_deep_tests(&mut story, CLIENT);
    story.screen.set_policy(every());
    assert!(until(&story, "192.0.2.1").is_some());
    let mut wider = every();
    wider.pool_credit.ipv4 = Some(23);
    story.screen.set_policy(wider);
    assert_eq!(story.screen.snapshot().credits, 0);
    story.screen.set_policy(every());

    story.forget("192.0.2.9/32".parse().unwrap());
    takes_deep_tests(&mut story, CLIENT);
    let end = until(&story, "192.0.2.1").unwrap();
    story.screen.sweep(end);
    assert_eq!(story.screen.snapshot().credits, 1);
    story.screen.sweep(end + 1);
    assert_eq!(story.screen.snapshot().credits, 0);
}

#[test]
fn without_the_setting_and_without_memory_there_is_none() {
    let mut off = every();
    off.pool_credit = PoolCredit::default();
    let mut forgetful = every();
    forgetful.remember_results = false;
    for rules in [off, forgetful] {
        let mut story = Story::new(rules);
        assert!(takes_deep_tests(&mut story, CLIENT));
        assert!(takes_deep_tests(&mut story, NEIGHBOUR));
        assert_eq!(story.screen.snapshot().credits, 0);
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Good,
    /// Talks before the greeting.
    Early,
    /// Sends commands at once, where it meets the dummy engine.
    Hasty,
}

/// Until when a client's passes hold, in Unix seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    pregreet: u64,
    deep: u64,
}

proptest! {
    #[test]
    fn credit_is_what_the_rules_say(
        steps in prop::collection::vec((0_u8..6, select(vec![Manner::Good, Manner::Good, Manner::Early, Manner::Hasty]), 0_u64..40 * 3600), 1..40),
    ) {
        let mut story = Story::new(every());
        let mut credit: HashMap<u8, u64> = HashMap::new();
        let mut known: HashMap<u8, Known> = HashMap::new();
        for (host, manner, pause) in steps {
            story.now += seconds(pause);
            let network = host % 2;
            let own = known.entry(host).or_default();
            let waits = own.pregreet < story.unix();
            let mut visit = story.connect(&format!("192.0.{network}.{host}:1"));
            let talks = waits && manner == Manner::Early;
            if talks {
                story.tell(&mut visit, Event::Peeked(b"EHLO a\r\n"));
                credit.remove(&network);
            }
            if waits {
                story.wait(&mut visit, seconds(6));
            }
            let unix = story.unix();
            let spared = own.deep < unix && !talks && credit.get(&network).is_some_and(|until| unix <= *until);
            let deep = talks || (own.deep < unix && !spared);
            let heard = visit.hears();
            prop_assert_eq!(visit.forwards(), !deep, "{}", heard);
            if deep && manner == Manner::Hasty && !talks {
                story.send(&mut visit, "EHLO a\r\nNOOP\r\n");
                credit.remove(&network);
            } else if deep {
                story.well_behaved(&mut visit);
            } else {
                story.tell(&mut visit, ACCEPTED);
            }
            let fails = talks || (deep && manner == Manner::Hasty);
            if !fails {
                if waits {
                    own.pregreet = unix + DAY;
                }
                if spared {
                    own.deep = (unix + DAY).min(credit[&network]);
                } else if deep {
                    own.deep = unix + 30 * DAY;
                    let until = credit.entry(network).or_default();
                    *until = (*until).max(own.deep);
                }
            }
            if !visit.session.has_ended() {
                story.tell(&mut visit, Event::PeerClosed);
            }
            for network in 0..2 {
                let expected = credit.get(&network).copied().filter(|until| unix <= *until);
                prop_assert_eq!(until(&story, &format!("192.0.{network}.99")), expected);
            }
        }
        story.assert_empty();
    }

    /// However many networks there are: memory is bounded.
    #[test]
    fn credits_are_bounded(networks in prop::collection::vec(any::<u32>(), 1..50)) {
        let mut credits = crate::screen::credit::Credits::with_capacity(10);
        for (network, until) in networks.into_iter().zip(1..) {
            let network = Client::of(IpAddr::V4((network << 8).into()), ClientPrefix { ipv4: 24, ipv6: 48 });
            credits.add(network, crate::screen::Credit { earned_by: network, until });
            prop_assert!(credits.len() <= 10);
            prop_assert_eq!(credits.valid(network, until).map(|credit| credit.until), Some(until));
        }
    }
}
