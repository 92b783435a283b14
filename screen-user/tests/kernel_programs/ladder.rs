//! How the gate is attached to interfaces: each rung of the ladder does the same, and each step down is explained.

use std::{collections::BTreeSet, io::ErrorKind, net::TcpStream, time::Duration};

use screen_user::{
    config::{KernelReply, XdpMode},
    kernel::{DenyEntry, Expiry, Interface, KernelError, ListId, Mode, Plan, prospects},
};

use super::{
    place::{HOST, NEIGHBOUR, Pair, Started, is_older_than, plan, privileged, run},
    site::{Site, wait_for},
};

/// The best that TC has on this kernel.
fn tc() -> Mode {
    if is_older_than(6, 6) { Mode::Clsact } else { Mode::Tcx }
}

/// Every rung, as a plan asks for it.
fn rungs() -> [(XdpMode, Mode); 4] {
    [
        (XdpMode::Native, Mode::Native),
        (XdpMode::Generic, Mode::Generic),
        (XdpMode::Tc, tc()),
        (XdpMode::Clsact, Mode::Clsact),
    ]
}

fn deny(kernel: &Started, net: &str) {
    let entry = DenyEntry { expires: Expiry::NEVER, list: ListId::OPERATOR };
    kernel.deny(net.parse().unwrap(), entry).unwrap();
}

/// The only interface.
fn interface(kernel: &Started) -> Interface {
    let mut interfaces = kernel.installation.attached().interfaces;
    assert_eq!(interfaces.len(), 1, "{interfaces:?}");
    interfaces.remove(0)
}

/// How the gate would be attached to the only interface, as it is foreseen: the way, and those that stand above it.
fn foreseen(pair: &Pair, plan: &Plan) -> (Option<Mode>, Vec<Mode>) {
    let mut prospects = pair.within(HOST, || prospects(plan).unwrap());
    assert_eq!(prospects.len(), 1, "{prospects:?}");
    ways(&prospects.remove(0).interface)
}

fn ways(interface: &Interface) -> (Option<Mode>, Vec<Mode>) {
    (interface.mode, interface.steps.iter().map(|step| step.rung).collect())
}

/// The numbers of the XDP programs on an interface of the host.
fn programs_on(pair: &Pair, interface: &str) -> BTreeSet<u64> {
    let shown: serde_json::Value =
        serde_json::from_str(&run("ip", &["-j", "-n", pair.name(HOST), "link", "show", interface])).unwrap();
    shown[0]["xdp"]["prog"]["id"].as_u64().into_iter().collect()
}

#[test]
fn on_each_rung_the_denied_are_dropped_and_the_limit_holds() {
    if !privileged() {
        return;
    }
    for (xdp, mode) in rungs() {
        let site = Site::new(Plan { xdp, limit: 4, ..plan() });
        let attached = interface(&site.kernel);
        assert_eq!((attached.name.as_str(), attached.mode), ("mail0", Some(mode)));
        let steps: Vec<Mode> = attached.steps.iter().map(|step| step.rung).collect();
        let without_tcx = xdp == XdpMode::Tc && mode == Mode::Clsact;
        assert_eq!(steps, if without_tcx { vec![Mode::Tcx] } else { Vec::new() }, "{attached}");
        for (denied, net, client) in
            [("192.0.2.4", "192.0.2.4/32", "192.0.2.2"), ("2001:db8::4", "2001:db8::4/128", "2001:db8::2")]
        {
            drop(site.connect(denied));
            drop(site.taken());
            deny(&site.kernel, net);
            let refused = site.connect_within(denied, Duration::from_millis(300)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::TimedOut, "{mode}");
            let entry = site.kernel.refused(denied.parse().unwrap()).unwrap();
            assert!(entry.is_some_and(|entry| entry.denied > 0), "{mode}: it was the gate that refused");
            // IPv6 clients are one client by their /64, so that the denied one goes first.
            let open: Vec<(TcpStream, TcpStream)> = (0..4).map(|_| (site.connect(client), site.taken().1)).collect();
            let refused = site.connect_within(client, Duration::from_millis(300)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::TimedOut, "{mode}");
            assert!(site.kernel.counters(client.parse().unwrap()).unwrap().unwrap().limited > 0, "{mode}");
            drop(open);
        }
        site.pair.within(HOST, || site.kernel.installation.release_port());
        let released = site.connect("192.0.2.4");
        drop(released);
    }
}

#[test]
fn a_filter_in_clsact_goes_with_the_gate_and_leaves_others_in_place() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let filters = || run("tc", &["-n", pair.name(HOST), "filter", "show", "dev", "mail0", "ingress"]);
    run("tc", &["-n", pair.name(HOST), "qdisc", "add", "dev", "mail0", "clsact"]);
    let others = "filter add dev mail0 ingress protocol ip prio 7 u32 match u32 0 0 flowid 1:1";
    run("tc", &[&["-n", pair.name(HOST)], others.split(' ').collect::<Vec<_>>().as_slice()].concat());
    let kernel = pair.within(HOST, || Started::new(&Plan { xdp: XdpMode::Clsact, ..plan() }).unwrap());
    assert!(filters().contains("gate_tc") && filters().contains("pref 7"), "{}", filters());
    pair.within(HOST, || drop(kernel));
    assert!(!filters().contains("gate_tc") && filters().contains("pref 7"), "{}", filters());
}

#[test]
fn another_xdp_program_is_named_and_left_alone_and_tc_takes_over() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    // Any other program will do: here one that another gate has loaded, which the kernel knows by its name.
    let other = pair.within(HOST, || Started::new(&Plan { interfaces: vec!["lo".into()], ..plan() }).unwrap());
    let id = *programs_on(&pair, "lo").first().unwrap();
    run(
        "nsenter",
        &[
            &format!("--net=/run/netns/{}", pair.name(HOST)),
            "bpftool",
            "net",
            "attach",
            "xdpgeneric",
            "id",
            &id.to_string(),
            "dev",
            "mail0",
        ],
    );
    let named = format!("gate (program {id})");

    for xdp in [XdpMode::Native, XdpMode::Generic] {
        let error = pair.within(HOST, || Started::new(&Plan { xdp, ..plan() }).map(drop).unwrap_err());
        assert!(matches!(error, KernelError::Missing { .. }) && error.exit_code() == 69, "{error}");
        assert!(error.to_string().contains(&named) && error.to_string().contains("mail0"), "{error}");
        assert_eq!(programs_on(&pair, "mail0"), BTreeSet::from([id]));
    }

    let auto = Plan { xdp: XdpMode::Auto, ..plan() };
    let (mode, above) = foreseen(&pair, &auto);
    // That this kernel has no tcx is not foreseen.
    assert_eq!((mode, above), (Some(Mode::Tcx), vec![Mode::Native, Mode::Generic]));
    let kernel = pair.within(HOST, || Started::new(&auto).unwrap());
    let attached = interface(&kernel);
    assert_eq!(attached.mode, Some(tc()), "{attached}");
    let (of_xdp, of_tc): (Vec<_>, Vec<_>) = attached.steps.iter().partition(|step| step.rung != Mode::Tcx);
    assert_eq!(of_xdp.iter().map(|step| step.rung).collect::<Vec<_>>(), [Mode::Native, Mode::Generic]);
    assert_eq!(of_tc.is_empty(), tc() == Mode::Tcx);
    for step in of_xdp {
        assert!(step.reason.contains(&named), "{}", step.reason);
        assert!(step.remedy.as_ref().unwrap().contains("ip link set dev mail0 xdp off"));
    }
    assert_eq!(programs_on(&pair, "mail0"), BTreeSet::from([id]));

    // The remedy works without a restart.
    assert_eq!(pair.within(HOST, || kernel.installation.refresh_interfaces()).unwrap(), [""; 0]);
    run("ip", &["-n", pair.name(HOST), "link", "set", "dev", "mail0", "xdpgeneric", "off"]);
    let changes = pair.within(HOST, || kernel.installation.refresh_interfaces()).unwrap();
    assert_eq!(changes, ["mail0: native"]);
    assert_eq!(interface(&kernel).mode, Some(Mode::Native));
    pair.within(HOST, || drop((kernel, other)));
}

#[test]
fn an_mtu_too_large_for_native_xdp_is_a_reason_that_its_remedy_mends() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let mtu = |mtu: &str| {
        run("ip", &["-n", pair.name(NEIGHBOUR), "link", "set", "dev", "net0", "mtu", mtu]);
        run("ip", &["-n", pair.name(HOST), "link", "set", "dev", "mail0", "mtu", mtu]);
    };
    mtu("9000");
    let auto = Plan { xdp: XdpMode::Auto, ..plan() };
    let before = foreseen(&pair, &auto);
    let kernel = pair.within(HOST, || Started::new(&auto).unwrap());
    let attached = interface(&kernel);
    assert_eq!(ways(&attached), before);
    assert_eq!(attached.mode, Some(Mode::Generic), "{attached}");
    let [step] = attached.steps.as_slice() else { panic!("{attached}") };
    assert_eq!(step.rung, Mode::Native);
    for part in ["MTU is too large", "driver veth", "MTU 9000"] {
        assert!(step.reason.contains(part), "{part} in {}", step.reason);
    }
    let remedy = step.remedy.as_ref().unwrap();
    let (_, suggested) = remedy.split_once("mtu ").unwrap();
    mtu(suggested.split(' ').next().unwrap());
    assert_eq!(pair.within(HOST, || kernel.installation.refresh_interfaces()).unwrap(), ["mail0: native"]);
    pair.within(HOST, || drop(kernel));
}

#[test]
fn a_veth_that_is_to_reply_is_attached_where_it_can() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let start = |xdp| Plan { xdp, deny_reply: KernelReply::Reject, ..plan() };
    let auto = start(XdpMode::Auto);
    let before = foreseen(&pair, &auto);
    let kernel = pair.within(HOST, || Started::new(&auto).unwrap());
    let attached = interface(&kernel);
    assert_eq!(ways(&attached), before);
    // What it has attached itself does not stand in the way of the next one.
    assert_eq!(foreseen(&pair, &auto), before);
    assert_eq!((attached.mode, attached.replies), (Some(Mode::Generic), true), "{attached}");
    assert!(attached.steps[0].reason.contains("sends no replies"), "{attached}");
    pair.within(HOST, || drop(kernel));
    for (xdp, mode, replies) in
        [(XdpMode::Native, Mode::Native, false), (XdpMode::Generic, Mode::Generic, true), (XdpMode::Tc, tc(), false)]
    {
        let kernel = pair.within(HOST, || Started::new(&start(xdp)).unwrap());
        let attached = interface(&kernel);
        assert_eq!((attached.mode, attached.replies), (Some(mode), replies), "{attached}");
        pair.within(HOST, || drop(kernel));
    }
    // Where the other end runs native XDP too, what the gate sends arrives.
    let kernel = pair.within(HOST, || Started::new(&start(XdpMode::Native)).unwrap());
    let said = || kernel.installation.attached().notes.iter().any(|note| note.contains("silence"));
    assert!(said());
    let neighbour = pair.within(NEIGHBOUR, || Started::new(&Plan { xdp: XdpMode::Native, ..plan() }).unwrap());
    let changes = pair.within(HOST, || kernel.installation.refresh_interfaces()).unwrap();
    assert_eq!(changes, ["mail0: native"]);
    assert!(interface(&kernel).replies && !said());
    pair.within(HOST, || drop(kernel));
    let kernel = pair.within(HOST, || Started::new(&start(XdpMode::Auto)).unwrap());
    assert_eq!((interface(&kernel).mode, interface(&kernel).replies), (Some(Mode::Native), true));
    pair.within(HOST, || drop(kernel));
    pair.within(NEIGHBOUR, || drop(neighbour));
}

#[test]
fn an_interface_without_ethernet_headers_is_left_to_the_screener() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    run("ip", &["-n", pair.name(HOST), "tuntap", "add", "dev", "tun0", "mode", "tun"]);
    let named = Plan { interfaces: vec!["tun0".into()], ..plan() };
    let kernel = pair.within(HOST, || Started::new(&Plan { xdp: XdpMode::Auto, ..named.clone() }).unwrap());
    let attached = kernel.installation.attached();
    assert_eq!(attached.interfaces[0].mode, None);
    assert_eq!(attached.interfaces[0].mode_name(), "steering only");
    assert!(attached.interfaces[0].steps.iter().all(|step| step.reason.contains("Ethernet")));
    assert!(attached.notes.iter().any(|note| note.contains("tun0") && note.contains("screener decides")));
    pair.within(HOST, || drop(kernel));
    let error = pair.within(HOST, || Started::new(&named).map(drop).unwrap_err());
    assert!(error.to_string().contains("tun0") && error.to_string().contains("Ethernet"), "{error}");
}

/// Takes the host's interface away, or brings one with the same name and addresses.
fn remove(pair: &Pair) {
    run("ip", &["-n", pair.name(HOST), "link", "del", "mail0"]);
}

fn restore(pair: &Pair, index: Option<&str>) {
    let [host, neighbour] = [HOST, NEIGHBOUR].map(|side| pair.name(side));
    let index = index.map_or_else(Vec::new, |index| vec!["index", index]);
    let head = ["-n", host, "link", "add", "mail0"];
    run("ip", &[&head, index.as_slice(), &["type", "veth", "peer", "name", "net0", "netns", neighbour]].concat());
    for (namespace, interface, last) in [(host, "mail0", 1), (neighbour, "net0", 4)] {
        run("ip", &["-n", namespace, "addr", "add", &format!("192.0.2.{last}/24"), "dev", interface]);
        run("ip", &["-n", namespace, "link", "set", interface, "up"]);
    }
}

#[test]
fn an_interface_that_goes_and_comes_back_has_its_gate_again() {
    if !privileged() {
        return;
    }
    for (xdp, mode) in rungs() {
        for interfaces in [vec![], vec!["mail0".to_owned()]] {
            let named = !interfaces.is_empty();
            let site = Site::new(Plan { xdp, interfaces, ..plan() });
            deny(&site.kernel, "192.0.2.4/32");
            let refresh = || site.pair.within(HOST, || site.kernel.installation.refresh_interfaces()).unwrap();
            let pins = || std::fs::read_dir(site.plan.pin_path.join("links")).unwrap().count();
            let whole = pins();
            let index = run("ip", &["-n", site.pair.name(HOST), "-o", "link", "show", "mail0"]);
            let index = index.split(':').next().unwrap().to_owned();

            remove(&site.pair);
            assert!(refresh()[0].contains("mail0"), "{mode}");
            assert_eq!(pins(), whole - 1, "{mode}: its pin is gone");
            let left = site.kernel.installation.attached().interfaces;
            if named {
                assert!(left[0].mode.is_none() && left[0].steps[0].reason.contains("no such interface"), "{left:?}");
            } else {
                assert!(left.is_empty(), "{left:?}");
            }

            // The second time with the index of the one before, and before anybody has noticed that it was gone.
            restore(&site.pair, None);
            let refused = || site.connect_within("192.0.2.4", Duration::from_millis(300));
            refresh();
            assert_eq!(interface(&site.kernel).mode, Some(mode));
            assert_eq!(refused().unwrap_err().kind(), ErrorKind::TimedOut, "{mode}");
            remove(&site.pair);
            refresh();
            restore(&site.pair, Some(&index));
            refresh();
            remove(&site.pair);
            restore(&site.pair, Some(&index));
            refresh();
            assert_eq!(interface(&site.kernel).mode, Some(mode));
            assert_eq!(refused().unwrap_err().kind(), ErrorKind::TimedOut, "{mode}");
            assert_eq!(pins(), whole, "{mode}");
        }
    }
}

#[test]
fn an_interface_that_gets_an_address_gets_the_gate_and_changes_are_told() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let kernel = pair.within(HOST, || Started::new(&plan()).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    pair.within(HOST, || {
        runtime.block_on(async {
            let mut changes = kernel.installation.link_changes().unwrap();
            let names = || {
                let interfaces = kernel.installation.attached().interfaces;
                interfaces.into_iter().map(|interface| interface.name).collect::<BTreeSet<_>>()
            };
            assert_eq!(names(), BTreeSet::from(["mail0".to_owned()]));
            let expect = async |expected: &[&str], changes: &mut screen_user::kernel::LinkChanges| {
                let wanted: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
                let reached = async {
                    while names() != wanted {
                        changes.next().await.unwrap();
                        kernel.installation.refresh_interfaces().unwrap();
                    }
                };
                tokio::time::timeout(super::site::PATIENCE, reached).await.expect("told of a change");
            };
            let host = pair.name(HOST);
            run("ip", &["-n", host, "link", "add", "other0", "type", "veth", "peer", "name", "peer0"]);
            run("ip", &["-n", host, "link", "set", "other0", "up"]);
            run("ip", &["-n", host, "addr", "add", "198.51.100.1/24", "dev", "other0"]);
            expect(&["mail0", "other0"], &mut changes).await;
            run("ip", &["-n", host, "addr", "del", "198.51.100.1/24", "dev", "other0"]);
            expect(&["mail0"], &mut changes).await;
            run("ip", &["-n", host, "addr", "add", "2001:db8:9::1/64", "dev", "other0", "nodad"]);
            expect(&["mail0", "other0"], &mut changes).await;
            // Which takes the IPv6 address away, but not this one.
            run("ip", &["-n", host, "addr", "add", "198.51.100.1/24", "dev", "other0"]);
            run("ip", &["-n", host, "link", "set", "other0", "down"]);
            run("ip", &["-n", host, "link", "set", "other0", "name", "new0"]);
            expect(&["mail0", "new0"], &mut changes).await;
            run("ip", &["-n", host, "link", "del", "new0"]);
            expect(&["mail0"], &mut changes).await;
            kernel.installation.release_port();
            run("ip", &["-n", host, "link", "add", "late0", "type", "veth", "peer", "name", "peer0"]);
            run("ip", &["-n", host, "addr", "add", "203.0.113.1/24", "dev", "late0"]);
            assert_eq!(kernel.installation.refresh_interfaces().unwrap(), [""; 0], "the port was given back");
        });
    });
    wait_for("the port", || programs_on(&pair, "mail0").is_empty().then_some(()));
    pair.within(HOST, || drop(kernel));
}
