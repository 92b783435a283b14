//! Postfix takes a client's live socket: it knows the client by itself, and the screener is out of the way.

use std::net::IpAddr;

use nix::sys::signal::Signal;
use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};

const CLIENTS: [&str; 2] = ["198.18.1.1", "2001:2:0:1::1"];
/// Listeners of Postfix that are not on the protected port.
const BESIDE: [(&str, &str); 2] = [("127.0.0.1:10025", ""), ("[::1]:10025", "")];
const POSTFIX: &str = "220 mx.example.test ESMTP Postfix (Debian/GNU)";
const GREETING: &str = "220-mx.example.test ESMTP\n220 mx.example.test ESMTP Postfix (Debian/GNU)";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// In place, with the path alone; what `front` makes of it is a list of one.
fn in_place(net: &Net) -> Settings {
    let service = Postfix::pass_socket(net).display().to_string();
    Settings::in_place(net).text("forward.mode", "postfix").text("forward.to", &service)
}

fn front(net: &Net) -> Settings {
    Settings::front(net, &Postfix::pass_socket(net).display().to_string()).text("forward.mode", "postfix")
}

fn active(gate: &Gate, address: IpAddr) -> i64 {
    gate.pins().client(address).map_or(0, |entry| entry.number("active"))
}

/// A stranger's visit, with a message; it is counted as long as it lasts, in the kernel alone.
fn visit_as_stranger(net: &Net, postfix: &Postfix, gate: &Gate, address: IpAddr) {
    let mut client = Client::connect(net.client(), address);
    assert_eq!(client.reply(), GREETING, "one greeting of two lines");
    client.deliver("Subject: passed\r\n\r\nbody\r\n");
    let name = client.name();
    postfix.wait_log(&format!("client=unknown{name}"));
    gate.wait_log(&format!("PASS NEW {name}"));
    gate.wait("the screener has let go of it", || {
        let status = gate.ask(&["status"]);
        status["connections"]["open"] == 0 && status["screening"]["forwarding"] == 0
    });
    assert_eq!(active(gate, address), 1);
    assert_eq!(gate.tell(&["recount"]), "1 connections of 1 clients\n");
    client.quit();
    gate.wait("its end is counted", || active(gate, address) == 0);
    assert_eq!(gate.logged(&format!("DISCONNECT {name}")), 0, "its end is Postfix's to log");
}

/// The visit of a client that is known; `steered` says whether the kernel gives it to Postfix.
fn visit_as_friend(net: &Net, postfix: &Postfix, gate: &Gate, address: IpAddr, steered: bool) {
    let mut client = Client::connect(net.client(), address);
    assert_eq!(client.reply(), POSTFIX);
    client.deliver("Subject: known\r\n\r\nbody\r\n");
    let name = client.name();
    postfix.wait_log(&format!("client=unknown{name}"));
    let line = gate.wait_log(&format!("PASS OLD {name}"));
    assert_eq!(line.ends_with(" (kernel)"), steered, "{line}");
    client.quit();
    gate.wait("its end is counted", || active(gate, address) == 0);
}

/// Strangers and friends of both families; Postfix has `services` besides the one that takes descriptors.
fn mail_flows(settings: impl Fn(&Net) -> Settings, services: &[(&str, &str)], steered: bool) {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::passing(&net, services);
    let gate = Gate::start(&net, settings(&net));
    for address in CLIENTS.map(ip) {
        visit_as_stranger(&net, &postfix, &gate, address);
        visit_as_friend(&net, &postfix, &gate, address, steered);
    }
    assert_eq!(postfix.wait_mail(4).len(), 4);
    assert_eq!(gate.ask(&["status"])["connections"]["relayed_now"], 0);
    assert_eq!(postfix.logged("pass_accept_attr"), 0);
    gate.stop();
}

#[test]
fn in_place_the_known_reach_the_listener_of_the_protected_port() {
    mail_flows(in_place, &[], true);
}

#[test]
fn in_place_where_postfix_has_no_port_the_known_are_handed_over_too() {
    mail_flows(in_place, &BESIDE, false);
}

#[test]
fn in_front_everybody_is_handed_over() {
    mail_flows(front, &BESIDE, false);
}

#[test]
fn in_front_the_known_reach_the_listener_that_is_named() {
    mail_flows(|net| front(net).text("forward.steer_to", "127.0.0.1:10025"), &BESIDE, true);
}

#[test]
fn behind_a_proxy_postfix_is_told_whom_the_header_names() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::passing(&net, &BESIDE);
    let settings = front(&net).set("proxy_protocol.from", r#"["198.18.0.80", "2001:2::80/128"]"#);
    let gate = Gate::start(&net, settings);
    for (proxy, header, client) in [
        ("198.18.0.80", "PROXY TCP4 203.0.113.1 198.18.0.1 40000 25\r\n", "203.0.113.1"),
        ("2001:2::80", "PROXY TCP6 2001:db8:1::1 2001:2::1 40000 25\r\n", "2001:db8:1::1"),
        // The socket's family is not the client's.
        ("2001:2::80", "PROXY TCP4 203.0.113.2 198.18.0.1 40000 25\r\n", "203.0.113.2"),
    ] {
        let mut connection = Client::connect(net.client(), ip(proxy));
        connection.send(header);
        assert_eq!(connection.reply(), GREETING);
        connection.deliver("Subject: through a proxy\r\n\r\nbody\r\n");
        gate.wait_log(&format!("PASS NEW [{client}]:40000"));
        postfix.wait_log(&format!("client=unknown[{client}]:40000"));
        connection.quit();

        let mut again = Client::connect(net.client(), ip(proxy));
        // What comes together with the header is smtpd's to read.
        again.send([header, "EHLO client.example.test\r\n"].concat());
        assert_eq!(again.reply(), POSTFIX);
        assert!(again.reply().starts_with("250-mx.example.test\n"));
        again.quit();
    }
    assert_eq!(postfix.logged("198.18.0.80"), 0, "the proxy is nobody's client");
}

#[test]
fn smtpd_reads_what_a_client_has_said_too_early() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::passing(&net, &[]);
    let gate = Gate::start(&net, in_place(&net).text("pregreet.action", "ignore"));
    for (number, address) in CLIENTS.into_iter().enumerate() {
        let mut client = Client::connect(net.client(), ip(address));
        assert_eq!(client.line(), "220-mx.example.test ESMTP");
        client.send("EHLO early\r\nMAIL FROM:<early@client.example.test>\r\n");
        assert_eq!(client.line(), POSTFIX);
        assert!(client.reply().starts_with("250-mx.example.test\n"), "the answer to the early EHLO");
        assert!(client.reply().starts_with("250 2.1.0"), "and to what came with it");
        gate.wait_log(&format!(" from {}: EHLO early\\r\\nMAIL FROM", client.name()));
        client.command("RCPT TO:<inbox@example.test>", "250");
        client.command("DATA", "354");
        client.command("Subject: early\r\n\r\nbody\r\n.", "250");
        client.quit();
        assert!(postfix.wait_mail(number + 1)[number].contains("Subject: early\n"));
    }
}

/// What clients hear and the log says while the service can't be reached, for this reason.
fn assert_told_to_come_back(net: &Net, gate: &Gate, strangers: [&str; 2], why: &str) {
    let service = Postfix::pass_socket(net).display().to_string();
    let problem = format!("warning: cannot connect to service {service}: {why}");
    for (number, address) in strangers.into_iter().enumerate() {
        let mut stranger = Client::connect(net.client(), ip(address));
        let name = stranger.name();
        assert_eq!(stranger.reply(), "220-mx.example.test ESMTP\n220 mx.example.test ESMTP");
        if number == 0 {
            stranger.command("EHLO client.example.test", "421 4.3.2 No system resources");
        } else {
            stranger.command("QUIT", "221 2.0.0 Bye");
        }
        stranger.wait_closed();
        gate.wait_log(&format!("DISCONNECT {name}"));
        assert_eq!((gate.logged(&format!("PASS NEW {name}")), gate.logged(&format!("PASS OLD {name}"))), (1, 0));
        gate.wait("both are logged", || gate.logged(&problem) == 2 * number + 1);

        let mut friend = Client::connect(net.client(), ip(address));
        let name = friend.name();
        assert_eq!(friend.line(), "421 4.3.2 All server ports are busy");
        friend.wait_closed();
        gate.wait_log(&format!("DISCONNECT {name}"));
        assert_eq!(gate.logged(&format!("PASS OLD {name}")), 1);
        gate.wait("both are logged", || gate.logged(&problem) == 2 * number + 2);
    }
}

#[test]
fn without_the_service_clients_are_told_to_come_back_and_pass_once() {
    let Some(net) = Net::new() else { return };
    let gate = Gate::start(&net, front(&net));
    let line = gate.wait_log("warning: smtpd's pass service is not at ");
    assert!(line.ends_with("`smtpd pass - - n - - smtpd` in master.cf, and `postfix reload`"), "{line}");
    assert_told_to_come_back(&net, &gate, CLIENTS, "No such file or directory");

    // Postfix comes, and goes again; its socket stays.
    let mut postfix = Postfix::passing(&net, &BESIDE);
    for address in CLIENTS.map(ip) {
        visit_as_friend(&net, &postfix, &gate, address, false);
    }
    postfix.down();
    assert_told_to_come_back(&net, &gate, ["198.18.1.2", "2001:2:0:2::1"], "Connection refused");
}

#[test]
fn without_a_kernel_part_the_keeper_needs_one_right_more() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::passing(&net, &BESIDE);
    let without = "-all,+net_bind_service";
    let gate = Gate::start_restricted(&net, &["--bounding-set", without], front(&net));
    gate.wait_log("warning: smtpd's pass service is not at ");
    assert_told_to_come_back(&net, &gate, CLIENTS, "Permission denied");
    gate.stop();

    let with = format!("{without},+dac_read_search");
    let gate = Gate::start_restricted(&net, &["--bounding-set", &with], front(&net));
    for address in ["198.18.1.2", "2001:2:0:2::1"].map(ip) {
        let mut client = Client::connect(net.client(), address);
        assert_eq!(client.reply(), GREETING);
        client.deliver("Subject: passed\r\n\r\nbody\r\n");
        postfix.wait_log(&format!("client=unknown{}", client.name()));
        client.quit();
    }
    assert_eq!(gate.logged("pass service"), 0);
}

#[test]
fn who_has_talked_with_the_screener_goes_on_elsewhere_or_comes_back() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::passing(&net, &BESIDE);
    let deep = front(&net).set("bare_newline.enable", "true");
    let replaying = deep.clone().text("forward.replay_to", BESIDE[0].0);
    for (settings, strangers, answer) in [
        (deep, ["198.18.1.1", "2001:2:0:1::1"], "450 4.3.2 Service currently unavailable"),
        (replaying, ["198.18.1.2", "2001:2:0:2::1"], "250 2.1.5 Ok"),
    ] {
        let gate = Gate::start(&net, settings);
        for address in strangers.map(ip) {
            let mut client = Client::connect(net.client(), address);
            assert_eq!(client.reply(), "220-mx.example.test ESMTP\n220 mx.example.test ESMTP");
            client.command("EHLO client.example.test", "250");
            client.command("MAIL FROM:<sender@client.example.test>", "250");
            client.command("RCPT TO:<inbox@example.test>", answer);
            let name = client.name();
            if answer.starts_with("250") {
                client.command("DATA", "354");
                client.command("Subject: replayed\r\n\r\nbody\r\n.", "250");
                postfix.wait_log(&format!("client=unknown{name}"));
            }
            client.quit();
            gate.wait_log(&format!("PASS NEW {name}"));
            visit_as_friend(&net, &postfix, &gate, address, false);
        }
        gate.stop();
    }
}

#[test]
fn a_reload_leads_another_way_and_the_next_screener_goes_it_too() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::passing(&net, &BESIDE);
    let gate = Gate::start(&net, Settings::front(&net, BESIDE[0].0).text("forward.client_address", "none"));
    let mut relayed = Client::connect(net.client(), ip("198.18.1.1"));
    assert_eq!(relayed.reply(), GREETING);
    relayed.deliver("Subject: relayed\r\n\r\nbody\r\n");
    assert_eq!(postfix.logged(&format!("client=unknown{}", relayed.name())), 0);

    // The file is read again by the keeper, which connects to no other socket than those that it names.
    let _ = front(&net).write();
    gate.tell(&["reload"]);
    let mut passed = Client::connect(net.client(), ip("198.18.1.2"));
    assert_eq!(passed.reply(), GREETING);
    passed.deliver("Subject: passed\r\n\r\nbody\r\n");
    postfix.wait_log(&format!("client=unknown{}", passed.name()));

    let first = gate.screener();
    gate.signal_screener(Signal::SIGKILL);
    gate.wait("the next screener answers", || {
        gate.screener_if_any().is_some_and(|pid| pid != first) && gate.control(&["status"]).status.success()
    });
    // Who was relayed is cut off; who was handed over is not.
    relayed.wait_closed();
    passed.deliver("Subject: still here\r\n\r\nbody\r\n");
    passed.quit();
    visit_as_stranger(&net, &postfix, &gate, ip("2001:2:0:1::1"));
}
