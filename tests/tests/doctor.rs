//! `mxscreen doctor`: what is spoilt on a host is found, alone, and the command that it names mends it.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use screen_tests::{
    backend::Backend,
    certificate::Certificate,
    dns::{DnsServer, Zone},
    gate::{Gate, Settings},
    net::Net,
    netns::run,
};
use serde_json::{Value, json};

/// What the doctor says of the edge host, if it ends with `code`.
#[track_caller]
fn said(net: &Net, settings: &Settings, code: i32) -> String {
    let (status, said) = settings.run_to_end(&net.edge, &[], &["doctor"]);
    assert_eq!(status.code(), Some(code), "{said}");
    said
}

/// The doctor finds this one thing, and nothing else, to be wrong; returns what mends it.
#[track_caller]
fn finds(net: &Net, settings: &Settings, what: &str) -> String {
    let said = said(net, settings, 69);
    assert!(said.contains(" 1 wrong, 0 unknown"), "{said}");
    finds_first(&said, what)
}

/// What mends the first thing that is wrong, which is this one.
#[track_caller]
fn finds_first(said: &str, what: &str) -> String {
    let mut lines = said.lines().skip_while(|line| !line.trim_start().starts_with("wrong"));
    assert!(lines.next().is_some_and(|line| line.contains(what)), "{said}");
    lines.next().and_then(|line| line.trim().strip_prefix("mend: ")).unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[track_caller]
fn is_content(net: &Net, settings: &Settings) {
    let said = said(net, settings, 0);
    assert!(said.contains(" 0 wrong, 0 unknown"), "{said}");
}

/// A host whose limits are good.
fn host() -> Option<Net> {
    let net = Net::new()?;
    net.edge.sysctl("net.core.somaxconn", "4096");
    net.edge.sysctl("net.ipv4.tcp_syncookies", "1");
    net.edge.sysctl("net.ipv4.tcp_max_syn_backlog", "4096");
    Some(net)
}

/// Of a gate whose queues take no more descriptors than a container may give.
fn settings(net: &Net) -> Settings {
    Settings::in_place(net).set("limits.pre_queue", "1000").set("limits.post_queue", "1000")
}

#[test]
fn what_is_spoilt_is_found_and_its_command_mends_it() {
    let Some(net) = host() else { return };
    let _server = Backend::refusing(&net.edge, 25);
    let settings = settings(&net);
    let _gate = Gate::start(&net, settings.clone());
    is_content(&net, &settings);
    for (key, bad) in [("net.core.somaxconn", "128"), ("net.ipv4.tcp_syncookies", "0")] {
        net.edge.sysctl(key, bad);
        let mend = finds(&net, &settings, &format!("{key} is {bad}"));
        run("ip", ["netns", "exec", net.edge.name(), "sh", "-c", &mend]);
        is_content(&net, &settings);
    }
}

#[test]
fn zones_that_answer_wrongly_are_found() {
    let Some(net) = host() else { return };
    let _server = Backend::refusing(&net.edge, 25);
    let sound = Zone::new("bl.example");
    let dns = DnsServer::start(&net.edge, vec![sound.clone()]);
    let settings = settings(&net).set("dnsbl.resolvers", r#"["127.0.0.1:53"]"#).set("dnsbl.sites", r#"["bl.example"]"#);
    let _gate = Gate::start(&net, settings.clone());
    is_content(&net, &settings);

    dns.serve(vec![sound.clone().list(Ipv4Addr::LOCALHOST.into(), 2)]);
    assert!(finds(&net, &settings, "bl.example lists 127.0.0.1").contains("dnsbl.sites"));
    dns.serve(vec![sound.clone().broken()]);
    assert!(finds(&net, &settings, "bl.example does not answer: server failure").contains("dig"));
    dns.serve(vec![sound]);
    is_content(&net, &settings);
}

#[test]
fn a_screener_with_too_few_descriptors_is_given_more() {
    let Some(net) = host() else { return };
    let _server = Backend::refusing(&net.edge, 25);
    let settings = settings(&net);
    let gate = Gate::start(&net, settings.clone());
    // As the screener's account: in a container root may lack the capability for others' limits.
    let as_nobody = |command: &str| {
        run("setpriv", ["--reuid=nobody", "--regid=nogroup", "--clear-groups", "sh", "-c", command]);
    };
    as_nobody(&format!("prlimit --pid {} --nofile=2000:", gate.screener()));
    as_nobody(&finds(&net, &settings, "the screener may have 2000 descriptors, and full queues take 4200"));
    is_content(&net, &settings);
}

#[test]
fn without_a_gate_the_kernel_is_tried_and_left_as_it_was() {
    let Some(net) = host() else { return };
    let _server = Backend::refusing(&net.edge, 25);
    let settings = settings(&net);
    let said = said(&net, &settings, 0);
    assert!(said.contains(" 0 wrong, 2 unknown") && said.contains("unknown no gate can be asked"), "{said}");
    assert!(said.contains("the kernel takes the programs\n") && said.contains("mx0: likely generic"), "{said}");
    assert!(said.contains("veth, MTU 1500), and not native: a natively attached veth sends no replies"), "{said}");
    assert!(!settings.state().exists() && !settings.control().exists());
    assert!(!Path::new("/sys/fs/bpf").join(net.id()).exists(), "pins");
    let link = run("ip", ["-n", net.edge.name(), "link", "show", "mx0"]);
    assert!(!link.contains("xdp"), "{link}");
}

#[test]
fn what_interfaces_lack_is_said_with_what_mends_it() {
    let Some(net) = host() else { return };
    let _server = Backend::refusing(&net.edge, 25);
    let settings = settings(&net).text("kernel.deny_reply", "drop").text("kernel.limit_reply", "drop");
    let without = |what: &str| {
        let said = said(&net, &settings, 0);
        assert!(said.contains(what), "{what}: {said}");
        said
    };
    without("fine    mx0: likely native");
    net.edge.ip("link set dev mx0 mtu 9000");
    let said_of_it =
        without("mx0: likely generic (veth, MTU 9000), and not native: an MTU of 9000 is too large for it");
    let (_, mend) = said_of_it.split_once("mend: ip link set dev IFACE mtu ").unwrap();
    net.edge.ip(&format!("link set dev mx0 mtu {}", mend.split(' ').next().unwrap()));
    without("fine    mx0: likely native");

    let other = Gate::start(&net, settings.clone());
    let beside = settings
        .clone()
        .text("kernel.pin_path", &format!("/sys/fs/bpf/{}-beside", net.id()))
        .text("control.socket", &settings.directory().join("beside.sock").display().to_string());
    let said_of_it = said(&net, &beside.set("listen", r#"["127.0.0.1:2527"]"#), 0);
    assert!(said_of_it.contains("likely tc (veth") && said_of_it.contains("is attached there and is left alone: gate"));
    assert!(said_of_it.contains("mend: if nothing needs it, ip link set dev mx0 xdp off"), "{said_of_it}");
    other.stop();

    let absent = settings.clone().set("kernel.interfaces", r#"["mx9"]"#);
    assert!(finds_first(&said(&net, &absent, 69), "there is no interface mx9").contains("ip link"));
}

#[test]
fn what_it_may_not_look_at_is_unknown() {
    let Some(net) = host() else { return };
    let _server = Backend::refusing(&net.edge, 25);
    let settings = settings(&net);
    let restrictions = ["--reuid=nobody", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"];
    let (status, said) = settings.run_to_end(&net.edge, &restrictions, &["doctor"]);
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("unknown the privilege CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF is missing"), "{said}");
    assert!(said.contains("mend: sudo mxscreen doctor") && said.contains(" 0 wrong, 3 unknown"), "{said}");
}

#[test]
fn a_mail_server_that_the_outside_does_not_reach_is_found() {
    let Some(net) = host() else { return };
    let settings = settings(&net);
    let inside: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, 25).into(), (Ipv6Addr::LOCALHOST, 25).into()];
    let server = Backend::start(&net.edge, &inside, |_| Ok(()));
    let said_of_it = said(&net, &settings, 69);
    let mend = finds_first(&said_of_it, "the mail server hears nobody by IPv4 on port 25");
    assert!(mend.contains("postconf -e inet_interfaces=all inet_protocols=all"), "{mend}");
    assert!(said_of_it.contains("note    the mail server hears nobody by IPv6 on port 25"), "{said_of_it}");
    drop(server);
    let _server = Backend::refusing(&net.edge, 25);
    assert!(said(&net, &settings, 0).contains("fine    the mail server listens on port 25"));
}

#[test]
fn who_has_the_gates_port_is_named() {
    let Some(net) = host() else { return };
    let _behind = Backend::refusing(&net.edge, 2525);
    let settings = Settings::front(&net, "127.0.0.1:2525");
    let server = Backend::refusing(&net.edge, 25);
    let said_of_it = said(&net, &settings, 69);
    let who = format!("(process {}) has (listen): Address already in use", std::process::id());
    assert!(finds_first(&said_of_it, &who).contains("ss -ltnp 'sport = :25'"), "{said_of_it}");
    drop(server);
    assert!(said(&net, &settings, 0).contains("fine    [::]:25 is free (listen)"));
}

#[test]
fn a_key_that_everybody_may_read_is_closed() {
    let Some(net) = host() else { return };
    let _behind = Backend::refusing(&net.edge, 2525);
    let certificate = Certificate::make(net.directory());
    let settings = Settings::front(&net, "127.0.0.1:2525")
        .text("tls.level", "may")
        .text("tls.certificate", &certificate.certificate.display().to_string())
        .text("tls.key", &certificate.key.display().to_string());
    for path in certificate.key.ancestors().take_while(|path| path.starts_with(net.directory())).skip(1) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&certificate.key, fs::Permissions::from_mode(0o644)).unwrap();
    let said_of_it = said(&net, &settings, 69);
    run("sh", ["-c", &finds_first(&said_of_it, "holds a secret, and everybody on this host may read it")]);
    assert!(said(&net, &settings, 0).contains("holds a secret, and not everybody may read it"));
}

#[test]
fn findings_are_told_in_json() {
    let Some(net) = host() else { return };
    let _server = Backend::refusing(&net.edge, 25);
    let settings = settings(&net);
    net.edge.sysctl("net.core.somaxconn", "128");
    let (_, said) = settings.run_to_end(&net.edge, &[], &["doctor", "--json"]);
    let told: Value = serde_json::Deserializer::from_str(&said).into_iter().next().unwrap().unwrap();
    let wrong: Vec<&Value> =
        told["findings"].as_array().unwrap().iter().filter(|finding| finding["grade"] == "wrong").collect();
    let [wrong] = wrong.as_slice() else { panic!("{told}") };
    assert_eq!((&wrong["subject"], &wrong["mend"]), (&json!("limits"), &json!("sysctl -w net.core.somaxconn=4096")));
}

#[test]
fn a_public_resolver_is_wrong_where_zones_are_asked() {
    let Some(net) = host() else { return };
    let _server = Backend::refusing(&net.edge, 25);
    let public = settings(&net).set("dnsbl.resolvers", r#"["8.8.8.8:53"]"#);
    said(&net, &public, 0);
    let public = public.set("dnsbl.sites", r#"["bl.example"]"#);
    let said_of_it = said(&net, &public, 69);
    assert!(said_of_it.contains("8.8.8.8 is a public resolver (Google)"), "{said_of_it}");
}

#[test]
fn a_bad_configuration_is_told_as_elsewhere() {
    let Some(net) = host() else { return };
    let settings = settings(&net).text("layout", "sideways");
    assert!(said(&net, &settings, 64).contains("sideways"));
}
