//! The gate on the edge host, as an operator would set it up.

use std::{
    fs::File,
    io::Read as _,
    net::IpAddr,
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::stage::EDGE;
use crate::{
    process::{self, Guarded},
    workspace,
};

/// The configuration; everything else is the default.
pub(super) const CONFIG: &str = r#"[access]
list = ["permit_mynetworks", "cidr:/etc/mxscreen/access.cidr"]
denylist_action = "drop"

[pregreet]
action = "drop"

[dnsbl]
sites = ["bl.example.test"]
action = "drop"
"#;

/// The permanent list that the configuration names.
pub(super) const ACCESS: &str = "192.0.2.128/25    reject\n2001:db8:bad::/48 reject\n";

const LOG: &str = "/run/mxscreen.log";
const CONTROL: &str = "/run/mxscreen/control.sock";

/// The running gate.
pub(super) struct Gate(Guarded);

impl Gate {
    /// Writes the configuration and starts the gate; ready when this returns.
    pub(super) fn start() -> Result<Self> {
        std::fs::create_dir_all("/etc/mxscreen").context("can't make /etc/mxscreen")?;
        std::fs::write("/etc/mxscreen/mxscreen.toml", CONFIG).context("can't write mxscreen.toml")?;
        std::fs::write("/etc/mxscreen/access.cidr", ACCESS).context("can't write access.cidr")?;
        // What the package's unit makes before it starts the gate.
        for folder in ["/run/mxscreen", "/var/lib/mxscreen"] {
            std::fs::create_dir_all(folder).with_context(|| format!("can't make {folder}"))?;
        }
        let log = File::create(LOG).context("can't make the gate's log")?;
        let copy = log.try_clone().context("can't share the gate's log")?;
        let mut command = EDGE.command(workspace::gate());
        command.arg("run").stdin(Stdio::null()).stdout(log).stderr(copy);
        let mut process = Guarded(command.spawn().context("can't start the gate")?);
        let begin = Instant::now();
        // The socket is there before the kernel half is; the line comes last.
        while UnixStream::connect(CONTROL).is_err() || !log_text().lines().any(|line| line.ends_with("]: ready")) {
            if process.0.try_wait().context("lost the gate")?.is_some() || begin.elapsed() > Duration::from_secs(20) {
                bail!("the gate did not start:\n{}", log_text());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self(process))
    }

    /// Takes it away for good, as an operator does, and waits for its end.
    pub(super) fn leave(mut self) -> Result<()> {
        command(&["stop", "--detach"])?;
        let begin = Instant::now();
        while self.0.0.try_wait().context("lost the gate")?.is_none() {
            if begin.elapsed() > Duration::from_secs(20) {
                bail!("the gate does not stop:\n{}", log_text());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// One of the gate's own commands, and what it prints.
pub(super) fn command(arguments: &[&str]) -> Result<String> {
    process::output(EDGE.command(workspace::gate()).args(arguments))
}

/// The gate's log lines about a client, without time and process.
pub(super) fn logged(client: IpAddr) -> Vec<String> {
    let marker = format!("[{client}]");
    log_text()
        .lines()
        .filter(|line| line.contains(&marker))
        .map(|line| line.split_once("]: ").map_or(line, |(_, text)| text).to_owned())
        .collect()
}

/// The first line about a client, after the first `skip`, that begins so. The gate answers a client before it writes about it.
pub(super) fn wait_logged(client: IpAddr, skip: usize, beginning: &str) -> Option<String> {
    let begin = Instant::now();
    loop {
        let line = logged(client).into_iter().skip(skip).find(|line| line.starts_with(beginning));
        if line.is_some() || begin.elapsed() > Duration::from_secs(3) {
            return line;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Everything that the gate has said.
pub(super) fn log_text() -> String {
    let mut text = String::new();
    // A log that can't be read shows as an empty one, beside whatever is to be reported.
    let _ = File::open(Path::new(LOG)).map(|mut file| file.read_to_string(&mut text));
    text
}

/// A pinned map as bpftool shows it.
pub(super) fn map(name: &str) -> Result<serde_json::Value> {
    let bpftool = process::find("bpftool").context("bpftool is missing")?;
    let path = format!("/sys/fs/bpf/mxscreen/maps/{name}");
    let text = process::output(Command::new(bpftool).args(["--json", "map", "dump", "pinned", &path]))?;
    serde_json::from_str(&text).with_context(|| format!("bpftool's dump of {path} is not JSON"))
}
