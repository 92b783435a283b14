//! Spec 6: what is remembered, for how long, and how it is corrected.

use super::*;

fn client(address: &str) -> Client {
    Client::of(address.parse().unwrap(), ClientPrefix { ipv4: 32, ipv6: 64 })
}

fn record(stamps: [u64; 5]) -> Record {
    Record::of_stamps(stamps.map(Stamp))
}

#[test]
fn a_sweep_keeps_what_can_still_spare_a_test() {
    let mut rules = pregreet(Action::Enforce);
    rules.bare_newline.enabled = true;
    let mut story = Story::new(rules);
    let now = UNIX;
    let old = now - 7 * DAY;
    let rows = [
        ("192.0.2.1", [now, 0, 0, 0, now], true),
        ("192.0.2.2", [old, 0, 0, 0, now], true),
        ("192.0.2.3", [old - 1, 0, 0, 0, now], false),
        ("192.0.2.4", [now, now, now, now, 1], false),
        ("192.0.2.5", [0, now, now, now, now], false),
    ];
    for (address, stamps, _) in rows {
        story.screen.learn(client(address), &record(stamps));
    }
    let mut dropped = story.screen.sweep(now);
    dropped.sort();
    let expected: Vec<Client> = rows.iter().filter(|(.., kept)| !kept).map(|(address, ..)| client(address)).collect();
    assert_eq!(dropped, expected);
    assert_eq!(story.screen.records().len(), 2);
    // A restart takes up the same ones.
    let mut again = Story::new(story.screen.policy().as_ref().clone());
    again.screen.restore(rows.iter().map(|(address, stamps, _)| (client(address), record(*stamps))), now);
    assert_eq!(again.screen.records().len(), 2);
}

#[test]
fn memory_is_bounded_and_keeps_those_that_come_back() {
    let mut story = Story::new(pregreet(Action::Enforce));
    story.screen.set_record_capacity(100);
    let regular = "203.0.113.1:1";
    story.screen.learn(client("203.0.113.1"), &record([UNIX * 2, 1, 1, 1, 1]));
    for host in 0..10_000_u32 {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + host).to_string();
        story.screen.learn(client(&address), &record([UNIX * 2, 1, 1, 1, 1]));
        assert!(story.screen.snapshot().records <= 100);
        if host % 40 == 0 {
            let mut visit = story.connect(regular);
            assert!(visit.forwards(), "forgotten after {host}");
            story.tell(&mut visit, ACCEPTED);
        }
    }
}

#[test]
fn the_capacity_is_kept_to_the_record() {
    for capacity in [2, 3, 10] {
        let mut story = Story::new(pregreet(Action::Enforce));
        story.screen.set_record_capacity(capacity);
        for host in 0..50 {
            let address = format!("192.0.2.{host}");
            story.screen.learn(client(&address), &record([UNIX * 2, 1, 1, 1, 1]));
            assert!(story.screen.snapshot().records <= capacity, "{host} of {capacity}");
            assert!(story.screen.record(client(&address)).is_some());
        }
    }
}

#[test]
fn forgetting_a_network() {
    let mut story = Story::new(pregreet(Action::Enforce));
    for address in ["192.0.2.1", "192.0.2.2", "192.0.3.1", "2001:db8::1"] {
        story.screen.learn(client(address), &record([UNIX; 5]));
    }
    assert_eq!(story.forget("192.0.2.0/24".parse().unwrap()).len(), 2);
    assert_eq!(story.screen.records().len(), 2);
    // Whoever else still remembers them, tells nobody; what is learnt from now on counts.
    assert_eq!(story.screen.learn(client("192.0.2.1"), &record([UNIX; 5])), None);
    let again = learnt(UNIX + DAY, story.screen.clock().next((UNIX + DAY) * 1000));
    assert_eq!(story.screen.learn(client("192.0.2.1"), &again), Some(again));
}

fn learnt(until: u64, version: Version) -> Record {
    let mut record = Record::default();
    record.set(Test::Pregreet, Finding { version, stamp: Stamp(until), grounds: Grounds::Taken }, HostId::THIS);
    record
}

#[test]
fn a_session_keeps_what_others_have_learnt_meanwhile() {
    let mut rules = pregreet(Action::Enforce);
    rules.bare_newline.enabled = true;
    let mut story = Story::new(rules);
    let mut visit = story.connect(CLIENT);
    let mut elsewhere = Record::default();
    let version = Version::at(UNIX * 1000);
    let finding = Finding { version, stamp: Stamp(UNIX * 2), grounds: Grounds::Taken };
    elsewhere.set(Test::BareNewline, finding, HostId::THIS);
    story.screen.learn(client("192.0.2.9"), &elsewhere).unwrap();
    story.wait(&mut visit, seconds(6));
    story.send(&mut visit, "QUIT\r\n");
    let kept = story.record(CLIENT).unwrap();
    assert_eq!(kept.finding(Test::BareNewline), finding);
    assert_eq!(kept.finding(Test::Pregreet).grounds, Grounds::Taken);
    assert!(kept.finding(Test::Pregreet).version > version);
}

#[test]
fn a_session_that_outlasts_an_order_to_forget_keeps_what_it_learns_and_nothing_else() {
    let mut rules = pregreet(Action::Enforce);
    rules.bare_newline.enabled = true;
    let mut story = Story::new(rules);
    let mut known = Record::default();
    let finding = Finding { version: Version::at(1), stamp: Stamp(UNIX * 2), grounds: Grounds::Taken };
    known.set(Test::BareNewline, finding, HostId::THIS);
    story.screen.learn(client("192.0.2.9"), &known).unwrap();
    let mut visit = story.connect(CLIENT);
    story.forget("192.0.2.9/32".parse().unwrap());
    story.wait(&mut visit, seconds(6));
    assert!(visit.forwards(), "it goes by what it began with");
    story.tell(&mut visit, ACCEPTED);
    assert_eq!(story.stamp(CLIENT, Test::BareNewline), Stamp::NEVER);
    assert!(story.stamp(CLIENT, Test::Pregreet).is_pass());
}

#[test]
fn without_memory_every_visit_is_the_first() {
    let mut rules = pregreet(Action::Enforce);
    rules.remember_results = false;
    let mut story = Story::new(rules);
    for _ in 0..2 {
        let mut visit = story.connect(CLIENT);
        story.wait(&mut visit, seconds(6));
        assert!(visit.log_text().ends_with("PASS NEW CLIENT"));
        assert!(!visit.effects().iter().any(|effect| matches!(effect, Effect::Remember(_))));
        story.tell(&mut visit, ACCEPTED);
    }
}

#[test]
fn only_what_has_expired_is_repeated() {
    let mut rules = deep(Action::Enforce);
    rules.pregreet.teaser = "hello".into();
    rules.pregreet.action = Action::Enforce;
    let mut story = Story::new(rules);
    let now = story.unix();
    story.screen.learn(client("192.0.2.9"), &record([now - 10, 1, now + 10, now + 10, now + 10]));
    let mut visit = story.connect(CLIENT);
    story.wait(&mut visit, seconds(6));
    assert!(visit.log_text().ends_with("PASS OLD CLIENT"));
    assert!(visit.forwards());
}

#[test]
fn early_passes_are_kept_without_a_pass_line() {
    let mut rules = deep(Action::Enforce);
    rules.pregreet.teaser = "hello".into();
    let mut story = Story::new(rules);
    let mut visit = story.connect(CLIENT);
    story.wait(&mut visit, seconds(6));
    visit.logs();
    story.send(&mut visit, "QUIT\r\n");
    assert_eq!(visit.log_text(), "DISCONNECT CLIENT");
    assert_eq!(story.stamp(CLIENT, Test::Pregreet), Stamp(story.unix() + DAY));
    assert_eq!(story.stamp(CLIENT, Test::Pipelining), Stamp::NEVER);
}

#[test]
fn late_answers_take_a_pass_back() {
    let mut story = Story::new(dnsbl(&["fast.test", "slow.test"], Action::Drop));
    let mut visit = story.connect(CLIENT);
    let fast = not_listed(0, 500);
    story.tell(&mut visit, Event::Dnsbl(&fast));
    story.wait(&mut visit, seconds(6));
    assert!(visit.forwards());
    story.tell(&mut visit, ACCEPTED);
    let now = story.clock();
    // Good news change nothing, bad news do, once.
    let me = client("192.0.2.9");
    assert_eq!(story.screen.correct_dnsbl(me, &[fast.clone(), not_listed(1, 500)], now), None);
    let answers = [fast, listed(1, "127.0.0.2", 500)];
    let corrected = story.screen.correct_dnsbl(me, &answers, now).unwrap();
    assert_eq!(corrected.stamp(Test::Dnsbl), Stamp::DISABLED);
    assert_eq!(story.record(CLIENT), Some(corrected));
    assert_eq!(story.screen.correct_dnsbl(me, &answers, now), None);
    assert!(story.connect(CLIENT).effects().contains(&Effect::LookUp));
}

#[test]
fn the_policy_says_how_long_a_record_is_good() {
    let mut rules = pregreet(Action::Enforce);
    assert_eq!(rules.valid_until(&record([500, 0, 0, 0, 0])), Some(500));
    assert_eq!(rules.valid_until(&record([1, 500, 500, 500, 500])), None);
    rules.bare_newline.enabled = true;
    assert_eq!(rules.valid_until(&record([500, 0, 0, 0, 400])), Some(400));
    assert_eq!(policy().valid_until(&record([500; 5])), None);
}

#[test]
fn a_client_that_was_spared_a_test_has_not_passed_it() {
    let mut rules = pregreet(Action::Enforce);
    rules.bare_newline.enabled = true;
    let of = |grounds| {
        let mut record = record([500; 5]);
        let finding = Finding { version: Version(1), stamp: Stamp(500), grounds };
        record.set(Test::BareNewline, finding, HostId::THIS);
        record
    };
    assert!(rules.vouches(&of(Grounds::Taken), 499) && !rules.vouches(&of(Grounds::Taken), 500));
    for spared in [Grounds::Neighbour, Grounds::Score] {
        assert_eq!((rules.valid_until(&of(spared)), rules.vouches(&of(spared), 499)), (Some(500), false));
    }
    rules.bare_newline.enabled = false;
    assert!(rules.vouches(&of(Grounds::Neighbour), 499), "nobody takes that test");
}

#[test]
fn running_sessions_keep_their_policy() {
    let mut story = Story::new(pregreet(Action::Enforce));
    let mut visit = story.connect(CLIENT);
    story.screen.set_policy(pregreet(Action::Drop));
    story.tell(&mut visit, Event::Peeked(b"x"));
    assert!(!visit.session.has_ended());
    let mut next = story.connect("192.0.2.1:1");
    story.tell(&mut next, Event::Peeked(b"x"));
    assert!(next.session.has_ended());
}
