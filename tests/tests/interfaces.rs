//! Interfaces differ, and come and go; the gate says how it is attached and follows them.

use std::net::IpAddr;

use screen_tests::{
    gate::{Gate, Settings},
    middlebox::{Fate, Middlebox},
    net::Net,
    netns::run,
    postfix::Postfix,
    smtp::Client,
    wait::{SOON, wait_for},
};
use serde_json::Value;

const REFUSAL: &str = "521 5.3.2 Service currently unavailable\r\n";
const DENIED: [&str; 2] = ["198.18.1.7", "2001:2:0:7::1"];

fn settings(net: &Net) -> Settings {
    Settings::in_place(net).text("kernel.deny_reply", "drop").text("kernel.limit_reply", "drop")
}

/// What `status` says of the edge's interface; nothing if it does not name it.
fn shown(gate: &Gate) -> Option<Value> {
    let status = gate.ask(&["status"]);
    let interfaces = status["kernel"]["interfaces"].as_array().unwrap();
    interfaces.iter().find(|interface| interface["interface"] == "mx0").cloned()
}

/// A link whose pin is gone is taken off by a worker of the kernel's, in its own time.
fn wait_unguarded(net: &Net) {
    let guarded = || run("ip", ["-n", net.edge.name(), "link"]).contains("xdp");
    wait_for("the programs to be taken off", SOON, || (!guarded()).then_some(()));
}

fn deny(gate: &Gate) {
    for client in DENIED {
        gate.tell(&["deny", client]);
        gate.wait_denied(client.parse().unwrap());
    }
}

#[test]
fn denied_clients_are_dropped_in_whatever_way_the_gate_is_attached() {
    for mode in ["native", "generic", "tc"] {
        let Some(net) = Net::new() else { return };
        let _postfix = Postfix::start(&net);
        let gate = Gate::start(&net, settings(&net).text("kernel.xdp", mode));
        let interface = shown(&gate).unwrap();
        assert_eq!((&interface["mode"], &interface["steps_down"]), (&mode.into(), &Value::Array(Vec::new())));
        deny(&gate);
        for client in DENIED {
            let client: IpAddr = client.parse().unwrap();
            Client::assert_dropped(net.client(), client);
            assert!(gate.pins().count("refused", client, "denied") > 0, "{mode}: the kernel dropped it");
        }
        for client in ["198.18.1.1", "2001:2:0:1::1"] {
            let mut client = Client::connect(net.client(), client.parse().unwrap());
            assert_eq!(client.line(), "220-mx.example.test ESMTP", "{mode}");
        }
    }
}

#[test]
fn a_step_down_is_explained_with_what_mends_it_and_the_remedy_takes_effect_at_once() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    for (namespace, interface) in [(&net.client().namespace, "c0"), (&net.edge, "mx0")] {
        namespace.ip(&format!("link set {interface} mtu 9000"));
    }
    let gate = Gate::start(&net, settings(&net));
    let interface = shown(&gate).unwrap();
    let step = &interface["steps_down"][0];
    assert_eq!((&interface["mode"], &step["from"]), (&"generic".into(), &"native".into()), "{interface}");
    assert!(step["because"].as_str().unwrap().contains("MTU is too large"), "{interface}");
    let remedy = step["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("ip link set dev") && remedy.contains("mtu 3500"), "{remedy}");
    assert!(gate.wait_log("interface mx0: generic; not native").contains(remedy));
    let printed = gate.tell(&["status"]);
    assert!(printed.contains("MTU is too large") && printed.contains(remedy), "{printed}");

    for (namespace, interface) in [(&net.client().namespace, "c0"), (&net.edge, "mx0")] {
        namespace.ip(&format!("link set {interface} mtu 3500"));
    }
    gate.wait("native XDP", || shown(&gate).unwrap()["mode"] == "native");
    gate.wait_log("interface mx0: native");
    // A way that was asked for by name is to be had, or the gate does not start.
    gate.stop();
    wait_unguarded(&net);
    for (namespace, interface) in [(&net.client().namespace, "c0"), (&net.edge, "mx0")] {
        namespace.ip(&format!("link set {interface} mtu 9000"));
    }
    let (status, said) = settings(&net).text("kernel.xdp", "native").run_to_end(&net.edge, &[], &["run"]);
    assert_eq!(status.code(), Some(69), "{said}");
    assert!(said.contains("mx0") && said.contains("native") && said.contains("MTU is too large"), "{said}");
    wait_unguarded(&net);
}

#[test]
fn an_interface_that_is_made_anew_while_the_gate_runs_is_guarded_again() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, settings(&net));
    deny(&gate);
    let client: IpAddr = DENIED[0].parse().unwrap();
    Client::assert_dropped(net.client(), client);

    net.edge.ip("link del mx0");
    gate.wait("the interface is gone", || shown(&gate).is_none());
    gate.wait_log("interface mx0: the gate is off");
    net.edge.ip(&format!("link add mx0 type veth peer name c0 netns {}", net.client().namespace.name()));
    net.edge.ip("address add 198.18.0.1/16 dev mx0");
    net.edge.ip("link set mx0 up");
    net.client().namespace.ip("link set c0 up");
    net.client().namespace.ip(&format!("address add {client}/16 dev c0"));
    gate.wait("the gate is back", || shown(&gate).is_some_and(|interface| interface["mode"] == "native"));
    let before = gate.pins().count("refused", client, "denied");
    Client::assert_dropped(net.client(), client);
    assert!(gate.pins().count("refused", client, "denied") > before);
    gate.stop();
    wait_unguarded(&net);
}

fn assert_told(net: &Net, client: &str) {
    let mut client = Client::connect(net.client(), client.parse().unwrap());
    assert_eq!(String::from_utf8(client.read_to_end()).unwrap(), REFUSAL);
    client.send("QUIT\r\n");
}

fn attached(gate: &Gate, mode: &str, replies: bool) -> bool {
    shown(gate).is_some_and(|interface| interface["mode"] == mode && interface["replies"] == replies)
}

#[test]
fn refusals_travel_where_they_can_and_where_they_can_not_the_gate_says_so() {
    let Some(net) = Net::new() else { return };
    let start = |mode| Gate::start(&net, Settings::in_place(&net).text("kernel.xdp", mode));
    for (mode, replies) in [("auto", true), ("generic", true), ("native", false), ("tc", false)] {
        let gate = start(mode);
        deny(&gate);
        // The interface is looked at once more when the gate before it is off at last.
        let expected = if mode == "auto" { "generic" } else { mode };
        gate.wait(&format!("{mode} is attached"), || attached(&gate, expected, replies));
        let said = "refused clients get silence";
        // The keeper logs that beside the start of its screener, and may come after it.
        let logged = gate.wait_log(&format!("interface mx0: {expected}"));
        assert_eq!(logged.contains(said), !replies, "{mode}: {logged}");
        assert_eq!(gate.tell(&["status"]).contains(said), !replies, "{mode}");
        for client in DENIED {
            if replies {
                assert_told(&net, client);
            } else {
                let challenged = gate.pins().total("Challenged", "packets");
                Client::assert_dropped(net.client(), client.parse().unwrap());
                assert_eq!(
                    gate.pins().total("Challenged", "packets"),
                    challenged,
                    "{mode}: nothing is sent into the void"
                );
            }
        }
        gate.tell(&["stop", "--detach"]);
        gate.wait_end();
    }
}

#[test]
fn a_natively_attached_veth_talks_once_its_other_end_runs_native_xdp() {
    let Some(net) = Net::new() else { return };
    let gate = Gate::start(&net, Settings::in_place(&net).text("kernel.xdp", "native"));
    deny(&gate);
    assert!(attached(&gate, "native", false));
    // Any program will do; this one passes all that comes from the edge.
    let link: Value = serde_json::from_str(&run("ip", ["-j", "-n", net.edge.name(), "link", "show", "mx0"])).unwrap();
    let program = link[0]["xdp"]["prog"]["id"].to_string();
    let enter = format!("--net=/run/netns/{}", net.client().namespace.name());
    run("nsenter", [enter.as_str(), "bpftool", "net", "attach", "xdpdrv", "id", &program, "dev", "c0"]);
    // The kernel tells the edge nothing of that; anything that happens to its own end makes the gate look again.
    net.edge.ip("link set mx0 alias neighbour");
    gate.wait("it can reply", || attached(&gate, "native", true));
    gate.wait_log("interface mx0: native");
    for client in DENIED {
        assert_told(&net, client);
    }
}

#[test]
fn clients_in_vlans_are_told() {
    for tags in [&[0x8100][..], &[0x88a8, 0x8100]] {
        let Some(net) = Net::new() else { return };
        let _tagger = Middlebox::tagging(&net, tags, |_| Fate::Forward);
        let gate = Gate::start(&net, Settings::in_place(&net));
        deny(&gate);
        // Nobody else at the edge takes tagged frames.
        Client::assert_dropped(net.client(), "198.18.1.1".parse().unwrap());
        for client in DENIED {
            assert_told(&net, client);
        }
    }
}
