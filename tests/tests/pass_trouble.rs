//! Postfix, or whoever is in its place, does not take what it is given: every client is told, and nothing is left behind.

use std::{
    fs,
    io::{self, IoSliceMut, Write as _},
    mem::MaybeUninit,
    net::{IpAddr, TcpStream},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use nix::sys::signal::Signal;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
    wait::{SOON, wait_for},
};

const POSTFIX: &str = "220 mx.example.test ESMTP Postfix (Debian/GNU)";
const TEASER: &str = "220-mx.example.test ESMTP";
const BUSY: &str = "421 4.3.2 All server ports are busy";
const NO_RESOURCES: &str = "421 4.3.2 No system resources";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Clients of 198.18.1.0/24 and 2001:2:0:1::/64 are permitted: they are handed over at once and have seen nothing.
fn settings(net: &Net, service: &Path) -> Settings {
    Settings::front(net, &service.display().to_string())
        .text("forward.mode", "postfix")
        // Its file comes with the first session, and is not to be counted.
        .set("journal.max_size", "0")
        .set("access.list", r#"[{ cidr = ["198.18.1.0/24 permit", "2001:2:0:1::/64 permit"] }]"#)
}

/// Descriptors of the keeper and of the screener.
fn descriptors(gate: &Gate) -> [usize; 2] {
    [gate.pid(), gate.screener()].map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}

/// The same at rest, with no client: whoever looks at the host's sockets, or answers an operator, has some more for a moment.
fn settled(gate: &Gate) -> [usize; 2] {
    gate.wait("nobody is here", || gate.ask(&["status"])["connections"]["open"] == 0);
    // The count at the start is over when this one is.
    gate.tell(&["recount"]);
    let (mut fewest, mut looks) = ([usize::MAX; 2], 0);
    wait_for("descriptors were counted", SOON, || {
        let now = descriptors(gate);
        fewest = [fewest[0].min(now[0]), fewest[1].min(now[1])];
        looks += 1;
        (looks == 20).then_some(fewest)
    })
}

fn wait_descriptors(gate: &Gate, expected: [usize; 2]) {
    gate.wait(&format!("{expected:?} descriptors are open"), || descriptors(gate) == expected);
}

fn wait_under_way(gate: &Gate, count: usize) {
    gate.wait(&format!("{count} clients are under way"), || gate.ask(&["status"])["screening"]["forwarding"] == count);
}

/// A service that accepts nothing and takes nothing, in a directory that only root may enter.
fn stalled(net: &Net) -> (UnixListener, PathBuf) {
    let directory = net.directory().join("private");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    let path = directory.join("smtpd");
    (UnixListener::bind(&path).unwrap(), path)
}

#[test]
fn a_receiver_that_stalls_is_given_so_many_clients_and_no_more() {
    let Some(net) = Net::new() else { return };
    let (listener, path) = stalled(&net);
    // Long enough for two strangers to come within it, however busy the machine is.
    let settings = settings(&net, &path).set("limits.post_queue", "5").text("pregreet.wait", "6s");
    let gate = Gate::start(&net, settings);
    let mut warm = Client::connect(net.client(), ip("198.18.1.1"));
    wait_under_way(&gate, 1);
    // Accepted and closed without a look at what came: that is a receiver that died, and its client is still ours.
    drop(listener.accept().unwrap());
    assert_eq!(warm.line(), NO_RESOURCES);
    warm.wait_closed();
    wait_under_way(&gate, 0);
    let before = settled(&gate);

    let mut waiting: Vec<Client> = ["198.18.1.1", "198.18.1.2", "2001:2:0:1::1", "2001:2:0:1::2"]
        .map(|from| Client::connect(net.client(), ip(from)))
        .into();
    wait_under_way(&gate, 4);
    // There is room for one more when these two come, and they pass the tests at one time.
    let mut strangers = ["198.18.2.1", "2001:2:0:2::1"].map(|from| Client::connect(net.client(), ip(from)));
    strangers.iter_mut().for_each(|stranger| assert_eq!(stranger.line(), TEASER));
    gate.wait_log(&format!("cannot connect to service {}: 5 clients wait for it already", path.display()));
    wait_under_way(&gate, 5);
    for address in ["198.18.1.9", "2001:2:0:1::9"] {
        let mut late = Client::connect(net.client(), ip(address));
        assert_eq!(late.line(), BUSY);
        late.wait_closed();
        gate.wait_log(&format!("NOQUEUE: reject: CONNECT from {}: all server ports busy", late.name()));
    }
    gate.wait("who was told has gone", || gate.ask(&["status"])["connections"]["open"] == 6);
    // Its own end and the client's for each of five, the other stranger's, and nothing in the keeper.
    wait_descriptors(&gate, [before[0], before[1] + 11]);

    // The service ends, with all that is in its queue.
    drop(listener);
    waiting.iter_mut().for_each(|client| assert_eq!(client.line(), NO_RESOURCES));
    for stranger in &mut strangers {
        assert_eq!(stranger.line(), "220 mx.example.test ESMTP");
        stranger.command("EHLO client.example.test", NO_RESOURCES);
    }
    waiting.iter_mut().chain(&mut strangers).for_each(Client::wait_closed);
    wait_under_way(&gate, 0);
    wait_descriptors(&gate, before);
    assert_eq!(gate.logged("cannot pass connection to service"), 6, "five, and the one before");
}

/// What smtpd does first: one byte, and the client's socket with it.
fn take_descriptor(connection: &UnixStream) -> TcpStream {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(connection, &mut [IoSliceMut::new(&mut [0])], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.expect("a descriptor").into()
}

#[test]
fn a_client_whose_socket_somebody_has_taken_over_is_left_to_them() {
    let Some(net) = Net::new() else { return };
    let (listener, path) = stalled(&net);
    let gate = Gate::start(&net, settings(&net, &path));
    let before = settled(&gate);
    for address in ["198.18.1.1", "2001:2:0:1::1"] {
        let mut client = Client::connect(net.client(), ip(address));
        let (connection, _) = listener.accept().unwrap();
        let mut taken = take_descriptor(&connection);
        taken.set_nonblocking(false).unwrap();
        // The rest stays unread.
        drop(connection);
        gate.wait("the gate has let go of it", || gate.ask(&["status"])["connections"]["open"] == 0);
        taken.write_all(b"220 the heir\r\n").unwrap();
        drop(taken);
        assert_eq!(client.read_to_end(), b"220 the heir\r\n", "and nothing from the gate");
    }
    let name = format!("warning: cannot pass connection to service {}: Connection reset by peer", path.display());
    gate.wait("both are logged", || gate.logged(&name) == 2);
    wait_descriptors(&gate, before);
    assert_eq!(gate.logged("DISCONNECT"), 0);
}

#[test]
fn what_waits_for_a_postfix_that_ends_is_told_to_come_back() {
    let Some(net) = Net::new() else { return };
    let mut postfix = Postfix::passing(&net, &[("127.0.0.1:10025", "")]);
    let gate = Gate::start(&net, settings(&net, &Postfix::pass_socket(&net)));
    // Its master starts the first smtpd when there is somebody for it.
    postfix.signal_master(Signal::SIGSTOP);
    let mut clients = ["198.18.1.1", "2001:2:0:1::1"].map(|from| Client::connect(net.client(), ip(from)));
    let mut stranger = Client::connect(net.client(), ip("198.18.2.1"));
    assert_eq!(stranger.line(), TEASER);
    wait_under_way(&gate, 3);
    postfix.signal_master(Signal::SIGKILL);
    postfix.down();
    for client in &mut clients {
        assert_eq!(client.line(), NO_RESOURCES);
        client.wait_closed();
    }
    assert_eq!(stranger.line(), "220 mx.example.test ESMTP");
    stranger.command("EHLO client.example.test", NO_RESOURCES);
    postfix.up(&net);
    let mut again = Client::connect(net.client(), ip("198.18.2.1"));
    assert_eq!(again.line(), POSTFIX);
    again.quit();
}

/// What became of clients.
#[derive(Debug, Default)]
struct Fates {
    /// Postfix has said goodbye.
    served: AtomicUsize,
    /// The gate has told them to come back.
    deferred: AtomicUsize,
    /// Their connection has ended without a word.
    cut: AtomicUsize,
}

/// One line or several of an answer, if one comes before the connection ends.
fn hear(client: &mut Client) -> Option<String> {
    let mut reply = String::new();
    loop {
        let line = match client.try_line(SOON) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => panic!("{} hears nothing", client.name()),
            line => line.ok().flatten()?,
        };
        reply.push_str(&line);
        if line.as_bytes().get(3) != Some(&b'-') {
            return Some(reply);
        }
        reply.push('\n');
    }
}

/// The answer to a command, if one comes before the connection ends.
fn ask(client: &mut Client, command: &str) -> Option<String> {
    client.try_send(format!("{command}\r\n")).ok()?;
    hear(client)
}

fn visit(net: &Net, from: IpAddr, fates: &Fates) {
    let mut client = Client::connect(net.client(), from);
    let greeting = hear(&mut client);
    let last = match greeting.as_deref() {
        Some(BUSY | NO_RESOURCES) => greeting,
        Some(greeting) if greeting.ends_with(POSTFIX) => {
            ask(&mut client, "EHLO client.example.test").and_then(|_| ask(&mut client, "QUIT"))
        }
        Some(_) => ask(&mut client, "EHLO client.example.test"),
        None => None,
    };
    let fate = match last.as_deref() {
        Some("221 2.0.0 Bye") => &fates.served,
        Some(BUSY | NO_RESOURCES) => &fates.deferred,
        None => &fates.cut,
        Some(other) => panic!("{}: {other}", client.name()),
    };
    fate.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn nobody_is_lost_while_postfix_is_reloaded_and_restarted() {
    let Some(net) = Net::new() else { return };
    let mut postfix = Postfix::passing(&net, &[("127.0.0.1:10025", "")]);
    let gate = Gate::start(&net, settings(&net, &Postfix::pass_socket(&net)).text("pregreet.wait", "100ms"));
    let (fates, over) = (Fates::default(), AtomicBool::new(false));
    visit(&net, ip("198.18.1.1"), &fates);
    let before = settled(&gate);
    thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (net, fates, over) = (&net, &fates, &over);
            scope.spawn(move || {
                // The next one is new to the gate, or has never to wait.
                for number in 0_u32.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let from = match thread {
                        0 => "198.18.1.1".to_owned(),
                        1 => "2001:2:0:1::1".to_owned(),
                        2 => format!("198.18.{}.{}", 2 + number / 250, 1 + number % 250),
                        _ => format!("2001:2:0:{:x}::1", 2 + number),
                    };
                    visit(net, ip(&from), fates);
                }
            });
        }
        let more = |count: &AtomicUsize| {
            let seen = count.load(Ordering::Relaxed);
            // A thread that has failed ends the others, too.
            wait_for("more clients have come", SOON, || (count.load(Ordering::Relaxed) >= seen + 20).then_some(()));
        };
        for _ in 0..3 {
            more(&fates.served);
            postfix.signal_master(Signal::SIGHUP);
        }
        more(&fates.served);
        assert_eq!(fates.cut.load(Ordering::Relaxed), 0, "a reload ends no session");
        // This ends Postfix with all sessions that it has.
        postfix.down();
        more(&fates.deferred);
        postfix.up(&net);
        more(&fates.served);
        over.store(true, Ordering::Relaxed);
    });
    wait_under_way(&gate, 0);
    wait_descriptors(&gate, before);
    let status = gate.ask(&["status"]);
    let [served, deferred, cut] = [fates.served, fates.deferred, fates.cut].map(AtomicUsize::into_inner);
    println!("{served} served, {deferred} told to come back, {cut} cut by Postfix");
    assert_eq!(status["connections"]["accepted"], served + deferred + cut, "{status}");
    assert_eq!(status["connections"]["handed_over"], served + cut, "who was cut was Postfix's client: {status}");
}
