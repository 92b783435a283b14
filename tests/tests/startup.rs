//! A gate that can't do its work says why and changes nothing; one that can do part of it says what it does without.

use std::net::{IpAddr, TcpListener};

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    netns::run,
    postfix::Postfix,
    privilege::mxscreen,
    smtp::Client,
    tmux::Terminal,
};

/// Starts a gate that has to give up with `code`, and returns what it said.
#[track_caller]
fn gives_up(net: &Net, settings: &Settings, restrictions: &[&str], code: i32) -> String {
    let (status, said) = settings.run_to_end(&net.edge, restrictions, &["run"]);
    assert_eq!(status.code(), Some(code), "{said}");
    assert!(!run("ip", ["-n", net.edge.name(), "link"]).contains("xdp"), "it left a program behind");
    said
}

#[test]
fn every_problem_of_the_configuration_is_named_at_once() {
    let Some(net) = Net::new() else { return };
    let table = net.directory().join("access.cidr");
    let settings = Settings::in_place(&net)
        .text("pregret.wait", "2s")
        .text("layout", "sideways")
        .text("limits.client_connections", "many")
        .set("dnsbl.sites", r#"["bl.example=300.0.0.1"]"#)
        .set("access.list", &format!("[\"cidr:{}\"]", table.display()));
    for command in ["check", "run"] {
        let (status, said) = settings.run_to_end(&net.edge, &[], &[command]);
        assert_eq!(status.code(), Some(64), "{command}: {said}");
        let config = settings.write();
        let text = std::fs::read_to_string(&config).unwrap();
        for wrong in ["pregret.wait", "layout", "limits.client_connections", "dnsbl.sites", "access.list"] {
            let line = text.lines().position(|line| line.starts_with(wrong)).unwrap() + 1;
            assert!(
                said.contains(&format!("{}:{line}", config.display())),
                "{command} names {wrong}, line {line}: {said}"
            );
        }
        assert!(said.contains("pregreet"), "a suggestion: {said}");
        assert!(said.contains("access.cidr"), "{said}");
    }
    assert!(!settings.control().exists(), "nothing was started");
}

#[test]
fn a_good_configuration_passes_the_check() {
    let Some(net) = Net::new() else { return };
    let (status, said) = Settings::in_place(&net).run_to_end(&net.edge, &[], &["check"]);
    assert_eq!(status.code(), Some(0), "{said}");
}

#[test]
fn an_import_from_a_terminal_says_what_it_wants() {
    let Some(net) = Net::new() else { return };
    let terminal = Terminal::start(net.directory(), 160, 24);
    terminal.line(&format!("{} import-postfix; echo ended $?", mxscreen().display()));
    terminal.wait("the end", |screen| screen.contains("--main-cf /etc/postfix/main.cf") && screen.contains("ended 64"));
}

#[test]
fn a_port_in_use_is_named() {
    let Some(net) = Net::new() else { return };
    let _other = net.edge.enter(|| TcpListener::bind("127.0.0.1:2526")).unwrap();
    let said = gives_up(&net, &Settings::in_place(&net), &[], 69);
    assert!(said.contains("127.0.0.1:2526"), "{said}");
}

#[test]
fn a_missing_interface_is_named() {
    let Some(net) = Net::new() else { return };
    let said = gives_up(&net, &Settings::in_place(&net).set("kernel.interfaces", r#"["wan7"]"#), &[], 69);
    assert!(said.contains("wan7"), "{said}");
}

#[test]
fn a_missing_privilege_is_named() {
    let Some(net) = Net::new() else { return };
    let said = gives_up(&net, &Settings::in_place(&net), &["--bounding-set", "-all"], 77);
    assert!(said.contains("CAP_"), "{said}");
}

#[test]
fn in_front_the_gate_works_without_the_kernel_and_says_so() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start_with(&net, &[("127.0.0.1:10025", "smtpd_upstream_proxy_protocol=haproxy")]);
    let settings = Settings::front(&net, "127.0.0.1:10025").text("forward.client_address", "proxy-v2");
    let gate = Gate::start_restricted(&net, &["--bounding-set", "-all,+net_bind_service"], settings);
    assert!(gate.log().contains("kernel part off"), "it says what it does without");
    gate.tell(&["deny", "198.18.1.7"]);
    for (client, first) in [("198.18.1.1", "220-mx.example.test ESMTP"), ("198.18.1.7", "521 5.3.2 ")] {
        let client: IpAddr = client.parse().unwrap();
        let line = Client::connect(net.client(), client).line();
        assert!(line.starts_with(first), "{client}: {line}");
    }
}

#[test]
fn a_bad_table_line_is_named_and_skipped_as_postfix_does() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let table = net.directory().join("access.cidr");
    std::fs::write(&table, "198.18.1.1/24 reject\n198.18.1.7 permit\n").unwrap();
    let settings = Settings::in_place(&net).set("access.list", &format!("[\"cidr:{}\"]", table.display()));
    let gate = Gate::start(&net, settings);
    let named = gate.wait_log("access.cidr");
    assert!(named.contains("198.18.1.0/24"), "what was perhaps meant: {named}");
    let permitted = Client::connect(net.client(), "198.18.1.7".parse().unwrap()).line();
    assert_eq!(permitted, "220 mx.example.test ESMTP Postfix (Debian/GNU)");
    let screened = Client::connect(net.client(), "198.18.1.1".parse().unwrap()).line();
    assert_eq!(screened, "220-mx.example.test ESMTP");
}
