//! Redis is gone, stands still or refuses: clients are served all the while, and afterwards all gates agree.

use std::time::Duration;

use screen_tests::{
    fleet::Fleet,
    redis::{PORT, Redis},
    smtp::Client,
};

use super::{CLIENTS, URLS, assert_known, ip, numbered};

/// Three gates that know a client; what happens to Redis; then everything that goes on without it, and what was learnt meanwhile is
/// shared when `remedy` has put it right.
#[track_caller]
fn serves_all_the_while(fault: impl Fn(&Fleet, &mut Redis), remedy: impl Fn(&Fleet, &mut Redis)) {
    let Some(mut fleet) = Fleet::new(3, URLS) else { return };
    let mut redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.start();
    fleet.edges[0].tests(ip(CLIENTS[0]));
    assert_known(&fleet.edges, &CLIENTS[..1]);

    fault(&fleet, &mut redis);
    for (number, edge) in fleet.edges.iter().enumerate() {
        edge.assert_steers(ip(CLIENTS[0]));
        // Redis says nothing until all of them were served, so that nobody can have waited for it.
        for client in numbered(2, number) {
            edge.tests(client);
            edge.assert_steers(client);
        }
        let denied = format!("198.18.3.{}", number + 1);
        edge.gate().tell(&["deny", &denied]);
        edge.assert_refuses(ip(&denied));
        edge.gate().wait("nobody is kept waiting", || edge.gate().ask(&["status"])["connections"]["open"] == 0);
    }

    remedy(&fleet, &mut redis);
    fleet.edges.iter().for_each(|edge| edge.wait_synced());
    for number in 0..fleet.edges.len() {
        for edge in &fleet.edges {
            for client in numbered(2, number) {
                edge.wait_passed(client);
            }
            edge.gate().wait_denied(ip(&format!("198.18.3.{}", number + 1)));
        }
    }
    let known = fleet.wait_agreement();
    assert_eq!((known.passed.len(), known.denied.len()), (7, 3), "{known:?}");
}

#[test]
fn without_redis() {
    serves_all_the_while(|_, redis| redis.kill(), |fleet, redis| redis.restart(&fleet.backplane));
}

#[test]
fn with_a_redis_that_stands_still() {
    serves_all_the_while(|_, redis| redis.freeze(), |_, redis| redis.thaw());
}

#[test]
fn with_a_redis_that_is_full() {
    serves_all_the_while(|_, redis| redis.set_full(true), |_, redis| redis.set_full(false));
}

#[test]
fn with_a_redis_that_takes_nothing() {
    serves_all_the_while(|_, redis| redis.set_read_only(true), |_, redis| redis.set_read_only(false));
}

#[test]
fn cut_off_from_redis() {
    let all = |fleet: &Fleet, change: fn(&Fleet, usize)| (0..fleet.edges.len()).for_each(|edge| change(fleet, edge));
    serves_all_the_while(
        |fleet, _| all(fleet, |fleet, edge| fleet.backplane.cut(edge)),
        |fleet, _| all(fleet, |fleet, edge| fleet.backplane.mend(edge)),
    );
}

#[test]
fn with_a_redis_that_is_slow_again_and_again() {
    let Some(mut fleet) = Fleet::new(2, URLS) else { return };
    let redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.start();
    for round in 1..=3 {
        redis.hold(Duration::from_secs(2));
        for (number, edge) in fleet.edges.iter().enumerate() {
            for client in numbered(round, number) {
                edge.tests(client);
            }
        }
    }
    assert_eq!(fleet.wait_agreement().passed.len(), 12);
}

#[test]
fn a_gate_starts_without_redis_and_finds_it_later() {
    let Some(mut fleet) = Fleet::new(2, URLS) else { return };
    fleet.edges.iter_mut().for_each(|edge| edge.start());
    for (number, edge) in fleet.edges.iter().enumerate() {
        edge.wait_disconnected();
        for client in numbered(1, number) {
            edge.tests(client);
        }
    }
    let _redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.edges.iter().for_each(|edge| edge.wait_synced());
    assert_eq!(fleet.wait_agreement().passed.len(), 4);
}

#[test]
fn a_look_up_that_is_not_answered_keeps_no_client_waiting() {
    let Some(mut fleet) = Fleet::new(1, URLS) else { return };
    let redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.start();
    let edge = &fleet.edges[0];
    redis.freeze();
    for number in 1..=20 {
        let mut client = Client::connect(edge.net().client(), ip(&format!("198.18.4.{number}")));
        assert_eq!(client.line(), screen_tests::fleet::TEASER);
    }
    let lookups = edge.redis()["lookups"].clone();
    let count = |name: &str| lookups[name].as_u64().unwrap_or_else(|| panic!("no {name} in {lookups}"));
    assert_eq!(count("timed_out") + count("failed") + count("skipped"), 20, "{lookups}");
    // Once it is known that Redis does not answer, nobody waits for it.
    assert!(count("skipped") > 0, "{lookups}");
    redis.thaw();
    edge.wait_synced();
}
