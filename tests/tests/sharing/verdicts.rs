//! What one gate learns or is told, the kernels of all others do.

use std::{
    fs,
    time::{Duration, Instant},
};

use screen_tests::{
    fleet::{Edge, Fleet, GREETING, TEASER},
    gate::Settings,
    redis::{PORT, Redis},
    smtp::Client,
};

use super::{CLIENTS, URLS, assert_known, ip};

fn assert_screened(edge: &Edge, client: &str) {
    assert_eq!(Client::connect(edge.net().client(), ip(client)).line(), TEASER, "{client}");
}

#[test]
fn who_has_passed_at_one_gate_is_known_good_at_all() {
    let Some(mut fleet) = Fleet::new(3, URLS) else { return };
    let _redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.start();
    for client in CLIENTS {
        fleet.edges[0].tests(ip(client));
    }
    assert_known(&fleet.edges, &CLIENTS);
    let known = fleet.wait_agreement();
    assert_eq!((known.passed.len(), known.denied.len()), (2, 0), "{known:?}");
    for edge in &fleet.edges {
        assert_eq!(edge.gate().ask(&["explain", CLIENTS[0]])["learnt_by"], "mx0.example.test");
    }
}

#[test]
fn who_has_failed_at_one_gate_is_refused_by_all() {
    let Some(mut fleet) = Fleet::new(3, URLS) else { return };
    let _redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.start();
    for client in CLIENTS {
        fleet.edges[0].catches(ip(client));
        for edge in &fleet.edges {
            edge.gate().wait_denied(ip(client));
            edge.assert_refuses(ip(client));
        }
    }
    let known = fleet.wait_agreement();
    assert_eq!((known.passed.len(), known.denied.len()), (0, 2), "{known:?}");
}

#[test]
fn what_an_operator_says_at_one_gate_holds_at_all() {
    let Some(mut fleet) = Fleet::new(3, URLS) else { return };
    let _redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.start();
    let [first, second, third] = &fleet.edges[..] else { panic!("three edges") };
    for (net, inside) in
        [("198.18.1.7", "198.18.1.7"), ("198.18.2.0/24", "198.18.2.9"), ("2001:2:0:50::/60", "2001:2:0:5f::1")]
    {
        first.gate().tell(&["deny", net, "--reason", "hammers us"]);
        for edge in &fleet.edges {
            edge.gate().wait_denied(ip(inside));
            edge.assert_refuses(ip(inside));
        }
        assert_eq!(second.gate().ask(&["list", "deny"])[0]["reason"], "hammers us");
        second.gate().tell(&["allow", inside]);
        for edge in &fleet.edges {
            edge.gate().wait_undenied(ip(inside));
            edge.assert_steers(ip(inside));
        }
        third.gate().tell(&["forget", net]);
        third.gate().tell(&["forget", inside]);
        fleet.wait_agreement();
        for edge in &fleet.edges {
            assert_screened(edge, inside);
        }
    }
    let known = fleet.wait_agreement();
    assert!(known.denied.is_empty() && known.allowed.is_empty(), "{known:?}");
}

#[test]
fn what_is_forgotten_at_one_gate_is_forgotten_at_all() {
    let Some(mut fleet) = Fleet::new(3, URLS) else { return };
    let _redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.start();
    for client in CLIENTS {
        fleet.edges[0].tests(ip(client));
        assert_known(&fleet.edges, &[client]);
        fleet.edges[1].gate().tell(&["forget", &fleet.edges[1].gate().client_net(ip(client))]);
        for edge in &fleet.edges {
            edge.gate().wait("it left the map pass", || !edge.has_passed(ip(client)));
            assert_screened(edge, client);
        }
        fleet.edges[2].tests(ip(client));
        assert_known(&fleet.edges, &[client]);
    }
    assert_eq!(fleet.wait_agreement().passed.len(), 2);
}

#[test]
fn a_list_that_is_imported_at_one_gate_is_enforced_by_all() {
    let Some(mut fleet) = Fleet::new(3, URLS) else { return };
    let _redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.start();
    let [first, second, third] = &fleet.edges[..] else { panic!("three edges") };
    let file = first.net().directory().join("drop.txt");
    let import = |edge: &Edge, text: &str| {
        fs::write(&file, text).unwrap();
        edge.gate().tell(&["blocklist", "import", file.to_str().unwrap(), "--list", "drop"]);
    };
    import(first, "198.18.1.0/24\n2001:2:0:50::/60\n");
    for edge in &fleet.edges {
        for denied in ["198.18.1.7", "2001:2:0:5f::1"] {
            edge.gate().wait_denied(ip(denied));
            edge.assert_refuses(ip(denied));
            assert_eq!(edge.gate().ask(&["explain", denied])["imported_list"], "drop");
        }
    }
    import(second, "198.18.2.0/24\n");
    for edge in &fleet.edges {
        edge.gate().wait_denied(ip("198.18.2.7"));
        edge.gate().wait_undenied(ip("198.18.1.7"));
        assert_screened(edge, "198.18.1.7");
        assert_eq!(edge.gate().tell(&["blocklist", "export", "--list", "drop"]), "198.18.2.0/24\n");
    }
    assert_eq!(fleet.wait_agreement().lists.len(), 1);
    third.gate().tell(&["blocklist", "remove", "--list", "drop"]);
    for edge in &fleet.edges {
        edge.gate().wait_undenied(ip("198.18.2.7"));
        assert_screened(edge, "198.18.2.7");
    }
    assert!(fleet.wait_agreement().lists.is_empty());
}

#[test]
fn a_list_that_is_a_file_is_its_hosts_alone() {
    let Some(mut fleet) = Fleet::new(2, URLS) else { return };
    let _redis = Redis::start(&fleet.backplane, PORT, &[]);
    let lists = |settings: &Settings| settings.directory().join("blocklists.d");
    fleet.configure(|settings| {
        fs::create_dir_all(lists(&settings)).unwrap();
        let directory = lists(&settings).display().to_string();
        settings.text("blocklists.directory", &directory)
    });
    let file = lists(fleet.edges[0].settings()).join("own.txt");
    fs::write(&file, "198.18.1.0/24\n").unwrap();
    fleet.start();
    let [first, second] = &fleet.edges[..] else { panic!("two edges") };
    first.assert_refuses(ip("198.18.1.7"));

    // Another host has a list of the same name: each keeps its own.
    let other = second.net().directory().join("other.txt");
    fs::write(&other, "198.18.2.0/24\n").unwrap();
    second.gate().tell(&["blocklist", "import", other.to_str().unwrap(), "--list", "own"]);
    first.gate().wait_log("own: this list is the file own.txt in blocklists.directory");
    first.assert_refuses(ip("198.18.1.7"));
    assert_screened(first, "198.18.2.7");
    second.assert_refuses(ip("198.18.2.7"));
    assert_screened(second, "198.18.1.7");
    fs::remove_file(&file).unwrap();
    first.gate().wait_undenied(ip("198.18.1.7"));
    second.assert_refuses(ip("198.18.2.7"));
}

#[test]
fn a_verdict_is_in_all_kernels_within_a_second() {
    let Some(mut fleet) = Fleet::new(3, URLS) else { return };
    let _redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.start();
    let mut slowest = Duration::ZERO;
    for number in 1..=20 {
        let client = ip(&format!("198.18.3.{number}"));
        let told = Instant::now();
        fleet.edges[0].gate().tell(&["deny", &client.to_string()]);
        for edge in &fleet.edges[1..] {
            edge.gate().wait("it is in the map deny_host", || edge.gate().pins().of("deny_host", client).is_some());
        }
        slowest = slowest.max(told.elapsed());
    }
    println!("by the clock of the test, {slowest:?} at most");
    for edge in &fleet.edges[1..] {
        let redis = edge.redis();
        println!("by the clocks of the gates, in milliseconds: {}", redis["lag_ms"]);
        assert!(redis["lag_ms"]["count"].as_u64() >= Some(20), "{redis}");
        // The one time that a test asserts: it is what is promised.
        assert!(redis["lag_ms"]["max"].as_f64().is_some_and(|longest| longest < 1000.0), "{redis}");
    }
}

#[test]
fn who_is_known_to_redis_alone_is_recognised_when_he_comes() {
    let Some(mut fleet) = Fleet::new(2, URLS) else { return };
    let redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.configure(|settings| settings.text("cache.redis.lookup_timeout", "10s"));
    fleet.start();
    fleet.edges[0].tests(ip("198.18.1.1"));
    fleet.edges[1].wait_passed(ip("198.18.1.1"));
    // What nobody has announced, in each place where it could be looked for.
    let record = redis.keys("mxscreen").into_iter().find(|key| key.ends_with("record:198.18.1.1/32")).unwrap();
    for shard in 0..16 {
        redis.ask(&["COPY", &record, &format!("mxscreen:{{{shard}}}:record:198.18.1.2/32")]);
    }
    let edge = &fleet.edges[1];
    assert!(!edge.has_passed(ip("198.18.1.2")));
    let mut known = Client::connect(edge.net().client(), ip("198.18.1.2"));
    assert_eq!(known.line(), GREETING);
    edge.gate().wait_log(&format!("PASS OLD {}", known.name()));
    assert_eq!(edge.redis()["lookups"]["answered"], 1);
    // From then on the kernel knows.
    edge.wait_passed(ip("198.18.1.2"));
    edge.assert_steers(ip("198.18.1.2"));
}
