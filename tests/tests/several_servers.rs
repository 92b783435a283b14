//! Several mail servers behind the gate: one or the other takes the client, which hears nothing of it.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    thread,
};

use screen_tests::{
    backend::Backend,
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};
use serde_json::Value;

const CLIENT: &str = "198.18.1.1";
const FIRST: &str = "127.0.0.1:10025";
const SECOND: &str = "127.0.0.1:10026";
const THIRD: &str = "127.0.0.1:10027";

/// A gate that lets this test's clients through, to these servers, and steers nobody.
fn settings(net: &Net, servers: &[&str]) -> Settings {
    Settings::front(net, FIRST).set("forward.to", &format!("{servers:?}")).text("forward.steer", "off")
}

fn start(net: &Net, settings: Settings) -> Gate {
    let gate = Gate::start(net, settings);
    gate.tell(&["allow", "198.18.0.0/16"]);
    gate.tell(&["allow", "2001:2::/32"]);
    gate
}

/// A client and the greeting that it got.
fn visit(net: &Net, client: &str) -> (Client, String) {
    let mut client = Client::connect(net.client(), client.parse::<IpAddr>().unwrap());
    let greeting = client.line();
    (client, greeting)
}

/// A scripted mail server that says this at first, and then only waits for the client's end.
fn scripted(net: &Net, address: &str, greeting: &'static str) -> Backend {
    let address: SocketAddr = address.parse().unwrap();
    Backend::start(&net.edge, &[address], move |mut stream| {
        stream.set_read_timeout(None)?;
        stream.write_all(greeting.as_bytes())?;
        io::copy(&mut stream, &mut io::sink()).map(drop)
    })
}

/// What `mxscreen status` says of a mail server, if it knows it.
fn shown(gate: &Gate, server: &str) -> Option<Value> {
    let status = gate.ask(&["status"]);
    let servers = status["backends"]["servers"].as_array().expect("a list of mail servers").clone();
    servers.into_iter().find(|shown| shown["server"] == server)
}

fn wait_state(gate: &Gate, server: &str, state: &str, open: u64) {
    gate.wait(&format!("{server} is shown as {state} with {open} open"), || {
        shown(gate, server).is_some_and(|shown| shown["state"] == state && shown["open"] == open)
    });
}

#[test]
fn the_second_takes_over_while_the_first_is_down() {
    let Some(net) = Net::new() else { return };
    let second = ["127.0.0.1:10026", "[::1]:10026"].map(|address| (address, "smtpd_banner=second.example.test"));
    let postfix = Postfix::start_with(&net, &second);
    let gate = start(&net, settings(&net, &[FIRST, SECOND]));
    gate.wait_log(&format!("no mail server listens on {FIRST} yet; it is left out until one does"));
    for (number, address) in [CLIENT, "2001:2:0:1::1"].into_iter().enumerate() {
        let (mut client, greeting) = visit(&net, address);
        assert_eq!(greeting, "220 second.example.test");
        client.deliver("Subject: over\r\n\r\nbody\r\n");
        postfix.wait_log(&format!("client=unknown[{address}]"));
        client.quit();
        assert_eq!(postfix.wait_mail(number + 1).len(), number + 1);
    }
    gate.wait_log(&format!("mail server {FIRST}: connect: Connection refused (os error 111); left out for 1 s"));
    gate.wait_log("mail server [::1]:10025: connect: Connection refused (os error 111); left out for 1 s");
    let first = shown(&gate, FIRST).expect("the first server");
    assert_eq!((&first["state"], first["open"].as_u64()), (&Value::from("left out"), Some(0)));
    assert!(first["failures"].as_u64() >= Some(2) && first["since"].is_u64(), "{first}");
    assert!(first["trouble"].as_str().is_some_and(|trouble| trouble.contains("refused")), "{first}");
    assert_eq!(gate.logged("cannot connect to backend"), 0, "no client was the worse for it");

    // It comes back, and clients find it once its pause is over.
    let backend = scripted(&net, FIRST, "220 first\r\n");
    gate.wait("the first server takes clients again", || visit(&net, CLIENT).1 == "220 first");
    gate.wait_log(&format!("mail server {FIRST} takes clients again"));
    assert_eq!(visit(&net, CLIENT).1, "220 first");
    assert_eq!(gate.logged(&format!("mail server {FIRST} takes clients again")), 1);
    assert!(backend.accepted() >= 2);
}

#[test]
fn clients_are_spread_by_weight() {
    let Some(net) = Net::new() else { return };
    let servers = [(FIRST, "first"), (SECOND, "second"), (THIRD, "third")];
    let banners = servers.map(|(address, name)| (address, format!("smtpd_banner={name}.example.test")));
    let services: Vec<(&str, &str)> = banners.iter().map(|(address, banner)| (*address, banner.as_str())).collect();
    let _postfix = Postfix::start_with(&net, &services);
    let gate = start(&net, settings(&net, &["127.0.0.1:10025*2", "127.0.0.1:10026", "127.0.0.1:10027*0"]));
    let mut greetings: Vec<String> = (0..9).map(|_| visit(&net, CLIENT).1).collect();
    greetings.sort_unstable();
    let [first, second] = ["220 first.example.test", "220 second.example.test"];
    assert_eq!(greetings, [vec![first; 6], vec![second; 3]].concat());
    assert_eq!(shown(&gate, THIRD).expect("the third server")["state"], "drained");
    assert_eq!(shown(&gate, FIRST).expect("the first server")["weight"], 2);
}

#[test]
fn a_full_server_is_passed_over_and_then_clients_wait_in_order() {
    let Some(net) = Net::new() else { return };
    let _servers = [scripted(&net, FIRST, "220 first\r\n"), scripted(&net, SECOND, "220 second\r\n")];
    let settings =
        settings(&net, &[FIRST, SECOND]).text("forward.client_address", "none").set("limits.backend_connections", "1");
    let gate = start(&net, settings);
    let waiting = |count: u64| {
        gate.wait(&format!("{count} clients wait"), || {
            gate.ask(&["status"])["backends"]["waiting_for_a_place"] == count
        });
    };
    let (one, greeting) = visit(&net, CLIENT);
    assert_eq!(greeting, "220 first");
    let (two, greeting) = visit(&net, CLIENT);
    assert_eq!(greeting, "220 second", "the first one is full");
    assert_eq!(shown(&gate, FIRST).expect("the first server")["state"], "full");
    let mut three = Client::connect(net.client(), CLIENT.parse().unwrap());
    waiting(1);
    let mut four = Client::connect(net.client(), CLIENT.parse().unwrap());
    waiting(2);
    drop(two);
    assert_eq!(three.line(), "220 second");
    waiting(1);
    drop(one);
    assert_eq!(four.line(), "220 first");
    waiting(0);
    drop((three, four));
    wait_state(&gate, FIRST, "takes clients", 0);
    wait_state(&gate, SECOND, "takes clients", 0);
    assert_eq!(gate.logged("left out"), 0);
}

#[test]
fn a_server_that_leaves_the_list_keeps_its_sessions() {
    let Some(net) = Net::new() else { return };
    let [first, second] = [(FIRST, "smtpd_banner=first.example.test"), (SECOND, "smtpd_banner=second.example.test")];
    let postfix = Postfix::start_with(&net, &[first, second]);
    let before = settings(&net, &[FIRST]);
    let gate = start(&net, before.clone());
    let (mut client, greeting) = visit(&net, CLIENT);
    assert_eq!(greeting, "220 first.example.test");
    client.command("EHLO client.example.test", "250");
    let _ = before.set("forward.to", &format!("{:?}", [SECOND])).write();
    gate.tell(&["reload"]);
    wait_state(&gate, FIRST, "drained", 1);
    assert_eq!(visit(&net, CLIENT).1, "220 second.example.test");
    client.deliver("Subject: to its end\r\n\r\nbody\r\n");
    client.quit();
    assert!(postfix.wait_mail(1)[0].contains("Subject: to its end"));
    gate.wait("the first server is forgotten", || shown(&gate, FIRST).is_none());
}

#[test]
fn who_turns_clients_away_or_says_nothing_is_passed_over() {
    let Some(net) = Net::new() else { return };
    let _busy = scripted(&net, FIRST, "421 4.3.2 busy \x07\r\n");
    let _mute = Backend::start(&net.edge, &[SECOND.parse().unwrap()], |_| Ok(()));
    let third = scripted(&net, THIRD, "220 third\r\n");
    let settings = settings(&net, &[FIRST, SECOND, THIRD]).text("forward.client_address", "none");
    let gate = start(&net, settings);
    assert_eq!(visit(&net, CLIENT).1, "220 third");
    gate.wait_log(&format!(
        "mail server {FIRST}: took the connection and turned the client away: 421 4.3.2 busy \\x07; left out for 1 s"
    ));
    gate.wait_log(&format!(
        "mail server {SECOND}: took the connection and closed it without a greeting; left out for 1 s"
    ));

    // The last one of all speaks for itself.
    drop(third);
    let _closed = scripted(&net, THIRD, "554-5.3.2 closed\r\n554 5.3.2 for ever\r\n");
    gate.wait("all three have failed", || {
        let (mut client, greeting) = visit(&net, CLIENT);
        let verbatim = greeting == "554-5.3.2 closed" && client.line() == "554 5.3.2 for ever";
        assert!(verbatim || greeting.starts_with("421 4.3.2"), "{greeting}");
        verbatim
    });
    gate.wait_log(&format!(
        "mail server {THIRD}: took the connection and turned the client away: 554-5.3.2 closed; left out for 1 s"
    ));
}

#[test]
fn nothing_is_left_of_clients_and_servers_that_came_and_went() {
    let Some(net) = Net::new() else { return };
    let _busy = scripted(&net, SECOND, "421 4.3.2 busy\r\n");
    let third = scripted(&net, THIRD, "220 third\r\n");
    // Nobody listens on the first, which is tried in all ways.
    let settings = settings(&net, &[FIRST, SECOND, THIRD]).set("limits.backend_connections", "2");
    // The journal's file would come with the first session.
    let gate = start(&net, settings.set("journal.max_size", "0"));
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", gate.screener())).expect("descriptors").count();
    let idle = || gate.ask(&["status"])["connections"]["open"] == 0;
    drop(visit(&net, CLIENT));
    gate.wait("the first client is gone", idle);
    let before = descriptors();
    for _ in 0..10 {
        let (one, two) = (visit(&net, CLIENT), visit(&net, CLIENT));
        assert_eq!((one.1.as_str(), two.1.as_str()), ("220 third", "220 third"));
        // It leaves while it waits.
        let three = Client::connect(net.client(), CLIENT.parse().unwrap());
        gate.wait("it waits", || gate.ask(&["status"])["backends"]["waiting_for_a_place"] == 1);
        three.reset();
        one.0.reset();
        drop(two);
        gate.wait("all are gone", idle);
    }
    gate.wait("no descriptor is left", || descriptors() <= before);
    gate.wait("no entry is left", || gate.pins().dump("relay_clients").is_empty());
    wait_state(&gate, THIRD, "takes clients", 0);
    assert!(third.accepted() >= 20);
}

#[test]
fn a_unix_socket_that_the_screener_could_not_reach_takes_clients() {
    let Some(net) = Net::new() else { return };
    let directory = net.directory().join("mail-server");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    let path = directory.join("smtp");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        // The clients of two families, one after the other.
        (0..2)
            .map(|_| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut header = [0; 16];
                stream.read_exact(&mut header).unwrap();
                let mut addresses = vec![0; usize::from(u16::from_be_bytes([header[14], header[15]]))];
                stream.read_exact(&mut addresses).unwrap();
                stream.write_all(b"220 unix\r\n").unwrap();
                let mut said = Vec::new();
                stream.read_to_end(&mut said).unwrap();
                stream.write_all(&said).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                (header, addresses)
            })
            .collect::<Vec<_>>()
    });
    let second = scripted(&net, SECOND, "220 second\r\n");
    let path = path.display().to_string();
    let gate = start(&net, settings(&net, &[&path, SECOND]));
    let text = vec![b'x'; 3_000_000];
    let names = [CLIENT, "2001:2:0:1::1"].map(|address| {
        let (mut client, greeting) = visit(&net, address);
        assert_eq!(greeting, "220 unix");
        wait_state(&gate, &path, "takes clients", 1);
        client.send(&text);
        client.end_sending();
        assert!(client.read_to_end() == text, "what the client got back");
        client.local()
    });
    for ((header, addresses), name) in server.join().unwrap().into_iter().zip(names) {
        assert!(header.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21"), "{header:?}");
        let (address, port) = match name.ip() {
            IpAddr::V4(address) => (address.octets().to_vec(), 8),
            IpAddr::V6(address) => (address.octets().to_vec(), 32),
        };
        assert!(addresses.starts_with(&address), "{addresses:?} for {name}");
        assert_eq!(addresses[port..port + 2], name.port().to_be_bytes());
    }

    // It has ended, and its socket is only a name.
    assert_eq!(visit(&net, CLIENT).1, "220 second");
    gate.wait_log(&format!("mail server {path}: connect: Connection refused (os error 111); left out for 1 s"));
    wait_state(&gate, &path, "left out", 0);
    assert!(second.accepted() >= 1);
}
