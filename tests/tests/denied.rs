//! Clients on a deny list never complete a handshake; what lists say, what the kernel does and what bpftool shows is one.

use std::net::IpAddr;

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Has to be screened like anybody.
fn assert_screened(net: &Net, address: IpAddr) {
    assert_eq!(Client::connect(net.client(), address).line(), "220-mx.example.test ESMTP", "{address}");
}

/// A prefix, a client in it, and one just outside.
const PREFIXES: [(&str, &str, &str); 4] = [
    ("198.18.1.7", "198.18.1.7", "198.18.1.8"),
    ("198.18.2.0/24", "198.18.2.255", "198.18.3.0"),
    ("198.18.64.0/19", "198.18.95.1", "198.18.96.1"),
    ("2001:2:0:50::/60", "2001:2:0:5f::1", "2001:2:0:60::1"),
];

#[test]
fn the_access_list_is_enforced_in_the_kernel() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start(&net);
    let table = net.directory().join("access.cidr");
    let rejects: String = PREFIXES.iter().map(|(prefix, ..)| format!("{prefix} reject\n")).collect();
    std::fs::write(&table, format!("198.18.2.9 permit\n{rejects}")).unwrap();
    let settings = Settings::in_place(&net)
        .set("access.list", &format!("[\"permit_mynetworks\", \"cidr:{}\"]", table.display()))
        .text("access.denylist_action", "drop")
        .text("kernel.deny_reply", "drop");
    let gate = Gate::start(&net, settings);
    for (number, (_, inside, outside)) in PREFIXES.into_iter().enumerate() {
        Client::assert_dropped(net.client(), ip(inside));
        assert!(gate.pins().count("refused", ip(inside), "denied") > 0);
        assert!(gate.pins().total("Denied", "packets") > i64::try_from(number).unwrap());
        assert_screened(&net, ip(outside));
    }
    // The first match decides: a hole in a denied network.
    assert_eq!(
        Client::connect(net.client(), ip("198.18.2.9")).line(),
        "220 mx.example.test ESMTP Postfix (Debian/GNU)"
    );
    assert_eq!(gate.logged("CONNECT from [198.18.1.7]"), 0, "the screener never saw it");
    drop(postfix);
}

#[test]
fn a_run_time_entry_holds_until_it_is_forgotten() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net).text("kernel.deny_reply", "drop"));
    for (prefix, inside, outside) in PREFIXES {
        assert_screened(&net, ip(inside));
        gate.tell(&["deny", prefix, "--for", "1h", "--reason", "a test"]);
        gate.wait_denied(ip(inside));
        Client::assert_dropped(net.client(), ip(inside));
        let before = gate.pins().count("refused", ip(inside), "denied");
        assert!(before > 0);
        Client::assert_dropped(net.client(), ip(inside));
        assert!(gate.pins().count("refused", ip(inside), "denied") > before, "every refusal counts");
        assert_screened(&net, ip(outside));
        gate.tell(&["forget", prefix]);
        gate.wait_undenied(ip(inside));
        assert_screened(&net, ip(inside));
    }
}

#[test]
fn lists_and_bpftool_agree() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net));
    let nets = |list: &str| -> Vec<String> {
        let rows = gate.ask(&["list", list]);
        let own = rows.as_array().unwrap().iter().filter(|row| row["origin"] == "operator");
        own.map(|row| row["net"].as_str().unwrap().to_owned()).collect()
    };
    let in_kernel = |map: &str, address: &str| gate.pins().of(map, ip(address)).is_some();

    assert_eq!((nets("deny").len(), nets("allow").len()), (0, 0));
    for address in ["198.18.1.7", "2001:2:0:7::7"] {
        let exact = format!("{address}/{}", if address.contains(':') { 128 } else { 32 });
        gate.tell(&["deny", address]);
        assert_eq!(nets("deny"), [exact.as_str()]);
        gate.wait(&format!("{address} in the map deny_host"), || in_kernel("deny_host", address));

        gate.tell(&["allow", address]);
        assert_eq!(nets("allow"), [exact.as_str()]);
        gate.wait(&format!("{address} in the map allow"), || in_kernel("allow", address));
        let mut client = Client::connect(net.client(), ip(address));
        assert_eq!(client.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)", "any allow beats any deny");

        gate.tell(&["forget", address]);
        assert_eq!((nets("deny").len(), nets("allow").len()), (0, 0));
        gate.wait(&format!("{address} gone from both maps"), || {
            !in_kernel("deny_host", address) && !in_kernel("allow", address)
        });
    }
    assert!(!gate.control(&["deny", "198.18.1.7/24"]).status.success(), "host bits hide a typing error");
    assert!(!gate.control(&["deny", "mx.example"]).status.success());
}

#[test]
fn an_entry_ends_with_its_time() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net).text("kernel.deny_reply", "drop"));
    gate.tell(&["deny", "198.18.1.7", "--for", "4s"]);
    gate.wait_denied(ip("198.18.1.7"));
    Client::assert_dropped(net.client(), ip("198.18.1.7"));
    // TCP repeats its SYN until the entry is over.
    assert_screened(&net, ip("198.18.1.7"));
    gate.wait("the entry has left the list", || gate.ask(&["list", "deny"]).as_array().is_some_and(Vec::is_empty));
}
