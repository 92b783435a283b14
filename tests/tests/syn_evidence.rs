//! How a client opened its connection is kept as evidence, whoever decides on it.

use std::net::IpAddr;

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    smtp::Client,
    wait::{SOON, wait_for},
};

const CLIENTS: [&str; 2] = ["198.18.1.1", "2001:2:0:1::1"];
const PROXY: &str = "198.18.0.80";

/// A host that can be told from others: 77 hops to go, and segments of its own size.
fn peculiar(net: &Net) {
    let host = &net.client().namespace;
    host.sysctl("net.ipv4.ip_default_ttl", "77");
    host.sysctl("net.ipv6.conf.c0.hop_limit", "77");
    host.ip("link set c0 mtu 1400");
    host.sysctl("net.ipv4.tcp_timestamps", "0");
}

/// The SYN of the client's last session, when that is over.
fn shown(gate: &Gate, client: &str) -> serde_json::Value {
    wait_for("the session is kept", SOON, || {
        let known = gate.ask(&["explain", client]);
        known["last_sessions"].get(0).map(|session| session["syn"].clone())
    })
}

fn visit(net: &Net, gate: &Gate) {
    for (client, mss) in CLIENTS.into_iter().zip([1360, 1340]) {
        drop(Client::connect(net.client(), client.parse::<IpAddr>().unwrap()));
        let syn = shown(gate, client);
        let syn = syn.as_str().unwrap();
        assert!(syn.starts_with("ttl=77 win="), "{syn}");
        assert!(syn.contains(&format!(" mss={mss} wscale=")), "{syn}");
        // Linux without timestamps.
        assert!(syn.ends_with(" opts=mss,nop,nop,sok,nop,ws"), "{syn}");
        let text = gate.tell(&["explain", client]);
        assert!(text.contains(&format!("syn: {syn}\n")), "{text}");
    }
}

#[test]
fn with_the_kernel_part() {
    let Some(net) = Net::new() else { return };
    peculiar(&net);
    let gate = Gate::start(&net, Settings::in_place(&net));
    visit(&net, &gate);
}

#[test]
fn in_user_space_alone_and_never_a_proxys() {
    let Some(net) = Net::new() else { return };
    peculiar(&net);
    let settings = Settings::front(&net, "127.0.0.1:10025")
        .text("forward.client_address", "none")
        .text("kernel.mode", "off")
        .set("proxy_protocol.from", &format!("[{PROXY:?}]"));
    let gate = Gate::start(&net, settings);
    visit(&net, &gate);
    let mut proxy = Client::connect(net.client(), PROXY.parse().unwrap());
    proxy.send("PROXY TCP4 203.0.113.1 198.18.0.1 40000 25\r\n");
    gate.wait_log("CONNECT from [203.0.113.1]:40000");
    drop(proxy);
    assert!(shown(&gate, "203.0.113.1").is_null());
}
