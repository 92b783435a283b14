//! What is known of many clients is taken up while clients are served.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};
use screen_user::{
    cache::{StateFile, Store},
    config,
    screen::record::{Client as Known, Record, Stamp},
    share::Hosts,
};

const RECORDS: u32 = 200_000;
/// One of those that are known.
const KNOWN: &str = "198.18.1.1";
const STRANGER: &str = "198.18.1.8";
const DENIED: &str = "198.18.1.7";

/// How many gates may be ready before anybody has looked: how long they take depends on the machine.
const ATTEMPTS: usize = 5;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Has a gate that does not run know so many clients, who have all passed every test.
fn fill(settings: &Settings) {
    let path = settings.write();
    let cache = config::load_text(&fs::read_to_string(&path).unwrap(), &path, &[]).unwrap().config.cache;
    let hosts = Arc::new(Hosts::new("mx.example.test"));
    let opened = Store::open(&cache, StateFile::within(&settings.state()), hosts);
    assert_eq!(opened.complaint, None);
    let passed =
        Stamp::until(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(), Duration::from_secs(7 * 86_400));
    let others = (1..RECORDS).map(|number| IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + number)));
    for address in others.chain([ip(KNOWN)]) {
        opened.store.remember(Known { address, prefix_len: 32 }, Record::of_stamps([passed; 5]));
    }
    assert_eq!(opened.store.status().lost, 0);
}

/// How many records the gate has taken up; none if it is ready.
fn loading(gate: &Gate) -> Option<u64> {
    let status = gate.ask(&["status"]);
    status["cache"].get("loading").unwrap_or_else(|| panic!("no cache.loading in {status}")).as_u64()
}

/// A gate that answers, whether it is ready or not.
fn begin(net: &Net, settings: &Settings) -> Gate {
    let gate = Gate::begin(net, settings.clone());
    gate.wait("the gate answers", || gate.control(&["status"]).status.success());
    gate
}

#[test]
fn clients_are_served_while_what_is_known_of_others_is_taken_up() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let settings = Settings::in_place(&net);
    let gate = Gate::start(&net, settings.clone());
    gate.tell(&["deny", DENIED]);
    gate.stop();
    fill(&settings);

    // One that is stopped before it is ready ends in order, and loses nothing.
    let stopped = (0..ATTEMPTS).any(|_| {
        begin(&net, &settings).stop();
        !fs::read_to_string(settings.log()).unwrap().lines().any(|line| line.ends_with(": ready"))
    });
    assert!(stopped, "{ATTEMPTS} gates were ready at once");

    let gate = (0..ATTEMPTS).find_map(|_| {
        let gate = begin(&net, &settings);
        assert_eq!(Client::connect(net.client(), ip(STRANGER)).line(), "220-mx.example.test ESMTP");
        assert_eq!(Client::connect(net.client(), ip(DENIED)).line(), "521 5.3.2 Service currently unavailable");
        assert_eq!(gate.logged(&format!("[{DENIED}]")), 0, "the kernel has refused it");
        let export = gate.control(&["cache", "export"]);
        if loading(&gate).is_some() {
            assert!(!export.status.success(), "it was not all that the gate knows");
            return Some(gate);
        }
        gate.stop();
        None
    });
    let gate = gate.unwrap_or_else(|| panic!("{ATTEMPTS} gates were ready at once")).wait_ready();
    // Without waiting for anything.
    assert_eq!(loading(&gate), None);
    assert_eq!(gate.pins().dump("pass").len(), RECORDS as usize);
    assert_eq!(Client::connect(net.client(), ip(KNOWN)).line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
    assert_eq!(gate.ask(&["status"])["screening"]["records"], RECORDS);
}
