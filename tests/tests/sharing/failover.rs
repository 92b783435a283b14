//! Servers that take each other's place.

use std::thread;

use screen_tests::{
    fleet::Fleet,
    redis::{Cluster, Sentinels},
    wait::{SOON, wait_for},
};

use super::numbered;

#[test]
fn gates_follow_the_sentinels_to_another_master() {
    let Some(mut fleet) = Fleet::new(3, "[]") else { return };
    let mut trio = Sentinels::start(&fleet.backplane);
    let urls = format!("[\"redis+sentinel://{}/0\"]", trio.place());
    fleet.configure(|settings| settings.set("cache.redis.urls", &urls));
    fleet.start();
    learn_and_agree(&fleet, 1);
    trio.fail_over();
    learn_and_agree(&fleet, 2);
    let master = trio.master();
    trio.servers[master].kill();
    // Learnt while there is none.
    learn(&fleet, 3);
    let next = trio.wait_master_other_than(master);
    agree(&fleet, 3);
    assert!(!trio.servers[next].keys("mxscreen").is_empty());
}

#[test]
fn a_master_that_comes_back_as_a_replica_misleads_nobody() {
    let Some(mut fleet) = Fleet::new(3, "[]") else { return };
    let trio = Sentinels::start(&fleet.backplane);
    let urls = format!("[\"redis+sentinel://{}/0\"]", trio.place());
    fleet.configure(|settings| settings.set("cache.redis.urls", &urls));
    fleet.start();
    learn_and_agree(&fleet, 1);
    let before = trio.master();
    trio.servers[before].freeze();
    let master = trio.wait_master_other_than(before);
    trio.servers[before].thaw();
    // It takes what it is told until the sentinels notice it, and loses that when it follows.
    learn(&fleet, 2);
    trio.servers[before].wait_follows();
    agree(&fleet, 2);
    for (number, client) in (0..fleet.edges.len()).flat_map(|edge| numbered(2, edge).map(|client| (edge, client))) {
        let record = format!("record:{}", fleet.edges[number].gate().client_net(client));
        wait_for(&format!("{record} is there"), SOON, || {
            trio.servers[master].keys("mxscreen").iter().any(|key| key.ends_with(&record)).then_some(())
        });
    }
}

#[test]
fn gates_go_on_with_a_cluster_that_loses_a_master() {
    let Some(mut fleet) = Fleet::new(3, "[]") else { return };
    let mut cluster = Cluster::start(&fleet.backplane);
    let urls: Vec<String> = cluster.seeds().iter().map(|place| format!("\"redis://{place}\"")).collect();
    fleet.configure(|settings| settings.set("cache.redis.urls", &format!("[{}]", urls.join(", "))));
    fleet.start();
    learn_and_agree(&fleet, 1);
    cluster.fail_over();
    learn_and_agree(&fleet, 2);
    let victim = cluster.kill_master();
    learn_and_agree(&fleet, 3);
    cluster.nodes[victim].restart(&fleet.backplane);
    learn_and_agree(&fleet, 4);
}

#[test]
fn gates_find_the_slots_of_a_cluster_that_move() {
    let Some(mut fleet) = Fleet::new(2, "[]") else { return };
    let cluster = Cluster::start(&fleet.backplane);
    let urls: Vec<String> = cluster.seeds().iter().map(|place| format!("\"redis://{place}\"")).collect();
    fleet.configure(|settings| settings.set("cache.redis.urls", &format!("[{}]", urls.join(", "))));
    fleet.start();
    learn_and_agree(&fleet, 1);
    thread::scope(|scope| {
        let moving = scope.spawn(|| cluster.empty_master(&fleet.backplane));
        learn(&fleet, 2);
        moving.join().unwrap();
    });
    agree(&fleet, 2);
    learn_and_agree(&fleet, 3);
}

/// Each gate tests a client of each family.
#[track_caller]
fn learn(fleet: &Fleet, round: u8) {
    for (number, edge) in fleet.edges.iter().enumerate() {
        for client in numbered(round, number) {
            edge.tests(client);
        }
    }
}

/// All of them know what each of them has learnt in so many rounds.
#[track_caller]
fn agree(fleet: &Fleet, rounds: u8) {
    for number in 0..fleet.edges.len() {
        for (edge, client) in fleet.edges.iter().flat_map(|edge| numbered(rounds, number).map(|client| (edge, client)))
        {
            edge.wait_passed(client);
        }
    }
    let known = fleet.wait_agreement();
    assert_eq!(known.passed.len(), usize::from(rounds) * 2 * fleet.edges.len(), "{known:?}");
}

#[track_caller]
fn learn_and_agree(fleet: &Fleet, rounds: u8) {
    learn(fleet, rounds);
    agree(fleet, rounds);
}
