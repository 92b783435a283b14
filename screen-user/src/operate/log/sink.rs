//! Where log lines go: standard error, a file, syslog or the journal; and in which form.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::Path,
};

use jiff::{Timestamp, tz::TimeZone};

use super::{Line, Part, Severity};
use crate::config::{self, LogTarget};

/// Syslog facility `mail` (RFC 5424 section 6.2.1).
const FACILITY_MAIL: u8 = 2;
/// Where syslog daemons listen.
const SYSLOG: &str = "/dev/log";
/// Where the journal takes its own protocol.
const JOURNALD: &str = "/run/systemd/journal/socket";

/// What lines are written to, and what stands before them.
#[derive(Debug)]
pub(super) enum Sink {
    Stderr { journal: bool, prefix: Prefix, buffer: Vec<u8> },
    File { file: File, prefix: Prefix, buffer: Vec<u8> },
    Datagram { path: &'static str, socket: UnixDatagram, journal: bool, prefix: Prefix },
}

/// Where lines go, opened.
#[derive(Debug)]
pub struct Target(pub(super) Sink);

impl Target {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// It can't be opened; the message names it.
    pub fn open(log: &config::Log) -> io::Result<Self> {
        Self::shared(log, std::process::id(), Self::descriptor(&log.target)?)
    }

    /// The file or socket that lines to `target` go to, opened; `None` for standard error, which everybody has.
    ///
    /// # Errors
    /// It can't be opened; the message names it.
    pub fn descriptor(target: &LogTarget) -> io::Result<Option<OwnedFd>> {
        Ok(match target {
            LogTarget::Stderr => None,
            LogTarget::File(path) => Some(append(path)?.into()),
            LogTarget::Syslog => Some(connected(SYSLOG)?.into()),
            LogTarget::Journald => Some(connected(JOURNALD)?.into()),
        })
    }

    /// The log of another process, of which this one is a part: under its number, and with the [descriptor](Target::descriptor) that it
    /// has opened.
    ///
    /// # Errors
    /// The descriptor is missing.
    pub fn shared(log: &config::Log, pid: u32, descriptor: Option<OwnedFd>) -> io::Result<Self> {
        Sink::open(log, pid, descriptor).map(Self)
    }
}

impl Sink {
    fn open(log: &config::Log, pid: u32, descriptor: Option<OwnedFd>) -> io::Result<Self> {
        let prefix = Prefix::new(pid, &log.name);
        let opened = descriptor.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the log's target is not open"));
        Ok(match &log.target {
            // systemd says by this variable that standard error is the journal, which adds time, host and name by itself.
            LogTarget::Stderr => {
                let journal = std::env::var_os("JOURNAL_STREAM").is_some();
                Self::Stderr { journal, prefix, buffer: Vec::new() }
            }
            LogTarget::File(_) => Self::File { file: opened?.into(), prefix, buffer: Vec::new() },
            LogTarget::Syslog => Self::Datagram { path: SYSLOG, socket: opened?.into(), journal: false, prefix },
            LogTarget::Journald => Self::Datagram { path: JOURNALD, socket: opened?.into(), journal: true, prefix },
        })
    }

    pub(super) const fn takes_fields(&self) -> bool {
        matches!(self, Self::Datagram { journal: true, .. })
    }

    pub(super) fn write(&mut self, line: &Line) {
        let text = &line.text;
        let word = match line.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
            Severity::Info | Severity::Debug => "",
        };
        match self {
            Self::Stderr { journal: true, buffer, .. } => {
                buffer.extend_from_slice(format!("<{}>{word}{text}\n", line.severity as u8).as_bytes());
            }
            Self::Stderr { prefix, buffer, .. } | Self::File { prefix, buffer, .. } => {
                prefix.refresh();
                let Prefix { text: time_and_host, pid, .. } = &*prefix;
                // Writing to a buffer in memory cannot fail.
                let _ = writeln!(buffer, "{time_and_host}{}[{pid}]: {word}{text}", prefix.program(line.part));
            }
            Self::Datagram { path, socket, journal, prefix } => {
                let message =
                    if *journal { journal_message(line, word, prefix) } else { syslog_message(line, word, prefix) };
                // The syslog daemon may have been restarted: its socket is a new one then. One try, and the line is lost.
                if socket.send(&message).is_err() && socket.connect(*path).is_ok() {
                    let _ = socket.send(&message);
                }
            }
        }
    }

    /// Bytes that wait for the next flush.
    pub(super) fn gathered(&self) -> usize {
        match self {
            Self::Stderr { buffer, .. } | Self::File { buffer, .. } => buffer.len(),
            Self::Datagram { .. } => 0,
        }
    }

    pub(super) fn flush(&mut self) {
        let result = match self {
            Self::Stderr { buffer, .. } => io::stderr().write_all(buffer).inspect(|()| buffer.clear()),
            Self::File { file, buffer, .. } => file.write_all(buffer).inspect(|()| buffer.clear()),
            Self::Datagram { .. } => Ok(()),
        };
        // A full disk must not become a full memory: what could not be written is gone.
        if let (Err(_), Self::Stderr { buffer, .. } | Self::File { buffer, .. }) = (result, self) {
            buffer.clear();
        }
    }

    /// Goes on to another target. The time zone stays: a process without files can't look it up again.
    pub(super) fn replace(&mut self, mut opened: Self) {
        self.flush();
        std::mem::swap(&mut self.prefix().zone, &mut opened.prefix().zone);
        *self = opened;
    }

    pub(super) const fn prefix(&mut self) -> &mut Prefix {
        match self {
            Self::Stderr { prefix, .. } | Self::File { prefix, .. } | Self::Datagram { prefix, .. } => prefix,
        }
    }
}

fn connected(path: &'static str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    Ok(socket)
}

/// Opens a log file, which is made if it is not there.
pub(super) fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// What stands before the text of a line. `text` is `Mon dd HH:MM:SS host `, made anew once a second.
#[derive(Debug)]
pub(super) struct Prefix {
    host: String,
    name: String,
    dnsblog: String,
    pub(super) pid: u32,
    second: i64,
    text: String,
    /// Held on to, as a process without files can't look it up again.
    zone: TimeZone,
}

impl Prefix {
    fn new(pid: u32, name: &str) -> Self {
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let host = host.split('.').next().unwrap_or_default().to_owned();
        let host = if host.is_empty() { "localhost".into() } else { host };
        Self {
            host,
            name: name.to_owned(),
            dnsblog: dnsblog(name),
            pid,
            second: i64::MIN,
            text: String::new(),
            zone: TimeZone::system(),
        }
    }

    fn program(&self, part: Part) -> &str {
        match part {
            Part::Gate => &self.name,
            Part::Dnsblog => &self.dnsblog,
        }
    }

    fn refresh(&mut self) {
        let now = Timestamp::now();
        if now.as_second() != self.second {
            self.second = now.as_second();
            self.text = format!("{} {} ", self.local(now), self.host);
        }
    }

    /// `Mon dd HH:MM:SS`, where this host is.
    fn local(&self, time: Timestamp) -> String {
        time.to_zoned(self.zone.clone()).strftime("%b %e %H:%M:%S").to_string()
    }
}

/// Beside `postfix/postscreen` it is `postfix/dnsblog`, and a part of a program whose name has no parts.
fn dnsblog(name: &str) -> String {
    format!("{}/dnsblog", name.rsplit_once('/').map_or(name, |(system, _)| system))
}

/// RFC 3164, as local syslog daemons take it: no host name.
fn syslog_message(line: &Line, word: &str, prefix: &Prefix) -> Vec<u8> {
    let priority = FACILITY_MAIL * 8 + line.severity as u8;
    let time = prefix.local(Timestamp::now());
    format!("<{priority}>{time} {}[{}]: {word}{}", prefix.program(line.part), prefix.pid, line.text).into_bytes()
}

/// The journal's native protocol: `NAME=value` lines. A line feed in a value would begin another field, so none is let through.
fn journal_message(line: &Line, word: &str, prefix: &Prefix) -> Vec<u8> {
    let mut message = format!(
        "PRIORITY={}\nSYSLOG_FACILITY={FACILITY_MAIL}\nSYSLOG_IDENTIFIER={}\nSYSLOG_PID={}\nMESSAGE={word}{}\n",
        line.severity as u8,
        prefix.program(line.part),
        prefix.pid,
        line.text.replace('\n', " ")
    );
    for (name, value) in &line.fields {
        message.push_str(&format!("{name}={}\n", value.replace('\n', " ")));
    }
    message.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_fields_stay_one_line_each() {
        let line = Line {
            part: Part::Gate,
            severity: Severity::Warning,
            text: "a\nb".into(),
            fields: vec![("MXSCREEN_CLIENT", "x\ny".into())],
        };
        let message = journal_message(&line, "warning: ", &Prefix::new(812, "mxscreen"));
        let text = String::from_utf8(message).unwrap();
        assert!(text.contains("\nSYSLOG_IDENTIFIER=mxscreen\nSYSLOG_PID=812\nMESSAGE=warning: a b\n"), "{text}");
        assert!(text.ends_with("MXSCREEN_CLIENT=x y\n"), "{text}");
    }

    #[test]
    fn whoever_asks_zones_has_a_name_of_its_own() {
        assert_eq!(dnsblog("mxscreen"), "mxscreen/dnsblog");
        assert_eq!(dnsblog("postfix/postscreen"), "postfix/dnsblog");
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = Target::open(&config::Log::to(LogTarget::File("/nonexistent/folder/log".into()))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/folder/log"), "{error}");
    }
}
