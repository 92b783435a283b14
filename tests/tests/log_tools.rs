//! Tools that read the log of postscreen read ours, and say the same: the same clients visit Debian's postscreen and the gate.

use std::{fs, net::IpAddr, path::PathBuf, thread};

use regex::Regex;
use screen_tests::{
    dns::{DnsServer, Zone},
    gate::{Gate, Settings},
    log_tools::{fail2ban, logwatch, pflogsumm},
    net::Net,
    postfix::Postfix,
    smtp::Client,
    wait::{SOON, wait_for},
};

/// Denied by the access list.
const DENIED: &str = "198.18.2.1";
/// Permitted by it.
const PERMITTED: [&str; 2] = ["198.18.3.1", "2001:2:0:3::1"];
/// On a DNS list.
const LISTED: [&str; 2] = ["198.18.1.20", "2001:2:0:20::1"];
/// What both know of networks, in the syntax of Postfix's cidr tables.
const ACCESS: &str = "198.18.2.0/24 reject\n198.18.3.0/24 permit\n2001:2:0:3::/64 permit\n";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Through the greet wait, up to a command that the screener answers itself.
fn greeted(net: &Net, from: &str) -> Client {
    let mut client = Client::connect(net.client(), ip(from));
    assert!(client.reply().starts_with("220-mx.example.test ESMTP"));
    client
}

/// Up to RCPT, which is turned away with `code`.
fn turned_away(client: &mut Client, code: &str) {
    client.command("EHLO client.example.test", "250");
    client.command("MAIL FROM:<a@client.example.test>", "250");
    client.command("RCPT TO:<inbox@example.test>", code);
}

fn good(net: &Net, from: &str) {
    let mut first = greeted(net, from);
    turned_away(&mut first, "450");
    first.quit();
    let mut second = Client::connect(net.client(), ip(from));
    assert_eq!(second.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
    second.deliver("Subject: hello\r\n\r\nbody\r\n");
    second.command("MAIL FROM:<a@client.example.test>", "250");
    second.command("RCPT TO:<inbox@elsewhere.example>", "454");
    second.quit();
}

fn permitted(net: &Net, from: &str) {
    let mut client = Client::connect(net.client(), ip(from));
    assert_eq!(client.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
    client.deliver("Subject: from a friend\r\n\r\nbody\r\n");
    client.quit();
}

fn early(net: &Net, from: &str) {
    let mut client = Client::connect(net.client(), ip(from));
    client.send("EHLO early.example.test\r\n");
    assert!(client.line().starts_with("220-mx.example.test ESMTP"));
    assert!(client.reply().starts_with("250"), "there is no greeting for who did not wait for it");
    client.command("MAIL FROM:<a@client.example.test>", "250");
    client.command("RCPT TO:<inbox@example.test>", "550");
    client.quit();
}

fn listed(net: &Net, from: &str) {
    let mut client = greeted(net, from);
    turned_away(&mut client, "550");
    client.quit();
}

fn hangs_up_early(net: &Net, from: &str) {
    let mut client = Client::connect(net.client(), ip(from));
    assert!(client.line().starts_with("220-mx.example.test ESMTP"));
    client.reset();
}

fn hangs_up_late(net: &Net, from: &str) {
    let mut client = greeted(net, from);
    client.command("EHLO client.example.test", "250");
    client.reset();
}

fn pipelines(net: &Net, from: &str) {
    let mut client = greeted(net, from);
    client.send("HELO client.example.test\r\nNOOP\r\nMAIL FROM:<a@client.example.test>\r\n");
    for _ in 0..3 {
        assert!(client.reply().starts_with("250"));
    }
    client.command("RCPT TO:<inbox@example.test>", "550");
    client.quit();
}

fn speaks_http(net: &Net, from: &str) {
    let mut client = greeted(net, from);
    client.send("GET / HTTP/1.1\r\n");
    assert!(client.reply().starts_with("521"));
    client.wait_closed();
}

fn ends_lines_badly(net: &Net, from: &str) {
    let mut client = greeted(net, from);
    client.send("EHLO client.example.test\n");
    assert!(client.reply().starts_with("250"));
    client.command("MAIL FROM:<a@client.example.test>", "250");
    client.command("RCPT TO:<inbox@example.test>", "550");
    client.quit();
}

fn never_stops(net: &Net, from: &str) {
    let mut client = greeted(net, from);
    for _ in 0..20 {
        client.command("NOOP", "250");
    }
    client.command("NOOP", "421");
    client.wait_closed();
}

fn denied(net: &Net, from: &str) {
    let mut client = greeted(net, from);
    turned_away(&mut client, "550");
    client.quit();
}

fn comes_too_often(net: &Net, from: &str) {
    let mut stay = [(); 2].map(|()| Client::connect(net.client(), ip(from)));
    let mut third = Client::connect(net.client(), ip(from));
    assert!(third.line().starts_with("421 4.7.0 "));
    third.wait_closed();
    for client in &mut stay {
        assert!(client.reply().starts_with("220"));
        turned_away(client, "450");
    }
    stay.into_iter().for_each(Client::quit);
}

/// What a client does, from an address.
type Visit = fn(&Net, &str);

/// Everybody comes, all at the same time.
fn visits(net: &Net) {
    let visit: [(Visit, &[&str]); 12] = [
        (good, &["198.18.1.1", "2001:2:0:1::1"]),
        (permitted, &PERMITTED),
        (early, &["198.18.1.2", "2001:2:0:12::1"]),
        (listed, &LISTED),
        (hangs_up_early, &["198.18.1.4"]),
        (hangs_up_late, &["198.18.1.5"]),
        (pipelines, &["198.18.1.6"]),
        (speaks_http, &["198.18.1.7", "2001:2:0:17::1"]),
        (ends_lines_badly, &["198.18.1.8"]),
        (never_stops, &["198.18.1.9"]),
        (denied, &[DENIED]),
        (comes_too_often, &["198.18.1.10"]),
    ];
    thread::scope(|scope| {
        for (visit, addresses) in visit {
            addresses.iter().for_each(|from| drop(scope.spawn(move || visit(net, from))));
        }
    });
}

fn dns(net: &Net) -> DnsServer {
    let zone = LISTED.into_iter().fold(Zone::new("heavy.example"), |zone, at| zone.list(ip(at), 2));
    DnsServer::start(&net.edge, vec![zone])
}

/// Whether everything that the visits leave in logs is there, where `screened` sessions end with the screener. Four reach the mail server.
fn complete(screener: &str, postfix: &str, screened: usize) -> bool {
    let count = |text: &str, what: &str| text.matches(what).count();
    count(screener, "]: DISCONNECT ") == screened
        && count(postfix, "]: disconnect from ") == 4
        && count(postfix, ": removed\n") == 4
}

/// The log without what differs from one run to the next: times, process numbers, ports.
fn level(net: &Net, log: &str) -> PathBuf {
    let mut text = log.to_owned();
    for (pattern, instead) in [
        (r"(?m)^\w{3} [ \d]\d \d\d:\d\d:\d\d \S+ ([^\[:]+)\[\d+\]: ", "Nov 26 12:00:00 mx $1[1]: "),
        (r"\]:[0-9]{4,5}\b", "]:40000"),
        (r" after \d+(\.\d+)? from ", " after 0.5 from "),
        (r"delay=[\d.]+, delays=[\d./]+", "delay=0.1, delays=0.1/0/0/0"),
        (r"/tmp/mxs[^/]+/", "/"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, instead).into_owned();
    }
    let path = net.directory().join("level.log");
    fs::write(&path, text).unwrap();
    path
}

/// Their own log and that of the mail server behind.
struct Logs {
    net: Net,
    path: PathBuf,
}

fn of_postscreen() -> Option<Logs> {
    let net = Net::new()?;
    let _dns = dns(&net);
    let access = net.directory().join("access");
    fs::write(&access, ACCESS).unwrap();
    let access = format!("postscreen_access_list=cidr:{}", access.display());
    let mut settings = vec!["mydestination=localhost", &access];
    settings.extend([
        // The words that logwatch knows.
        "respectful_logging=no",
        "postscreen_denylist_action=enforce",
        "postscreen_greet_action=enforce",
        "postscreen_greet_wait=6s",
        "postscreen_dnsbl_sites=heavy.example*3",
        "postscreen_dnsbl_threshold=3",
        "postscreen_dnsbl_action=enforce",
        "postscreen_pipelining_enable=yes",
        "postscreen_non_smtp_command_enable=yes",
        "postscreen_non_smtp_command_action=drop",
        "postscreen_bare_newline_enable=yes",
        "postscreen_bare_newline_action=enforce",
        "postscreen_client_connection_count_limit=2",
    ]);
    let postfix = Postfix::screening(&net, &settings);
    visits(&net);
    wait_for("all is logged", SOON, || complete(&postfix.log(), &postfix.log(), 17).then_some(()));
    let path = level(&net, &postfix.log());
    Some(Logs { net, path })
}

/// Of a gate whose kernel part is `kernel`, and with which `screened` sessions end.
fn of_the_gate(kernel: &str, screened: usize) -> Option<Logs> {
    let net = Net::new()?;
    let _dns = dns(&net);
    let access = net.directory().join("access");
    fs::write(&access, ACCESS).unwrap();
    let mut settings = Settings::front(&net, "127.0.0.1:10025")
        .set("access.list", &format!("[\"cidr:{}\"]", access.display()))
        .text("log.name", "postfix/postscreen")
        .text("log.style", "classic")
        .text("kernel.mode", kernel)
        // Nothing better can be had here, which would be a warning.
        .text("kernel.xdp", "generic")
        .text("forward.after_deep_tests", "reconnect")
        .text("access.denylist_action", "enforce")
        .text("pregreet.wait", "6s")
        .set("dnsbl.resolvers", r#"["127.0.0.1:53"]"#)
        .set("dnsbl.sites", r#"["heavy.example*3"]"#)
        .set("dnsbl.threshold", "3")
        .set("limits.client_connections", "2");
    for (test, action) in [
        ("pregreet", "enforce"),
        ("dnsbl", "enforce"),
        ("pipelining", "enforce"),
        ("non_smtp_command", "drop"),
        ("bare_newline", "enforce"),
    ] {
        settings = settings.text(&format!("{test}.action"), action);
    }
    for test in ["pipelining", "non_smtp_command", "bare_newline"] {
        settings = settings.set(&format!("{test}.enable"), "true");
    }
    // Without the kernel, a PROXY header names the client.
    let (told, option) = match kernel {
        "off" => ("proxy-v2", "smtpd_upstream_proxy_protocol=haproxy"),
        _ => ("kernel", ""),
    };
    let settings = settings.text("forward.client_address", told);
    let postfix = Postfix::start_with(&net, &[("127.0.0.1:10025", option), ("[::1]:10025", option)]);
    let gate = Gate::start(&net, settings);
    visits(&net);
    gate.wait("all is logged", || complete(&gate.log(), &postfix.log(), screened));
    let path = level(&net, &(gate.log() + &postfix.log()));
    Some(Logs { net, path })
}

/// The lines in an order that does not depend on which client came first, in the words that both have.
fn lines(said: &str) -> Vec<String> {
    let mut lines: Vec<String> = said.lines().map(|line| line.replace(" (kernel)", "")).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn log_tools_say_the_same_of_postscreen_and_the_gate() {
    let (postscreen, gate, kernel) = thread::scope(|scope| {
        let postscreen = scope.spawn(of_postscreen);
        let gate = scope.spawn(|| of_the_gate("off", 17));
        // Whom the kernel turns away is one line, without CONNECT and DISCONNECT.
        let kernel = scope.spawn(|| of_the_gate("auto", 16));
        (postscreen.join().unwrap(), gate.join().unwrap(), kernel.join().unwrap())
    });
    let (Some(postscreen), Some(gate), Some(kernel)) = (postscreen, gate, kernel) else { return };

    let expected = pflogsumm(&postscreen.net, &postscreen.path);
    assert!(expected.contains("     14   rejected (77%)\n"), "{expected}");
    for logs in [&gate, &kernel] {
        assert_eq!(lines(&pflogsumm(&logs.net, &logs.path)), lines(&expected));
    }

    let [expected, actual] = [&postscreen, &gate].map(|logs| logwatch(&logs.net, &logs.path));
    assert!(expected.contains("      21      connect\n"), "{expected}");
    let (counted, rest) = actual.split_once("**Unmatched Entries**").expect("the gate's own lines");
    assert_eq!(lines(counted.trim_end()), lines(expected.trim_end()));
    let unknown: Vec<&str> = rest.lines().filter(|line| line.contains("]:40000")).collect();
    assert_eq!(unknown, [""; 0], "what it does not know is not about clients");

    for (mode, fewest) in [("more", 4), ("rbl", 0), ("ddos", 5), ("aggressive", 9)] {
        let sorted = |logs: &Logs| {
            let mut addresses = fail2ban(&logs.net, &logs.path, mode);
            addresses.sort_unstable();
            addresses
        };
        let expected = sorted(&postscreen);
        assert!(expected.len() >= fewest, "{mode}: {expected:?}");
        assert_eq!(sorted(&gate), expected, "{mode}");
        assert_eq!(sorted(&kernel), expected, "{mode}");
    }
}
