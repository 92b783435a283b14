//! Strangers take the deep tests and go on to the mail server in the same session.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, TcpStream},
    process::{Command, Stdio},
    sync::{Arc, Mutex, mpsc},
};

use proptest::{
    collection::vec,
    prelude::{any, prop, prop_oneof},
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use screen_tests::{
    backend::Backend,
    certificate::Certificate,
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    privilege,
    server::{Kind, Server},
    smtp::Client,
    wait::SOON,
};

/// A client, and one that the mail server turns away, of each family.
const CLIENTS: [[&str; 2]; 2] = [["198.18.1.1", "198.18.9.1"], ["2001:2:0:1::1", "2001:2:0:9::1"]];
const STRANGER: &str = "198.18.1.1";
const BACKEND: &str = "127.0.0.1:10025";
const COME_BACK: &str = "450 4.3.2 Service currently unavailable";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Every stranger takes the deep tests.
fn deep(settings: Settings) -> Settings {
    ["pipelining", "non_smtp_command", "bare_newline"].into_iter().fold(settings, |settings, test| {
        settings.set(&format!("{test}.enable"), "true").text(&format!("{test}.action"), "enforce")
    })
}

/// Before a scripted server. Nobody is remembered, so that one client can come as a stranger again and again.
fn before_a_script(net: &Net) -> Settings {
    deep(Settings::front(net, BACKEND))
        .text("forward.client_address", "none")
        .text("forward.steer", "off")
        .text("cache.backend", "none")
        .text("pregreet.banner", "")
        .text("kernel.mode", "off")
}

/// A stranger in front of the dummy engine.
fn greeted(net: &Net, client: &str) -> Client {
    let mut client = Client::connect(net.client(), ip(client));
    let greeting = client.reply();
    assert!(greeting.ends_with("220 mx.example.test ESMTP"), "{greeting}");
    client
}

/// As far as the answer to RCPT, which is still to come.
fn as_far_as_rcpt(net: &Net, client: &str) -> Client {
    let mut client = greeted(net, client);
    client.command("EHLO client.example.test", "250");
    client.command("MAIL FROM:<sender@client.example.test>", "250 2.1.0 Ok");
    client.send("RCPT TO:<inbox@example.test>\r\n");
    client
}

fn takes_over(kind: Kind) {
    let Some(net) = Net::new().filter(|_| privilege::has_mail_programs()) else { return };
    let server = Server::start(&net, kind, &[]);
    let made = Certificate::make(net.directory());
    let settings = deep(Settings::in_place(&net))
        .text("forward.steer", "off")
        .text("tls.level", "may")
        .text("tls.certificate", &made.certificate.display().to_string())
        .text("tls.key", &made.key.display().to_string());
    let gate = Gate::start(&net, settings);
    for (delivered, [client, barred]) in CLIENTS.into_iter().enumerate() {
        let mut good = greeted(&net, client);
        let announced = good.command("EHLO client.example.test", "250");
        assert!(announced.contains("8BITMIME") && !announced.contains("PIPELINING"), "{announced}");
        good.command("MAIL FROM:<sender@client.example.test> BODY=8BITMIME", "250");
        good.command("RCPT TO:<inbox@example.test>", "250");
        gate.wait_log(&format!("PASS NEW {}", good.name()));
        good.command("DATA", "354");
        good.send("Subject: replayed\r\n\r\n8 bits: \u{fc}\r\n");
        good.command(".", "250");
        server.wait_client(good.local());
        good.quit();
        let mail = server.wait_mail(delivered + 1);
        let newest = mail.iter().find(|mail| mail.contains(client)).expect("a message that names its client");
        let (headers, body) = newest.split_once("\n\n").unwrap();
        assert!(headers.contains("Received: from") && headers.contains("client.example.test"), "{headers}");
        assert_eq!(body.trim_end(), "8 bits: \u{fc}");

        let mut bad = as_far_as_rcpt(&net, barred);
        let refusal = bad.reply();
        assert!(refusal.starts_with("55") && !refusal.contains("5.3.2"), "the mail server's own: {refusal}");
        bad.command("RSET", "250");
        bad.quit();
    }
    // The gate ends TLS; the mail server knows the client all the same.
    swaks_in_tls(&net);
    let mail = server.wait_mail(CLIENTS.len() + 1);
    let newest = mail.iter().find(|mail| mail.contains(SWAKS)).expect("a message that names its client");
    assert!(newest.contains("swaks.example.test"), "{newest}");
    assert_eq!(gate.logged("NOQUEUE: reject"), 0, "nobody was told to come back");
}

/// Where swaks comes from.
const SWAKS: &str = "198.18.0.9";

/// Has swaks deliver a message with TLS or not at all, and returns what it said.
fn swaks_in_tls(net: &Net) -> String {
    net.client().adopt(ip(SWAKS));
    let sender = ["--from", "sender@client.example.test", "--to", "inbox@example.test", "--helo", "swaks.example.test"];
    let mut swaks = Command::new("swaks");
    swaks.args(["--server", "198.18.0.1", "--local-interface", SWAKS, "--tls"]).args(sender);
    swaks.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = net.client().namespace.spawn(swaks).unwrap().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn postfix_takes_over() {
    takes_over(Kind::Postfix);
}

#[test]
fn exim_takes_over() {
    takes_over(Kind::Exim);
}

#[test]
fn opensmtpd_takes_over() {
    takes_over(Kind::OpenSmtpd);
}

#[test]
fn haraka_takes_over() {
    takes_over(Kind::Haraka);
}

/// What a mail server does with a connection.
type Script = Box<dyn Fn(TcpStream) -> io::Result<()> + Send + Sync>;

/// Says the answers one after the other, each but the first after a line from the client.
fn script(answers: Vec<&'static str>) -> impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static {
    move |stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        for answer in &answers {
            writer.write_all(answer.as_bytes())?;
            if reader.read_line(&mut String::new())? == 0 {
                return Ok(());
            }
        }
        Ok(())
    }
}

const GREETING: &str = "220 scripted\r\n";
const WELCOME: &str = "250-scripted\r\n250-8BITMIME\r\n250 SIZE 1000\r\n";
const OK: &str = "250 2.1.0 Ok\r\n";

/// How many descriptors the screener holds.
fn descriptors(gate: &Gate) -> usize {
    fs::read_dir(format!("/proc/{}/fd", gate.screener())).unwrap().count()
}

/// What becomes of the answer to RCPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The mail server's, verbatim.
    Theirs(&'static str),
    /// The gate's, and its log says why.
    Ours(&'static str),
}

#[test]
fn whatever_the_mail_server_does_the_client_gets_its_reply() {
    use Answer::{Ours, Theirs};
    let Some(net) = Net::new() else { return };
    let slow = |mut stream: TcpStream| {
        for byte in b"220-slow\r\n220 and steady\r\n" {
            stream.write_all(&[*byte])?;
            std::thread::yield_now();
        }
        script(vec!["", WELCOME, OK, "250 2.1.5 slow\r\n"])(stream)
    };
    let scripted = |answers: &[&'static str]| {
        let answers = answers.to_vec();
        Box::new(script(answers)) as Script
    };
    let cases: Vec<(&str, Script, Answer)> = vec![
        ("a slow greeting of two lines", Box::new(slow), Theirs("250 2.1.5 slow")),
        ("a 421 greeting", scripted(&["421 4.3.2 scripted is busy\r\n"]), Theirs("421 4.3.2 scripted is busy")),
        ("a 554 greeting", scripted(&["554-not\n554 today\r\n"]), Theirs("554-not\n554 today")),
        ("MAIL refused", scripted(&[GREETING, WELCOME, "550 5.7.1 not you\r\n"]), Theirs("550 5.7.1 not you")),
        ("MAIL deferred", scripted(&[GREETING, WELCOME, "451 4.7.1 later\r\n"]), Theirs("451 4.7.1 later")),
        ("EHLO refused", scripted(&[GREETING, "502 what?\r\n"]), Theirs("502 what?")),
        ("RCPT refused", scripted(&[GREETING, WELCOME, OK, "550 5.1.1 who?\r\n"]), Theirs("550 5.1.1 who?")),
        ("closes without a word", scripted(&[]), Ours("without a greeting")),
        ("drops after RCPT", Box::new(drops_after_rcpt), Ours("closed it instead of answering")),
        ("answers early", scripted(&["220 scripted\r\n250 early\r\n"]), Ours("answered before it was asked")),
        ("speaks something else", scripted(&["SSH-2.0-scripted\r\n"]), Ours("sent what is no SMTP reply")),
    ];
    for (what, serve, answer) in cases {
        let backend = Backend::start(&net.edge, &[BACKEND.parse().unwrap()], serve);
        // The journal's file would come with the first session.
        let gate = Gate::start(&net, before_a_script(&net).set("journal.max_size", "0"));
        let before = descriptors(&gate);
        for _ in 0..3 {
            let mut client = as_far_as_rcpt(&net, STRANGER);
            let reply = client.reply();
            match answer {
                Theirs(text) => assert_eq!(reply, text, "{what}"),
                Ours(why) => {
                    assert_eq!(reply, COME_BACK, "{what}");
                    gate.wait_log(why);
                    client.command("RCPT TO:<inbox@example.test>", COME_BACK);
                    client.command("QUIT", "221 2.0.0 Bye");
                }
            }
            gate.wait_log(&format!("PASS NEW {}", client.name()));
        }
        gate.wait(&format!("{what}: no descriptor is lost"), || descriptors(&gate) <= before);
        drop(backend);
    }

    let gate = Gate::start(&net, before_a_script(&net));
    let mut client = as_far_as_rcpt(&net, STRANGER);
    assert_eq!(client.reply(), COME_BACK, "no mail server at all");
    gate.wait_log("cannot connect to backend 127.0.0.1:10025: Connection refused");
    gate.wait_log("NOQUEUE: reject: RCPT from [198.18.1.1]");
    client.command("QUIT", "221");
}

fn drops_after_rcpt(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    for answer in [GREETING, WELCOME, OK] {
        writer.write_all(answer.as_bytes())?;
        reader.read_line(&mut String::new())?;
    }
    Ok(())
}

/// A mail server that takes everything and keeps what it heard after the last line that was said again.
struct Recorder {
    _backend: Backend,
    heard: mpsc::Receiver<Vec<u8>>,
}

/// What a [`Recorder`] answers to RCPT, the client's end, and everything between.
const RECEIVED: &[u8] = b"250 2.1.5 recorded\r\n";
const LAST: &[u8] = b"\x80\x00 all of it\r\n";

impl Recorder {
    fn start(net: &Net) -> Self {
        let (sender, heard) = mpsc::channel();
        let backend = Backend::start(&net.edge, &[BACKEND.parse().unwrap()], move |stream| {
            let mut reader = BufReader::new(stream.try_clone()?);
            let mut writer = stream;
            for answer in [GREETING.as_bytes(), WELCOME.as_bytes(), OK.as_bytes(), RECEIVED] {
                writer.write_all(answer)?;
                let mut line = String::new();
                if answer != RECEIVED && (reader.read_line(&mut line)? == 0 || line == "QUIT\r\n") {
                    // The gate asks at its start what is announced here.
                    return Ok(());
                }
            }
            let mut heard = Vec::new();
            reader.read_to_end(&mut heard)?;
            drop(sender.send(heard));
            writer.write_all(LAST)
        });
        Self { _backend: backend, heard }
    }
}

#[test]
fn what_follows_arrives_byte_for_byte() {
    let Some(net) = Net::new() else { return };
    let recorder = Recorder::start(&net);
    // With pipelining allowed, what comes behind RCPT in the same segment is the mail server's as well.
    let _gate = Gate::start(&net, before_a_script(&net).set("pipelining.enable", "false"));
    let commands =
        prop::sample::select(vec![&b"BDAT 5 LAST\r\n\x80\xff\0\r\n"[..], b"DATA\r\n", b"\r\n.\r\n", b"QUIT\r\n"]);
    let pieces = vec(prop_oneof![vec(any::<u8>(), 0..3000), commands.prop_map(<[u8]>::to_vec)], 0..12);
    let mut runner = TestRunner::deterministic();
    for _ in 0..40 {
        let pieces = pieces.new_tree(&mut runner).unwrap().current();
        let mut client = greeted(&net, STRANGER);
        client.command("EHLO client.example.test", "250");
        client.command("MAIL FROM:<sender@client.example.test>", "250");
        let first = pieces.first().cloned().unwrap_or_default();
        client.send([b"RCPT TO:<inbox@example.test>\r\n", first.as_slice()].concat());
        for piece in pieces.iter().skip(1) {
            client.send(piece);
        }
        client.end_sending();
        assert_eq!(client.read_to_end(), [RECEIVED, LAST].concat());
        let heard = recorder.heard.recv_timeout(SOON).unwrap();
        assert!(heard == pieces.concat(), "the bytes changed on their way");
    }
}

#[test]
fn a_session_in_tls_goes_on_and_the_mail_server_is_told() {
    let Some(net) = Net::new().filter(|_| privilege::has_mail_programs()) else { return };
    let made = Certificate::make(net.directory());
    let header = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&header);
    let _backend = Backend::start(&net.edge, &[BACKEND.parse().unwrap()], move |mut stream| {
        let mut head = vec![0; 16];
        stream.read_exact(&mut head)?;
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
        stream.read_exact(&mut rest)?;
        *seen.lock().unwrap() = [head, rest].concat();
        let (mut reader, mut data) = (BufReader::new(stream.try_clone()?), false);
        stream.write_all(GREETING.as_bytes())?;
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            let answer = match line.trim_end() {
                "." => "250 2.0.0 taken in TLS\r\n",
                _ if data => "",
                "DATA" => "354 go on\r\n",
                hello if hello.starts_with("EHLO") => WELCOME,
                _ => OK,
            };
            data = (data || answer.starts_with("354")) && !answer.starts_with("250");
            stream.write_all(answer.as_bytes())?;
            line.clear();
        }
        Ok(())
    });
    let settings = before_a_script(&net)
        .text("forward.client_address", "proxy-v2")
        .text("tls.level", "encrypt")
        .text("tls.certificate", &made.certificate.display().to_string())
        .text("tls.key", &made.key.display().to_string());
    let gate = Gate::start(&net, settings);
    let said = swaks_in_tls(&net);
    assert!(said.contains("250 2.0.0 taken in TLS"), "{said}");
    gate.wait_log(&format!("PASS NEW [{SWAKS}]"));
    let header = header.lock().unwrap().clone();
    assert_eq!(header[16..20], [198, 18, 0, 9], "the client");
    assert_eq!(header[28], 0x20, "and how it is protected: {header:02x?}");
    let text = String::from_utf8_lossy(&header);
    assert!(text.contains("TLSv1.3") && text.contains("TLS_AES_"), "{text}");
    assert_eq!(gate.ask(&["status"])["connections"]["relayed_now"], 0);
}

#[test]
fn a_mail_server_that_trusts_the_gate_is_told_the_client() {
    let Some(net) = Net::new() else { return };
    let postfix =
        Postfix::start_with(&net, &[(BACKEND, "smtpd_authorized_xclient_hosts=127.0.0.1"), ("[::1]:10025", "")]);
    let _gate = Gate::start(&net, before_a_script(&net));
    let mut client = as_far_as_rcpt(&net, STRANGER);
    assert!(client.reply().starts_with("250"));
    client.command("DATA", "354");
    client.send("Subject: introduced\r\n\r\nbody\r\n");
    client.command(".", "250");
    client.quit();
    let mail = postfix.wait_mail(1);
    assert!(mail[0].contains(&format!("[{STRANGER}]")) && mail[0].contains("client.example.test"), "{}", mail[0]);
}

#[test]
fn no_more_is_announced_than_the_mail_server_announces() {
    let Some(net) = Net::new() else { return };
    let options = "smtpd_discard_ehlo_keywords=dsn,chunking -o message_size_limit=4321";
    let _postfix = Postfix::start_with(&net, &[(BACKEND, options)]);
    let gate = Gate::start(&net, before_a_script(&net));
    let ehlo = || greeted(&net, STRANGER).command("EHLO client.example.test", "250");
    let announced = ehlo();
    assert!(announced.contains("SIZE 4321\n") && announced.contains("8BITMIME"), "{announced}");
    assert!(!announced.contains("DSN") && !announced.contains("CHUNKING"), "{announced}");
    let status = gate.ask(&["status"]);
    assert_eq!(status["mail_servers"][0]["address"], BACKEND, "{status}");
    assert!(status["mail_servers"][0]["announces"].as_str().unwrap().contains("8BITMIME"), "{status}");
}
