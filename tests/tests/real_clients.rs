//! Programs that deliver mail everywhere deliver it through the gate: in plain text, with TLS after the dummy engine has tested them, and
//! with TLS in the same session in which it tests them.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use screen_tests::{
    certificate::Certificate,
    gate::{Gate, Settings},
    mta::{self, Mta},
    net::Net,
    postfix::Postfix,
    privilege,
    wait::{SOON, wait_for},
};

const BACKEND: &str = "127.0.0.1:10025";
/// The client host's own address.
const CLIENT: &str = "198.18.0.9";

/// How the client gets to the mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It waits for the greeting and is relayed, all in plain text.
    Plain,
    /// It takes the tests of the dummy engine inside TLS, is told 450, comes back, and has TLS with the mail server then.
    Tls,
    /// It takes them inside TLS and goes on to the mail server in the same session.
    Replayed,
}

impl Way {
    const ALL: [Self; 3] = [Self::Plain, Self::Tls, Self::Replayed];

    fn in_tls(self) -> bool {
        self != Self::Plain
    }
}

struct Scene {
    gate: Gate,
    postfix: Postfix,
    net: Net,
    way: Way,
}

impl Scene {
    fn set(way: Way) -> Option<Self> {
        let net = Net::new().filter(|_| privilege::has_mail_programs())?;
        net.client().adopt(CLIENT.parse().unwrap());
        let made = Certificate::make(net.directory());
        let (certificate, key) = (made.certificate.display().to_string(), made.key.display().to_string());
        let options = format!(
            "smtpd_tls_security_level=encrypt -o smtpd_tls_cert_file={certificate} -o smtpd_tls_key_file={key} -o smtpd_tls_loglevel=1"
        );
        let postfix = Postfix::start_with(&net, &[(BACKEND, if way == Way::Tls { &options } else { "" })]);
        let mut settings = Settings::front(&net, BACKEND)
            .text("forward.client_address", "none")
            .text("forward.steer", "off")
            .set("limits.client_connections", "0");
        if way == Way::Tls {
            settings = settings.text("forward.after_deep_tests", "reconnect");
        }
        if way.in_tls() {
            settings =
                settings.text("tls.level", "encrypt").text("tls.certificate", &certificate).text("tls.key", &key);
            for test in ["pipelining", "non_smtp_command", "bare_newline"] {
                settings = settings.set(&format!("{test}.enable"), "true").text(&format!("{test}.action"), "enforce");
            }
        }
        Some(Self { gate: Gate::start(&net, settings), postfix, net, way })
    }

    /// The message has come as it was sent, on the way that it was to take.
    fn assert_arrived(&self) {
        let mail = self.postfix.wait_mail(1);
        let (_, sent) = MESSAGE.split_once("\r\n\r\n").unwrap();
        let (_, arrived) = mail[0].split_once("\n\n").unwrap();
        assert_eq!(arrived, sent.replace("\r\n", "\n"), "the message changed on its way");
        self.gate.wait_log(&format!("PASS NEW [{CLIENT}]"));
        let refusals = self.gate.logged(": 450 4.3.2 Service currently unavailable; from=<sender@client.example.test>");
        match self.way {
            Way::Plain | Way::Replayed => {
                let seen = (refusals, self.postfix.logged("TLS connection established"), self.gate.logged("PASS OLD"));
                assert_eq!(seen, (0, 0, 0));
            }
            Way::Tls => {
                assert!(refusals > 0);
                self.gate.wait_log(&format!("PASS OLD [{CLIENT}]"));
                self.postfix.wait_log("TLS connection established from");
            }
        }
        for trouble in ["COMMAND PIPELINING", "NON-SMTP COMMAND", "BARE NEWLINE", "PREGREET", "HANGUP"] {
            assert_eq!(self.gate.logged(trouble), 0, "{trouble}");
        }
    }

    fn run(&self, program: &str, words: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.net.client().namespace.spawn(command).unwrap().wait_with_output().unwrap()
    }

    /// A program that makes one attempt: with TLS it is told to come back, and does.
    fn deliver_by(&self, program: &str, words: &[&str]) {
        if self.way == Way::Tls {
            let first = self.run(program, words);
            let said = text(&first);
            assert!(!first.status.success() && said.contains("450"), "{said}");
        }
        let last = self.run(program, words);
        assert!(last.status.success(), "{program}: {}", text(&last));
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// With everything in it that a client could get wrong: dots, long lines, lines that look like something else.
const MESSAGE: &str = concat!(
    "Subject: from a real client\r\nFrom: <sender@client.example.test>\r\nTo: <inbox@example.test>\r\n",
    "Message-ID: <1@client.example.test>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n\r\n",
    ".\r\n..\r\n.leading dot\r\n\r\nFrom here on\r\nQUIT\r\nRCPT TO:<nobody@example.test>\r\n  blanks in front\r\n",
    "a long line: 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 ",
    "0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789\r\n",
    "the end\r\n"
);

#[test]
fn swaks_delivers() {
    for way in Way::ALL {
        let Some(scene) = Scene::set(way) else { return };
        let file = scene.net.directory().join("message");
        // swaks takes lines as its own system writes them, and ends the last one by itself.
        fs::write(&file, MESSAGE.replace("\r\n", "\n").trim_end()).unwrap();
        let data = format!("@{}", file.display());
        let sender =
            ["--from", "sender@client.example.test", "--to", "inbox@example.test", "--helo", "client.example.test"];
        let mut words = vec!["--server", "198.18.0.1", "--data", &data, "--timeout", "20", "--suppress-data"];
        words.extend(sender);
        if way.in_tls() {
            words.push("--tls");
        }
        scene.deliver_by("swaks", &words);
        scene.assert_arrived();
    }
}

#[test]
fn python_delivers() {
    for way in Way::ALL {
        let Some(scene) = Scene::set(way) else { return };
        let file = scene.net.directory().join("message");
        fs::write(&file, MESSAGE).unwrap();
        let script = "
import smtplib, ssl, sys
message = open(sys.argv[1], 'rb').read()
with smtplib.SMTP('198.18.0.1', 25, local_hostname='client.example.test', timeout=20) as server:
    if sys.argv[2] == 'tls':
        context = ssl.create_default_context(cafile=sys.argv[3])
        context.check_hostname = False
        server.starttls(context=context)
    server.sendmail('sender@client.example.test', ['inbox@example.test'], message)
";
        let certificate = scene.net.directory().join("certificate.pem").display().to_string();
        let how = if way.in_tls() { "tls" } else { "plain" };
        scene.deliver_by("python3", &["-c", script, &file.display().to_string(), how, &certificate]);
        scene.assert_arrived();
    }
}

#[test]
fn postfix_delivers() {
    for way in Way::ALL {
        let Some(scene) = Scene::set(way) else { return };
        let sender = Postfix::relaying(&scene.net, way.in_tls());
        mta::submit(&scene.net, MESSAGE);
        scene.assert_arrived();
        sender.wait_log("status=sent");
        let connections = match way {
            Way::Plain => 0,
            Way::Tls => 2,
            Way::Replayed => 1,
        };
        assert_eq!(sender.logged("TLS connection established to"), connections);
    }
}

#[test]
fn exim_delivers() {
    for way in Way::ALL {
        let Some(scene) = Scene::set(way) else { return };
        let _exim = Mta::exim(&scene.net, way.in_tls());
        mta::submit(&scene.net, MESSAGE);
        scene.assert_arrived();
    }
}

#[test]
fn opensmtpd_delivers() {
    for way in Way::ALL {
        let Some(scene) = Scene::set(way) else { return };
        let opensmtpd = Mta::opensmtpd(&scene.net, way.in_tls());
        mta::submit(&scene.net, MESSAGE);
        if way == Way::Tls {
            scene.gate.wait_log("NOQUEUE: reject: RCPT");
            wait_for("OpenSMTPD comes back", SOON, || {
                opensmtpd.hurry();
                (scene.gate.logged("PASS OLD") > 0).then_some(())
            });
        }
        scene.assert_arrived();
    }
}
