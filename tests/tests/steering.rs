//! Known-good clients reach the mail server whatever becomes of the screener, and the screener answers whatever becomes of the mail server.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use screen_tests::{
    gate::{Gate, Settings},
    net::{Host, Net},
    netns::Namespace,
    postfix::Postfix,
    process::Process,
    smtp::Client,
    wait::{SOON, wait_for},
};
use socket2::{Domain, Protocol, Socket, Type};

const CLIENTS: [&str; 2] = ["198.18.1.1", "2001:2:0:1::1"];
const STRANGERS: [&str; 2] = ["198.18.1.2", "2001:2:0:2::1"];
const POSTFIX: &str = "220 mx.example.test ESMTP Postfix (Debian/GNU)";
const TEASER: &str = "220-mx.example.test ESMTP";
const BUSY: &str = "421 4.3.2 All server ports are busy";
const BACKENDS: [&str; 2] = ["127.0.0.1:10025", "[::1]:10025"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Where the gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    InPlace,
    Front,
}

impl Layout {
    fn postfix(self, net: &Net) -> Postfix {
        match self {
            Self::InPlace => Postfix::start(net),
            Self::Front => Postfix::start_with(net, &BACKENDS.map(|address| (address, ""))),
        }
    }

    fn settings(self, net: &Net) -> Settings {
        match self {
            Self::InPlace => Settings::in_place(net),
            Self::Front => Settings::front(net, BACKENDS[0]),
        }
    }
}

/// Visits once, as a stranger, and is known from then on.
fn become_known(net: &Net, gate: &Gate, client: &str) {
    let mut client = Client::connect(net.client(), ip(client));
    assert_eq!((client.line().as_str(), client.line().as_str()), (TEASER, POSTFIX));
    gate.wait_log(&format!("PASS NEW {}", client.name()));
    client.quit();
}

/// Delivers without having been near the screener.
fn deliver_steered(net: &Net, client: &str) -> String {
    let mut client = Client::connect(net.client(), ip(client));
    assert_eq!(client.line(), POSTFIX);
    client.deliver("Subject: steered\r\n\r\nbody\r\n");
    let name = client.name();
    client.quit();
    name
}

#[test]
fn while_the_screener_stands_still_known_good_mail_flows() {
    for layout in [Layout::InPlace, Layout::Front] {
        let Some(net) = Net::new() else { return };
        let postfix = layout.postfix(&net);
        let gate = Gate::start(&net, layout.settings(&net));
        CLIENTS.iter().for_each(|client| become_known(&net, &gate, client));
        gate.signal_screener(Signal::SIGSTOP);
        let names = CLIENTS.map(|client| deliver_steered(&net, client));
        assert_eq!(postfix.wait_mail(2).len(), 2, "{layout:?}");
        // A stranger is in the screener's queue, where it waits.
        let mut stranger = Client::connect(net.client(), ip(STRANGERS[0]));
        assert_eq!(gate.logged("(kernel)"), 0, "nobody is there to write it");

        gate.signal_screener(Signal::SIGCONT);
        assert_eq!(stranger.line(), TEASER);
        for name in names {
            gate.wait_log(&format!("PASS OLD {name} (kernel)"));
        }
    }
}

#[test]
fn a_server_that_hangs_is_noticed_and_its_clients_are_told_to_come_back() {
    for layout in [Layout::InPlace, Layout::Front] {
        let Some(net) = Net::new() else { return };
        // Short queues are sooner full.
        net.edge.sysctl("net.core.somaxconn", "3");
        let postfix = layout.postfix(&net);
        net.edge.sysctl("net.core.somaxconn", "4096");
        let gate = Gate::start(&net, layout.settings(&net));
        CLIENTS.iter().for_each(|client| become_known(&net, &gate, client));
        let listeners = match layout {
            Layout::InPlace => ["0.0.0.0:25", "[::]:25"],
            Layout::Front => BACKENDS,
        };

        postfix.signal(Signal::SIGSTOP);
        let mut waiting = Vec::new();
        for (client, listener) in CLIENTS.into_iter().zip(listeners) {
            // Some are in the queue, and the next one's SYN is dropped.
            let error = loop {
                let to = net.client().edge(ip(client));
                match Client::try_connect(net.client(), ip(client), to, Duration::from_millis(500)) {
                    Ok(client) => waiting.push(client),
                    Err(error) => break error,
                }
                assert!(waiting.len() < 64, "nothing hangs");
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            gate.wait_log(&format!("mail server listener {listener} hangs"));
        }
        let hung = gate.ask(&["status"])["kernel"]["hung_mail_server_listeners"].clone();
        let named: Vec<_> = hung.as_array().unwrap().iter().map(|one| one["listener"].as_str().unwrap()).collect();
        assert_eq!(named, listeners, "{hung}");
        assert!(hung[0]["since"].as_u64().unwrap() > 0);
        for client in CLIENTS {
            let mut known = Client::connect(net.client(), ip(client));
            assert_eq!(known.line(), BUSY, "{client}");
            known.wait_closed();
        }

        postfix.signal(Signal::SIGCONT);
        for (client, listener) in CLIENTS.into_iter().zip(listeners) {
            gate.wait_log(&format!("mail server listener {listener}, which hung, accepts again"));
            let name = deliver_steered(&net, client);
            gate.wait_log(&format!("PASS OLD {name} (kernel)"));
        }
        for mut client in waiting {
            assert_eq!(client.line(), POSTFIX, "who was in the queue is served at last");
        }
        assert_eq!(gate.logged(" hangs: "), 2, "told once for each listener");
    }
}

/// What became of a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// The mail server has taken the message.
    Delivered,
    /// The screener, or a server that is on its way out, said to come back.
    ComeBack,
    /// The connection broke: it was the mail server's when that ended.
    Cut,
}

fn visit(host: &Host, from: IpAddr) -> Visit {
    let mut client = match Client::try_connect(host, from, host.edge(from), SOON) {
        Ok(client) => client,
        // The handshake was over, and the listener ended before anybody looked.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Visit::Cut,
        Err(error) => panic!("{from} could not connect: {error}"),
    };
    let steps = [
        ("", "220"),
        ("EHLO client.example.test\r\n", "250"),
        ("MAIL FROM:<sender@client.example.test>\r\n", "250"),
        ("RCPT TO:<inbox@example.test>\r\n", "250"),
        ("DATA\r\n", "354"),
        ("Subject: load\r\n\r\nbody\r\n.\r\n", "250"),
    ];
    for (command, code) in steps {
        if client.try_send(command).is_err() {
            return Visit::Cut;
        }
        loop {
            let Ok(Some(line)) = client.try_line(SOON) else { return Visit::Cut };
            if line.starts_with("421 4.3.") {
                return Visit::ComeBack;
            }
            assert!(line.starts_with(code), "{from}: \"{line}\" for {command:?}");
            if line.as_bytes().get(3) == Some(&b' ') {
                break;
            }
        }
    }
    Visit::Delivered
}

/// Known-good clients that visit again and again.
struct Load {
    visits: Arc<Mutex<Vec<Visit>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(net: &Arc<Net>) -> Self {
        let (visits, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let threads = CLIENTS.iter().flat_map(|client| [ip(client); 3]).map(|client| {
            let (net, visits, stop) = (Arc::clone(net), Arc::clone(&visits), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let became = visit(net.client(), client);
                    visits.lock().unwrap().push(became);
                }
            })
        });
        Self { threads: threads.collect(), visits, stop }
    }

    fn count(&self, which: Visit) -> usize {
        self.visits.lock().unwrap().iter().filter(|visit| **visit == which).count()
    }

    /// Waits for this many more visits that end so.
    #[track_caller]
    fn wait_more(&self, which: Visit, more: usize) {
        let enough = self.count(which) + more;
        wait_for(&format!("{more} more visits are {which:?}"), SOON, || (self.count(which) >= enough).then_some(()));
    }

    fn end(self) -> Vec<Visit> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.visits.lock().unwrap().clone()
    }
}

#[test]
fn a_mail_server_that_is_restarted_refuses_nobody() {
    for layout in [Layout::InPlace, Layout::Front] {
        let Some(net) = Net::new() else { return };
        let net = Arc::new(net);
        let mut postfix = layout.postfix(&net);
        let gate = Gate::start(&net, layout.settings(&net));
        CLIENTS.iter().for_each(|client| become_known(&net, &gate, client));
        let load = Load::start(&net);
        load.wait_more(Visit::Delivered, 20);
        for _ in 0..2 {
            postfix.reload();
            load.wait_more(Visit::Delivered, 20);
        }
        assert_eq!(
            (load.count(Visit::ComeBack), load.count(Visit::Cut)),
            (0, 0),
            "{layout:?}: nobody notices a reload"
        );
        for _ in 0..3 {
            postfix.down();
            load.wait_more(Visit::ComeBack, 20);
            postfix.up(&net);
            load.wait_more(Visit::Delivered, 20);
        }
        let visits = load.end();
        let count = |which: Visit| visits.iter().filter(|visit| **visit == which).count();
        let (delivered, cut) = (count(Visit::Delivered), count(Visit::Cut));
        // Each was answered, or was in the hands of a server that ended; who was cut off after its last line may have been heard.
        let mail = postfix.wait_mail(delivered).len();
        assert!(
            (delivered..=delivered + cut).contains(&mail),
            "{layout:?}: {mail} messages of {delivered} and {cut} cut"
        );
        let connections = gate.ask(&["status"])["connections"].clone();
        let number = |name: &str| usize::try_from(connections[name].as_u64().unwrap()).unwrap() - CLIENTS.len();
        let (screened, relayed) = (number("accepted"), number("handed_over"));
        let pins = gate.pins();
        let steered: i64 = CLIENTS.iter().map(|client| pins.client(ip(client)).unwrap().number("steered")).sum();
        let steered = usize::try_from(steered).unwrap();
        // A handshake that the mail server had begun when it ended is nobody's.
        let unmade = visits.len() - screened - steered;
        assert!(unmade <= cut, "{layout:?}: {unmade} connections were not made, {cut} cut off");
        assert!(delivered + cut <= steered + relayed + unmade, "{layout:?}: the screener has cut clients off");
        println!(
            "{layout:?}: {} visits, {steered} steered, {relayed} relayed, {unmade} ended in the handshake; {delivered} delivered, {} told \
             to come back, {cut} cut off",
            visits.len(),
            count(Visit::ComeBack)
        );
    }
}

/// Another user's program that takes whatever connects to an address, and says so in its output.
struct Usurper {
    _process: Process,
    output: std::path::PathBuf,
}

impl Usurper {
    fn start(net: &Net, address: &str) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap();
        let script = format!(
            "use Socket; $| = 1; socket(S, PF_INET, SOCK_STREAM, 6) or die; setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1); \
             bind(S, sockaddr_in({port}, inet_aton('{host}'))) or die $!; listen(S, 9) or die; print \"up\\n\"; \
             while (accept(C, S)) {{ print \"taken\\n\"; syswrite(C, \"220 mine\\r\\n\"); }}"
        );
        let output = net.directory().join("usurper");
        drop(std::fs::remove_file(&output));
        let nobody = ["--reuid=65534", "--clear-groups"];
        let process = Process::start_with(&net.edge, &nobody, Path::new("perl"), &["-e", &script], &output);
        let usurper = Self { _process: process, output };
        wait_for("the usurper listens", SOON, || (usurper.said() == "up\n").then_some(()));
        usurper
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }
}

#[test]
fn another_user_on_the_mail_servers_port_gets_nothing() {
    for (layout, address) in [(Layout::InPlace, "0.0.0.0:25"), (Layout::Front, "127.0.0.1:10025")] {
        let Some(net) = Net::new() else { return };
        net.edge.sysctl("net.ipv4.ip_unprivileged_port_start", "0");
        let mut postfix = layout.postfix(&net);
        let gate = Gate::start(&net, layout.settings(&net));
        become_known(&net, &gate, CLIENTS[0]);
        postfix.down();
        let usurper = Usurper::start(&net, address);

        let mut known = Client::connect(net.client(), ip(CLIENTS[0]));
        assert_eq!(known.line(), BUSY, "{layout:?}");
        let mut stranger = Client::connect(net.client(), ip(STRANGERS[0]));
        assert_eq!(stranger.line(), TEASER);
        assert!(stranger.line().starts_with("220 mx.example.test "));
        stranger.command("EHLO client.example.test", "421 4.3.2 ");
        assert_eq!(usurper.said(), "up\n", "{layout:?}");
        gate.wait_log(&format!("{address} was bound by user 65534"));

        drop(usurper);
        postfix.up(&net);
        deliver_steered(&net, CLIENTS[0]);
    }
}

/// A connection from the host itself, whose own address is the one that it connects to.
fn from_the_host(edge: &Namespace, address: IpAddr) -> Client {
    let to = SocketAddr::new(address, 25);
    let stream = edge.enter(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.bind(&SocketAddr::new(address, 0).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        TcpStream::from(socket)
    });
    Client::on(stream)
}

#[test]
fn the_host_itself_is_treated_as_the_access_list_says() {
    const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];
    const OWN: [&str; 2] = ["198.18.0.1", "2001:2:0::1"];
    let everything = r#"["127.0.0.0/8", "::1/128", "198.18.0.1", "2001:2::1"]"#;
    for layout in [Layout::InPlace, Layout::Front] {
        let Some(net) = Net::new() else { return };
        let _postfix = layout.postfix(&net);
        for (list, networks, permitted) in [
            (r#"["permit_mynetworks"]"#, r#"["127.0.0.0/8", "::1/128"]"#, &LOOPBACK[..]),
            (r#"["permit_mynetworks"]"#, everything, &[LOOPBACK, OWN].concat()),
            ("[]", everything, &[]),
        ] {
            let settings = layout.settings(&net).set("access.list", list).set("access.mynetworks", networks);
            let gate = Gate::start(&net, settings.set("cache.backend", "\"memory\""));
            for address in [LOOPBACK, OWN].concat() {
                let mut client = from_the_host(&net.edge, ip(address));
                if permitted.contains(&address) {
                    assert_eq!(client.line(), POSTFIX, "{address}, {list} {networks}");
                    gate.wait_log(&format!("ALLOWLISTED {} (kernel)", client.name()));
                } else {
                    assert_eq!(client.line(), TEASER, "{address}, {list} {networks}");
                    assert_eq!(client.line(), POSTFIX);
                    gate.wait_log(&format!("PASS NEW {}", client.name()));
                }
                client.quit();
            }
            gate.tell(&["stop", "--detach"]);
            gate.wait_end();
        }
    }
}

#[test]
fn steered_connections_are_limited_and_counted() {
    for layout in [Layout::InPlace, Layout::Front] {
        let Some(net) = Net::new() else { return };
        let _postfix = layout.postfix(&net);
        let settings = layout.settings(&net).set("limits.client_connections", "3").text("kernel.limit_reply", "drop");
        let gate = Gate::start(&net, settings);
        for client in CLIENTS {
            become_known(&net, &gate, client);
            let numbers =
                || gate.pins().client(ip(client)).map(|entry| (entry.number("active"), entry.number("steered")));
            gate.wait("the first visit is over", || numbers() == Some((0, 0)));
            let mut standing: Vec<Client> = (0..3).map(|_| Client::connect(net.client(), ip(client))).collect();
            for client in &mut standing {
                assert_eq!(client.line(), POSTFIX);
            }
            assert_eq!(numbers(), Some((3, 3)), "{layout:?}");
            Client::assert_dropped(net.client(), ip(client));
            standing.pop().unwrap().quit();
            gate.wait("there is room again", || numbers() == Some((2, 3)));
            deliver_steered(&net, client);
        }
    }
}

#[test]
fn a_relayed_client_may_do_what_its_own_address_may() {
    for layout in [Layout::InPlace, Layout::Front] {
        let Some(net) = Net::new() else { return };
        let services = match layout {
            Layout::InPlace => Vec::new(),
            Layout::Front => BACKENDS.map(|address| (address, "")).to_vec(),
        };
        let trusted = "mynetworks=127.0.0.0/8 [::1]/128 198.18.1.1/32 [2001:2:0:1::]/64";
        let _postfix = Postfix::start_set(&net, &services, &[trusted]);
        let gate = Gate::start(&net, layout.settings(&net));
        for (client, code) in
            CLIENTS.map(|client| (client, "250")).into_iter().chain(STRANGERS.map(|client| (client, "454")))
        {
            // Relayed at first, then steered.
            for greeting in [TEASER, POSTFIX] {
                let mut client = Client::connect(net.client(), ip(client));
                assert_eq!(client.line(), greeting);
                if greeting == TEASER {
                    assert_eq!(client.line(), POSTFIX);
                }
                client.command("EHLO client.example.test", "250");
                client.command("MAIL FROM:<sender@client.example.test>", "250");
                // Postfix relays for its networks alone: the loopback, which the relay comes from, is one of them.
                client.command("RCPT TO:<someone@elsewhere.example>", code);
                client.quit();
            }
        }
        drop(gate);
    }
}
