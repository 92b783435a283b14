//! Debian's postscreen as a contender: an instance of Postfix of its own, nothing under /etc or /var is touched.

use std::{
    fs::{self, File},
    net::TcpStream,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Group, Pid, User},
};

use super::{
    contender::Setting,
    ground::{self, SERVER},
    usage,
};
use crate::{
    process::{Guarded, output},
    workspace,
};

/// The name in greetings.
pub(super) const HOSTNAME: &str = "mx.example.test";
/// Where mail may go: it is taken and thrown away.
pub(super) const DESTINATION: &str = "destination.example.test";
/// Clients that either screener may hold at a time. Nine tenths of it begin its stress mode: out of reach of every measurement.
pub(super) const PRE_QUEUE: u32 = 100_000;
/// Clients that may wait for the mail server.
pub(super) const POST_QUEUE: u32 = 10_000;
/// The clients, where they are known to be good.
pub(super) const KNOWN: &str = "198.18.0.0/16";
/// Where the mail server behind the gate listens.
pub(super) const BACKEND: &str = "127.0.0.1:10025";

/// Where a Postfix stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind its own postscreen.
    Postscreen,
    /// Behind a gate, at [`BACKEND`].
    Behind,
    /// On the port itself.
    Port,
}

/// A running Postfix.
pub(super) struct Postfix(Guarded);

/// A Postfix with postscreen in front.
pub(super) struct Postscreen(Postfix);

impl Postscreen {
    /// Starts it with its files in `folder`.
    pub(super) fn start(setting: Setting, folder: &Path) -> Result<Self> {
        let postfix = Postfix::start(folder, setting, Place::Postscreen)?;
        // Postfix starts its services when the first client comes; that one must not be measured.
        let begin = Instant::now();
        while usage::children(postfix.pid(), "postscreen")?.is_empty() {
            if begin.elapsed() > Duration::from_secs(20) {
                bail!("postscreen did not start:\n{}", log_of(folder));
            }
            let knocked = ground::as_client(|| Ok(TcpStream::connect_timeout(&SERVER, Duration::from_secs(1)).is_ok()));
            thread::sleep(Duration::from_millis(if knocked? { 200 } else { 50 }));
        }
        Ok(Self(postfix))
    }

    /// The processes that screen.
    pub(super) fn screeners(&self) -> Result<Vec<u32>> {
        let mut pids = usage::children(self.0.pid(), "postscreen")?;
        pids.extend(usage::children(self.0.pid(), "dnsblog")?);
        Ok(pids)
    }

    /// The processes that write the log.
    pub(super) fn loggers(&self) -> Result<Vec<u32>> {
        usage::children(self.0.pid(), "postlogd")
    }
}

impl Postfix {
    /// Starts a Postfix with its files in `folder`.
    pub(super) fn start(folder: &Path, setting: Setting, place: Place) -> Result<Self> {
        lay_out(folder)?;
        let etc = folder.join("etc");
        fs::write(etc.join("main.cf"), main_cf(folder, setting)).context("can't write main.cf")?;
        fs::write(etc.join("master.cf"), master_cf(place)).context("can't write master.cf")?;
        let said = File::create(folder.join("output")).context("can't make a file for Postfix's output")?;
        let daemons = output(Command::new("postconf").args(["-d", "-h", "daemon_directory"]))?;
        let mut command = ground::server(Path::new(daemons.trim()).join("master"));
        command.arg("-c").arg(&etc).arg("-d").stdin(Stdio::null());
        command.stdout(said.try_clone().context("can't share Postfix's output")?).stderr(said);
        let mut postfix = Self(Guarded(command.spawn().context("can't start Postfix")?));
        let begin = Instant::now();
        while !log_of(folder).contains("daemon started") {
            if postfix.0.0.try_wait().context("lost Postfix")?.is_some() || begin.elapsed() > Duration::from_secs(20) {
                bail!("Postfix did not start:\n{}", log_of(folder));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(postfix)
    }

    /// Its first process; nsenter has become it.
    fn pid(&self) -> u32 {
        self.0.0.id()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // Left alone, postscreen would outlive its master for as long as it has clients, and keep the port.
        for pid in usage::children(self.pid(), "postscreen").unwrap_or_default() {
            let _ = i32::try_from(pid).map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        }
        // The master ends its other services before itself.
        if let Ok(pid) = i32::try_from(self.pid()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let begin = Instant::now();
        while matches!(self.0.0.try_wait(), Ok(None)) && begin.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What Postfix logged, and what it said before it could log.
fn log_of(folder: &Path) -> String {
    ["output", "maillog"].map(|name| fs::read_to_string(folder.join(name)).unwrap_or_default()).concat()
}

/// The directories with the owners that Postfix wants to see.
fn lay_out(folder: &Path) -> Result<()> {
    let postfix = User::from_name("postfix").ok().flatten().context("there is no account postfix")?;
    let postdrop = Group::from_name("postdrop").ok().flatten().context("there is no group postdrop")?;
    let make = |name: &str, mode: u32, uid: u32, gid: u32| -> Result<()> {
        let path = folder.join(name);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
        chown(&path, Some(uid), Some(gid))?;
        Ok(())
    };
    let (owner, drop) = (postfix.uid.as_raw(), postdrop.gid.as_raw());
    let queues = ["active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved"];
    make("etc", 0o755, 0, 0)
        .and_then(|()| make("queue", 0o755, 0, 0))
        .and_then(|()| queues.iter().try_for_each(|name| make(&format!("queue/{name}"), 0o700, owner, 0)))
        .and_then(|()| make("queue/pid", 0o755, 0, 0))
        .and_then(|()| make("queue/maildrop", 0o730, owner, drop))
        .and_then(|()| make("queue/public", 0o710, owner, drop))
        .and_then(|()| make("data", 0o755, owner, 0))
        .with_context(|| format!("can't make Postfix's directories in {}", folder.display()))
}

fn main_cf(folder: &Path, setting: Setting) -> String {
    let Setting { greet_wait, known, deep, .. } = setting;
    let mut text = format!(
        "compatibility_level = 3.6\n\
         queue_directory = {folder}/queue\n\
         data_directory = {folder}/data\n\
         maillog_file = {folder}/maillog\n\
         maillog_file_prefixes = {folder}\n\
         myhostname = {HOSTNAME}\n\
         mydestination = {DESTINATION}\n\
         local_recipient_maps =\n\
         alias_maps =\n\
         inet_interfaces = all\n\
         inet_protocols = ipv4\n\
         mynetworks = 127.0.0.0/8{known}\n\
         smtpd_peername_lookup = no\n\
         smtpd_tls_security_level = none\n\
         smtpd_client_connection_count_limit = 0\n\
         smtpd_recipient_restrictions = check_recipient_access static:DISCARD\n\
         in_flow_delay = 0\n\
         postscreen_access_list = {access}\n\
         postscreen_greet_wait = {greet_wait}s\n\
         postscreen_greet_action = enforce\n\
         postscreen_pre_queue_limit = {PRE_QUEUE}\n\
         postscreen_post_queue_limit = {POST_QUEUE}\n",
        folder = folder.display(),
        access = if known { "permit_mynetworks" } else { "" },
        greet_wait = greet_wait.max(1),
        known = if known { format!(", {KNOWN}") } else { String::new() },
    );
    if greet_wait == 0 {
        text += "postscreen_greet_banner =\n";
    }
    text.extend(deep.iter().map(|test| format!("postscreen_{test}_enable = yes\n")));
    text
}

fn master_cf(place: Place) -> String {
    let front = match place {
        Place::Postscreen => {
            format!("{}:{} inet n - n - 1 postscreen\nsmtpd pass - - n - 20 smtpd\n", SERVER.ip(), SERVER.port())
        }
        Place::Behind => format!("{BACKEND} inet n - n - 20 smtpd\n"),
        Place::Port => format!("{}:{} inet n - n - 20 smtpd\n", SERVER.ip(), SERVER.port()),
    };
    front
        + "dnsblog unix - - n - 0 dnsblog\n\
           tlsproxy unix - - n - 0 tlsproxy\n\
           cleanup unix n - n - 0 cleanup\n\
           rewrite unix - - n - - trivial-rewrite\n\
           anvil unix - - n - 1 anvil\n\
           proxymap unix - - n - - proxymap\n\
           postlog unix-dgram n - n - 1 postlogd\n"
}

/// The version of the Postfix that is compared with.
pub(super) fn version() -> Result<String> {
    Ok(output(Command::new("postconf").args(["-d", "-h", "mail_version"]).current_dir(workspace::root()))?
        .trim()
        .to_owned())
}
