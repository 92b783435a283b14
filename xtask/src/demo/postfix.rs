//! Debian's Postfix on the edge host, configured and started as its package does it.

use std::{
    os::unix::net::UnixDatagram,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::stage::{EDGE, HOSTNAME};
use crate::process;

/// What the host's programs say to syslog.
#[derive(Debug, Clone, Default)]
pub(super) struct Syslog {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Syslog {
    /// Listens on the sandbox's `/dev/log`.
    pub(super) fn listen() -> Result<Self> {
        let socket = UnixDatagram::bind("/dev/log").context("can't listen on /dev/log")?;
        process::run(Command::new("chmod").args(["666", "/dev/log"]))?;
        let syslog = Self::default();
        let lines = Arc::clone(&syslog.lines);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
                if let Ok(mut lines) = lines.lock() {
                    // The number in front is facility and severity.
                    lines.push(text.split_once('>').map_or(text.as_str(), |(_, text)| text).trim_end().to_owned());
                }
            }
        });
        Ok(syslog)
    }

    /// All lines so far that hold this text.
    pub(super) fn with(&self, text: &str) -> Vec<String> {
        self.lines
            .lock()
            .map(|lines| lines.iter().filter(|line| line.contains(text)).cloned().collect())
            .unwrap_or_default()
    }

    /// Waits a while for a line with this text.
    pub(super) fn wait_for(&self, text: &str) -> Option<String> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            if let Some(line) = self.with(text).into_iter().next() {
                return Some(line);
            }
            thread::sleep(Duration::from_millis(50));
        }
        None
    }
}

/// Writes the configuration that the package makes for an internet site and starts Postfix with the package's own script.
pub(super) fn start() -> Result<()> {
    process::run(Command::new("rm").args(["-rf", "/etc/postfix/main.cf", "/etc/postfix/master.cf"]))?;
    let mut main = read("/usr/share/postfix/main.cf.debian")?;
    main.push_str(&read("/usr/share/postfix/main.cf.tls")?);
    std::fs::write("/etc/postfix/main.cf", main).context("can't write main.cf")?;
    std::fs::copy("/usr/share/postfix/master.cf.dist", "/etc/postfix/master.cf").context("can't write master.cf")?;
    std::fs::write("/etc/aliases", "postmaster: root\nroot: nobody\n").context("can't write /etc/aliases")?;
    // The answers to the package's questions for the type "Internet Site".
    process::run(
        Command::new("postconf")
            .arg("-e")
            .args([
                "smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination",
                "alias_maps = hash:/etc/aliases",
                "alias_database = hash:/etc/aliases",
                "relayhost =",
                "mynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128",
                "mailbox_size_limit = 0",
                "recipient_delimiter = +",
                "inet_interfaces = all",
                "inet_protocols = all",
            ])
            .arg(format!("myhostname = {HOSTNAME}"))
            .arg("mydestination = $myhostname, localhost"),
    )?;
    // Installing the package makes these folders.
    process::run(Command::new("install").args(["-d", "-m", "755", "/var/spool/postfix"]))?;
    process::run(Command::new("install").args([
        "-d",
        "-m",
        "700",
        "-o",
        "postfix",
        "-g",
        "postfix",
        "/var/lib/postfix",
    ]))?;
    process::output(&mut Command::new("newaliases"))?;
    process::output(EDGE.command("postfix").arg("set-permissions").env("MAIL_CONFIG", "/etc/postfix")).ok();
    process::output(EDGE.command("/usr/lib/postfix/configure-instance.sh").arg("-"))?;
    process::output(EDGE.command("postfix").arg("start"))?;
    wait_until_it_listens()
}

fn read(file: &str) -> Result<String> {
    std::fs::read_to_string(file)
        .with_context(|| format!("can't read {file}, which Debian's package of Postfix brings"))
}

fn wait_until_it_listens() -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(20) {
        if process::output(EDGE.command("ss").args(["-Hlnt", "sport = :25"])).is_ok_and(|text| !text.trim().is_empty())
        {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!("Postfix does not listen on port 25")
}
