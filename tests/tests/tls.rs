//! STARTTLS in the dummy engine, as probes, attackers and an operator with a new certificate find it.

use std::{
    fs,
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use screen_tests::{
    certificate::Certificate,
    gate::{Gate, Settings},
    net::Net,
    privilege,
    wait::{SOON, wait_for},
};

const SERVER: &str = "198.18.0.1:25";

/// A gate that keeps every client in its dummy engine, with a certificate.
fn scene() -> Option<(Net, Certificate, Gate)> {
    let net = Net::new().filter(|_| privilege::has_mail_programs())?;
    net.client().adopt("198.18.0.9".parse().unwrap());
    let certificate = Certificate::make(net.directory());
    let settings = Settings::front(&net, "127.0.0.1:10025")
        .text("forward.client_address", "none")
        .text("tls.level", "may")
        .text("tls.certificate", &certificate.certificate.display().to_string())
        .text("tls.key", &certificate.key.display().to_string())
        .text("kernel.mode", "off")
        // nmap takes a greeting that comes in two parts for the greeting and its own reply.
        .text("pregreet.banner", "")
        // It also tries TLS from the first byte on, which is no SMTP and would end its visits.
        .text("kernel.remember_failures", "0s")
        .set("access.list", r#"[{ cidr = ["0.0.0.0/0 reject"] }]"#)
        .text("access.denylist_action", "enforce");
    let gate = Gate::start(&net, settings);
    Some((net, certificate, gate))
}

fn spawn(net: &Net, program: &str, words: &[&str]) -> Child {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    net.client().namespace.spawn(command).unwrap()
}

/// Runs a program to its end on the client host, and returns what it printed.
fn run(net: &Net, program: &str, words: &[&str]) -> String {
    let output = spawn(net, program, words).wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
    format!("{}{errors}", String::from_utf8_lossy(&output.stdout))
}

/// openssl's client in a session that lasts.
struct SClient {
    child: Child,
    heard: Arc<Mutex<String>>,
}

impl SClient {
    fn connect(net: &Net) -> Self {
        let words = ["s_client", "-starttls", "smtp", "-crlf", "-connect", SERVER, "-servername", "mx.example.test"];
        let mut child = spawn(net, "openssl", &words);
        let heard = Arc::new(Mutex::new(String::new()));
        let (mut output, writer) = (child.stdout.take().unwrap(), Arc::clone(&heard));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                writer.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        let client = Self { child, heard };
        client.wait("SSL handshake has read");
        client
    }

    fn heard(&self) -> String {
        self.heard.lock().unwrap().clone()
    }

    fn wait(&self, text: &str) {
        wait_for(&format!("openssl prints \"{text}\""), SOON, || self.heard().contains(text).then_some(()));
    }

    fn say(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

impl Drop for SClient {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn probes_get_their_answers() {
    let Some((net, certificate, gate)) = scene() else { return };
    let mut client = SClient::connect(&net);
    assert!(client.heard().contains(&certificate.text()), "openssl shows another certificate");
    client.say("EHLO probe.example.test");
    client.wait("250-mx.example.test\r\n");
    client.say("VRFY");
    client.wait("501 5.5.4 Syntax: VRFY address\r\n");
    // STARTTLS is not offered inside TLS.
    assert!(!client.heard().contains("250-STARTTLS"));
    client.say("quit");
    client.wait("221 2.0.0 Bye");

    let probe = ["-n", "-Pn", "-p25", "--script", "smtp-commands,ssl-cert,ssl-enum-ciphers", "198.18.0.1"];
    let said = run(&net, "nmap", &probe);
    assert!(said.contains("25/tcp open  smtp"), "{said}");
    assert!(said.contains("smtp-commands: mx.example.test") && said.contains("STARTTLS"), "{said}");
    assert!(said.contains("Subject: commonName=mx.example.test"), "{said}");
    assert!(said.contains("TLSv1.2:") && !said.contains("TLSv1.0:") && !said.contains("TLSv1.1:"), "{said}");
    assert!(gate.ask(&["status"])["connections"]["accepted"].as_u64().unwrap() > 2);
}

#[test]
fn a_new_certificate_is_for_new_sessions_and_a_broken_one_for_none() {
    let Some((net, old, gate)) = scene() else { return };
    let old_text = old.text();
    let mut standing = SClient::connect(&net);
    assert!(standing.heard().contains(&old_text));

    let new = Certificate::make(net.directory());
    assert_ne!(new.text(), old_text);
    gate.tell(&["reload"]);
    standing.say("NOOP");
    standing.wait("250 2.0.0 Ok");
    let after = SClient::connect(&net);
    assert!(after.heard().contains(&new.text()), "a new session gets the old certificate");

    fs::write(&new.key, "-----BEGIN PRIVATE KEY-----\nthis is no key\n-----END PRIVATE KEY-----\n").unwrap();
    let refused = gate.control(&["reload"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("key.pem"), "{said}");
    let later = SClient::connect(&net);
    assert!(later.heard().contains(&new.text()), "what was loaded last stays");
    standing.say("HELO still.example.test");
    standing.wait("250 mx.example.test");
}

/// Sends `argv[1]` (with its escapes) as one segment in plain text once greeted, then TLS on the same connection, and inside it
/// `argv[2]`; prints every reply that comes through TLS.
const INJECTOR: &str = r"
import socket, ssl, sys
plain, inside = (word.encode().decode('unicode_escape').encode() for word in sys.argv[1:3])
connection = socket.create_connection(('198.18.0.1', 25), 20)
heard = b''
while b'\n220 ' not in b'\n' + heard:
    heard += connection.recv(4096)
connection.sendall(plain)
reply = b''
while not reply.endswith(b'\n'):
    reply += connection.recv(1)
assert reply.startswith(b'220 '), reply
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
connection = context.wrap_socket(connection)
connection.sendall(inside)
heard = b''
while True:
    piece = connection.recv(4096)
    if not piece:
        break
    heard += piece
sys.stdout.write(heard.decode())
";

#[test]
fn plain_text_behind_starttls_is_never_heard_in_tls() {
    let Some((net, _, gate)) = scene() else { return };
    for (plain, inside, replies) in [
        // Whole commands: none of them is answered in TLS.
        (
            r"STARTTLS\r\nHELO injected\r\nVRFY <injected@example.test>\r\n",
            r"NOOP\r\nQUIT\r\n",
            "250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n",
        ),
        // Half a command: what comes in TLS does not complete it.
        (r"STARTTLS\r\nVRFY <injected@example.test> ", r"NOOP\r\nQUIT\r\n", "250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n"),
        // A whole transaction up to RCPT.
        (
            r"STARTTLS\r\nEHLO injected\r\nMAIL FROM:<injected@example.test>\r\n",
            r"RCPT TO:<inbox@example.test>\r\nQUIT\r\n",
            "503 5.5.1 Error: need MAIL command\r\n221 2.0.0 Bye\r\n",
        ),
    ] {
        assert_eq!(run(&net, "python3", &["-c", INJECTOR, plain, inside]), replies, "{plain}");
    }
    // It is known for what it is.
    assert_eq!(gate.logged("injected"), 3);
    assert_eq!(gate.logged("COMMAND PIPELINING"), 3);
    assert_eq!(gate.logged("NOQUEUE"), 0);
}
