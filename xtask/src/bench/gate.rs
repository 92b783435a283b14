//! The gate as a contender: before the mail server, without its kernel part, which would take the screener's work away; or beside it
//! with its kernel part alone at work.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    contender::Setting,
    ground::{self, SERVER},
    postscreen::{self, KNOWN, Place, Postfix},
    usage,
};
use crate::{
    process::{self, Guarded},
    workspace,
};

/// The running gate, and the mail server behind it.
pub(super) struct Gate {
    process: Guarded,
    _backend: Option<Postfix>,
}

impl Gate {
    /// Starts it with its files in `folder`.
    pub(super) fn start(setting: Setting, folder: &Path) -> Result<Self> {
        let backend =
            setting.mail_server.then(|| Postfix::start(&folder.join("postfix"), setting, Place::Behind)).transpose()?;
        Self::launch(folder, &settings(setting, folder), backend)
    }

    /// Starts it as a mere relay to whatever listens at [`postscreen::BACKEND`]: every client of [`KNOWN`] is permitted.
    pub(super) fn start_as_relay(folder: &Path) -> Result<Self> {
        let setting = Setting { greet_wait: 1, known: true, deep: &[], mail_server: false };
        Self::launch(folder, &settings(setting, folder), None)
    }

    /// Starts it in place, with its kernel part, beside a mail server that is there: the clients of [`KNOWN`] are steered to it.
    pub(super) fn start_in_place(folder: &Path) -> Result<Self> {
        fs::write(folder.join("known.cidr"), format!("{KNOWN} permit\n")).context("can't write known.cidr")?;
        Self::launch(folder, &settings_in_place(folder), None)
    }

    fn launch(folder: &Path, settings: &str, backend: Option<Postfix>) -> Result<Self> {
        let config = folder.join("mxscreen.toml");
        fs::write(&config, settings).with_context(|| format!("can't write {}", config.display()))?;
        let output = File::create(folder.join("output")).context("can't make a file for the gate's output")?;
        let mut command = ground::server(workspace::gate());
        command.arg("run").arg("--config").arg(&config).stdin(Stdio::null());
        command.stdout(output.try_clone().context("can't share the gate's output")?).stderr(output);
        let mut process = Guarded(command.spawn().context("can't start the gate")?);
        let begin = Instant::now();
        // The control socket answers a little before the gate is ready; its line in the log comes last.
        while UnixStream::connect(control(folder)).is_err() || !is_ready(folder) {
            if process.0.try_wait().context("lost the gate")?.is_some() || begin.elapsed() > Duration::from_secs(20) {
                bail!("the gate did not start:\n{}", fs::read_to_string(folder.join("output")).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { process, _backend: backend })
    }

    /// Takes it and its programs away for good, and waits for its end.
    pub(super) fn leave(mut self, folder: &Path) -> Result<()> {
        let mut command = ground::server(workspace::gate());
        process::run(command.args(["--control".as_ref(), control(folder).as_os_str()]).args(["stop", "--detach"]))?;
        let begin = Instant::now();
        while self.process.0.try_wait().context("lost the gate")?.is_none() {
            if begin.elapsed() > Duration::from_secs(40) {
                bail!("the gate does not stop");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The screener's process: the keeper, which nsenter has become, does nothing for clients.
    pub(super) fn pid(&self) -> Result<u32> {
        usage::children(self.process.0.id(), "mxscreen")?.first().copied().context("the gate has no screener")
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let screener = self.pid();
        // It may have ended by itself.
        let _ = self.process.0.kill();
        let _ = self.process.0.wait();
        // Without its keeper the screener ends by itself, and until then it has the port.
        let begin = Instant::now();
        while screener.as_ref().is_ok_and(|pid| usage::is_running(*pid)) && begin.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Where the control socket of a gate is.
pub(super) fn control(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

fn is_ready(folder: &Path) -> bool {
    fs::read_to_string(folder.join("log")).is_ok_and(|log| log.lines().any(|line| line.ends_with("]: ready")))
}

fn settings(setting: Setting, folder: &Path) -> String {
    let Setting { greet_wait, known, deep, .. } = setting;
    let mut text = format!(
        r#"hostname = "{host}"
layout = "front"
listen = ["{SERVER}"]
[access]
list = [{access}]
[pregreet]
wait = "{wait}s"
stress_wait = "{wait}s"
action = "enforce"
{banner}
[limits]
pre_queue = {pre_queue}
post_queue = {post_queue}
[cache]
backend = "memory"
[forward]
to = ["{backend}"]
client_address = "none"
[kernel]
mode = "off"
[state]
directory = "{folder}/state"
[control]
socket = "{control}"
[log]
target = "file:{folder}/log"
"#,
        host = postscreen::HOSTNAME,
        access = if known { format!("{{ cidr = [\"{KNOWN} permit\"] }}") } else { String::new() },
        wait = greet_wait.max(1),
        banner = if greet_wait == 0 { "banner = \"\"" } else { "" },
        pre_queue = postscreen::PRE_QUEUE,
        post_queue = postscreen::POST_QUEUE,
        backend = postscreen::BACKEND,
        folder = folder.display(),
        control = control(folder).display(),
    );
    text.extend(deep.iter().map(|test| format!("[{test}]\nenable = true\n")));
    text
}

fn settings_in_place(folder: &Path) -> String {
    format!(
        r#"hostname = "{host}"
layout = "in-place"
[access]
list = ["cidr:{folder}/known.cidr"]
[cache]
backend = "memory"
[state]
directory = "{folder}/state"
[control]
socket = "{control}"
[log]
target = "file:{folder}/log"
"#,
        host = postscreen::HOSTNAME,
        folder = folder.display(),
        control = control(folder).display(),
    )
}
