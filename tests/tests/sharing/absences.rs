//! Gates that were away, streams that were cut short, and a Redis that has lost everything.

use nix::sys::signal::Signal;
use screen_tests::{
    fleet::{Edge, Fleet},
    redis::{PORT, Redis},
};

use super::{CLIENTS, URLS, assert_known, ip, numbered};

const DENIED: &str = "198.18.1.7";

#[test]
fn a_new_gate_is_warm_before_it_is_ready() {
    let Some(mut fleet) = Fleet::new(3, URLS) else { return };
    let _redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.edges[0].start();
    fleet.edges[0].wait_synced();
    for client in CLIENTS {
        fleet.edges[0].tests(ip(client));
    }
    fleet.edges[0].gate().tell(&["deny", DENIED]);
    fleet.edges[1].start();
    fleet.edges[1].wait_synced();
    fleet.wait_agreement();

    fleet.edges[2].start();
    // Without waiting for anything.
    for client in CLIENTS {
        assert!(fleet.edges[2].has_passed(ip(client)));
        fleet.edges[2].assert_steers(ip(client));
    }
    fleet.edges[2].assert_refuses(ip(DENIED));
}

#[test]
fn what_a_new_gate_has_heard_is_kept_there_too() {
    let Some(mut fleet) = Fleet::new(2, URLS) else { return };
    let redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.edges[0].start();
    fleet.edges[0].wait_synced();
    for client in CLIENTS {
        fleet.edges[0].tests(ip(client));
    }
    fleet.edges[0].stop();
    fleet.edges[1].start();
    let status = |edge: &Edge| edge.gate().ask(&["status"])["cache"]["store"].clone();
    fleet.edges[1].gate().wait("it is in the file", || {
        let store = status(&fleet.edges[1]);
        store["pending"] == 0 && store["written"].as_u64().is_some_and(|written| written >= CLIENTS.len() as u64)
    });
    fleet.edges[1].stop();
    drop(redis);

    fleet.edges[1].start();
    for client in CLIENTS {
        assert!(fleet.edges[1].has_passed(ip(client)));
    }
}

#[test]
fn what_one_gate_knew_outlives_all_gates() {
    let Some(mut fleet) = Fleet::new(2, r#"["redis://[2001:db8::5]:6379"]"#) else { return };
    let _redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.start();
    fleet.edges[0].tests(ip(CLIENTS[0]));
    fleet.edges[1].gate().tell(&["deny", DENIED]);
    fleet.wait_agreement();
    fleet.edges.iter_mut().for_each(|edge| edge.stop());
    fleet.start();
    assert_known(&fleet.edges, &CLIENTS[..1]);
    fleet.edges.iter().for_each(|edge| edge.assert_refuses(ip(DENIED)));
}

#[test]
fn a_gate_that_was_cut_off_catches_up() {
    let Some(mut fleet) = Fleet::new(3, URLS) else { return };
    let redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.start();
    for (round, trimmed) in [(1, false), (2, true)] {
        let looks = || fleet.edges[2].redis()["reconciled"].as_u64().unwrap();
        let before = looks();
        fleet.backplane.cut(2);
        for (number, edge) in fleet.edges.iter().enumerate() {
            for client in numbered(round, number) {
                edge.tests(client);
            }
        }
        fleet.edges[0].gate().tell(&["deny", DENIED]);
        fleet.edges[1].gate().wait_denied(ip(DENIED));
        for client in numbered(round, 0) {
            fleet.edges[1].wait_passed(client);
            assert!(!fleet.edges[2].has_passed(client), "it was cut off");
        }
        if trimmed {
            redis.trim_streams("mxscreen");
        }
        fleet.backplane.mend(2);
        fleet.edges[2].gate().wait_denied(ip(DENIED));
        let known = fleet.wait_agreement();
        assert_eq!(known.passed.len(), 6 * usize::from(round), "{known:?}");
        assert_eq!(looks() > before, trimmed, "it looks at everything if it may have missed something, and not else");
        // What was decided there meanwhile came through, too.
        for client in numbered(round, 2) {
            fleet.edges[0].assert_steers(client);
        }
        fleet.edges[2].gate().tell(&["forget", DENIED]);
        fleet.edges.iter().for_each(|edge| edge.gate().wait_undenied(ip(DENIED)));
    }
}

#[test]
fn the_later_word_counts_whoever_was_away() {
    let Some(mut fleet) = Fleet::new(3, URLS) else { return };
    let _redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.start();
    fleet.backplane.cut(0);
    let [away, there] = [&fleet.edges[0], &fleet.edges[1]];
    // Neither knows of the other's word.
    for (first, second, [renamed, forgotten]) in
        [(away, there, ["198.18.1.7", "198.18.1.8"]), (there, away, ["198.18.1.9", "198.18.1.10"])]
    {
        first.gate().tell(&["deny", renamed, "--reason", "earlier"]);
        first.gate().tell(&["deny", forgotten]);
        second.gate().tell(&["deny", renamed, "--reason", "later"]);
        second.gate().tell(&["forget", forgotten]);
    }
    fleet.backplane.mend(0);
    fleet.edges.iter().for_each(|edge| edge.gate().wait_undenied(ip("198.18.1.8")));
    fleet.edges.iter().for_each(|edge| edge.gate().wait_undenied(ip("198.18.1.10")));
    let known = fleet.wait_agreement();
    let later = ["198.18.1.7", "198.18.1.9"].map(|net| format!("\"{net}/32\" \"operator\" \"later\""));
    assert_eq!(known.denied, later.into_iter().collect());
}

#[test]
fn gates_fill_a_redis_that_has_lost_everything() {
    let Some(mut fleet) = Fleet::new(3, URLS) else { return };
    let mut redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.start();
    for (number, edge) in fleet.edges.iter().enumerate() {
        for client in numbered(1, number) {
            edge.tests(client);
        }
    }
    fleet.edges[0].gate().tell(&["deny", DENIED]);
    let known = fleet.wait_agreement();
    assert_eq!((known.passed.len(), known.denied.len()), (6, 1), "{known:?}");

    for flushed in [true, false] {
        if flushed {
            redis.ask(&["FLUSHALL"]);
        } else {
            redis.kill();
            redis.restart(&fleet.backplane);
        }
        // A host that was not there tells what Redis has now.
        fleet.edges[2].stop();
        fleet.edges[2].start();
        assert_eq!(fleet.wait_agreement(), known);
    }
}

#[test]
fn the_next_screener_of_a_host_takes_part_again() {
    let Some(mut fleet) = Fleet::new(2, URLS) else { return };
    let _redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.start();
    for (round, upgraded) in [(1, false), (2, true)] {
        let edge = &fleet.edges[0];
        let first = edge.gate().screener();
        if upgraded {
            edge.gate().tell(&["upgrade"]);
        } else {
            edge.gate().signal_screener(Signal::SIGKILL);
        }
        edge.gate().wait("the next screener answers", || {
            edge.gate().screener_if_any().is_some_and(|pid| pid != first)
                && edge.gate().control(&["status"]).status.success()
        });
        for client in numbered(round, 0) {
            fleet.edges[0].tests(client);
            fleet.edges[1].wait_passed(client);
        }
        for client in numbered(round, 1) {
            fleet.edges[1].tests(client);
            fleet.edges[0].wait_passed(client);
        }
        assert_eq!(fleet.wait_agreement().passed.len(), 4 * usize::from(round));
    }
}
