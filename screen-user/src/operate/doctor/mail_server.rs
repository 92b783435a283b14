//! Whether the mail servers take clients as the gate brings them: PROXY headers, the client's address, and what a stranger may do.

mod pass;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

use self::pass::Pass;
use super::finding::{Finding, Grade};
use crate::{
    config::{Backend, ClientAddress, Config},
    forward::{
        examine::{self, Door, Examined, Manner, Met, Relaying, Served},
        stream::Stream,
    },
    kernel::RelayGuard,
    operate::request::{self, Request},
    screen::event::Endpoints,
};

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long a running gate may take for its visits.
const VISITS: Duration = Duration::from_secs(120);

/// What was found out about the mail servers.
#[derive(Debug)]
pub(super) struct MailServers {
    way: ClientAddress,
    /// Why nothing is known.
    unknown: Option<String>,
    examined: Vec<Examined>,
    /// Why no gate has made the visits, where only a gate can show the mail server a client.
    no_gate: Option<String>,
    /// Where Postfix takes sockets, and what is wrong with that.
    pass: Option<(PathBuf, Pass)>,
}

impl MailServers {
    pub(super) fn read(config: &Config) -> Self {
        let way = config.forward.client_address;
        let pass = config.forward.pass_service().map(|path| (path.to_owned(), Pass::read(path)));
        let mut no_gate = None;
        let examined = match way {
            ClientAddress::Kernel => by_the_gate(&config.control_socket).or_else(|why| {
                no_gate = Some(why);
                from_here(config)
            }),
            ClientAddress::ProxyV2 | ClientAddress::ProxyV1 | ClientAddress::None => from_here(config),
        };
        let (examined, unknown) = match examined {
            Ok(examined) => (examined, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        Self { way, unknown, examined, no_gate, pass }
    }
}

fn by_the_gate(control: &Path) -> Result<Vec<Examined>, String> {
    let answer = request::ask_within(control, &Request::Examine, VISITS).map_err(|failure| failure.message)?;
    serde_json::from_value(answer).map_err(|error| error.to_string())
}

fn from_here(config: &Config) -> Result<Vec<Examined>, String> {
    super::wait(examine::all(config, &Arc::new(ThisHost)))
}

/// Connects as any program of this host.
struct ThisHost;

impl Door for ThisHost {
    async fn open(&self, server: &Backend, _: &Endpoints) -> Result<(Stream, Option<RelayGuard>), String> {
        let connecting = async {
            match server {
                Backend::At(address) => TcpStream::connect(address).await.map(Stream::Tcp),
                Backend::Socket(path) => UnixStream::connect(path).await.map(Stream::Unix),
                Backend::Local => Err(io::ErrorKind::AddrNotAvailable.into()),
            }
        };
        match timeout(CONNECT_LIMIT, connecting).await {
            Ok(Ok(stream)) => Ok((stream, None)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", CONNECT_LIMIT.as_secs())),
        }
    }
}

const fn finding(grade: Grade, what: String, mend: Option<String>) -> Finding {
    Finding { subject: "mail server", grade, what, mend }
}

pub(super) fn judge(servers: &MailServers) -> Vec<Finding> {
    let mut findings = Vec::from_iter(servers.pass.as_ref().map(|(path, state)| pass::judge(path, state)));
    if let Some(why) = &servers.unknown {
        findings.push(finding(Grade::Unknown, format!("mail servers can't be visited: {why}"), None));
    }
    for examined in &servers.examined {
        findings.extend(one(examined, servers.way, servers.no_gate.as_deref()));
    }
    findings
}

fn one(examined: &Examined, way: ClientAddress, no_gate: Option<&str>) -> Vec<Finding> {
    let server = &examined.server;
    if let [(_, Met::Unreachable(why))] = examined.visits.as_slice() {
        return vec![finding(Grade::Wrong, format!("{server} can't be reached: {why}"), Some(look_at(server)))];
    }
    let manner = Manner::of(way);
    let agreed = agreement(examined, manner);
    let is_agreed = agreed.grade == Grade::Fine;
    let mut findings = vec![agreed];
    if let Some(served) = examined.served(manner).filter(|_| is_agreed) {
        match no_gate {
            Some(why) => {
                let what = format!(
                    "{server}: whom it takes clients for can't be seen, as only a running gate can show it one: {why}"
                );
                findings.push(finding(Grade::Unknown, what, Some("systemctl start mxscreen".to_owned())));
            }
            None => {
                findings.extend(address(examined, served, way));
                findings.push(relaying(examined, served, way));
            }
        }
    }
    findings
}

/// Whether it expects of a client what the gate says.
fn agreement(examined: &Examined, manner: Manner) -> Finding {
    let server = &examined.server;
    let bare = examined.served(Manner::Bare);
    let headers = [Manner::ProxyV2, Manner::ProxyV1];
    let taken = headers.into_iter().find(|header| examined.served(*header).is_some());
    match (manner, bare, taken) {
        (Manner::Bare, Some(_), _) => {
            finding(Grade::Fine, format!("{server} greets without a PROXY header, and is sent none"), None)
        }
        (Manner::Bare, None, Some(header)) => {
            let what = format!("{server} waits for a PROXY header, and the gate sends none");
            finding(Grade::Wrong, what, Some(key(header)))
        }
        (_, Some(served), _) => {
            let what =
                format!("{server} greets without a PROXY header: it takes the one that the gate sends for commands");
            finding(Grade::Wrong, what, Some(expect_header(examined, served, manner)))
        }
        (_, None, Some(header)) if header == manner => {
            let sent = version(manner);
            finding(Grade::Fine, format!("{server} waits for a PROXY header of version {sent}, and takes it"), None)
        }
        (_, None, Some(header)) => {
            let (takes, sent) = (version(header), version(manner));
            let what = format!("{server} takes a PROXY header of version {takes}, and not of version {sent}");
            finding(Grade::Wrong, what, Some(key(header)))
        }
        (_, None, None) => unserved(examined, manner),
    }
}

fn unserved(examined: &Examined, manner: Manner) -> Finding {
    let server = &examined.server;
    let met = examined.met(manner).or_else(|| examined.visits.last().map(|(_, met)| met));
    if let Some(Met::Turned(said)) = met
        && said.starts_with('5')
    {
        let what =
            format!("{server} turns away a client of {}, so that no more is seen: \"{said}\"", examined.stranger);
        return finding(Grade::Note, what, None);
    }
    let did = match met {
        Some(Met::Unreachable(why)) => format!("can't be connected to: {why}"),
        Some(Met::Failed(what)) => format!("took the connection and {what}"),
        Some(Met::Turned(said)) => format!("said \"{said}\""),
        _ => "says nothing".to_owned(),
    };
    let what = format!("{server} serves nobody, with or without a PROXY header: it {did}");
    finding(Grade::Wrong, what, Some(look_at(server)))
}

/// Whom it takes the client for, if it has said so or can't know.
fn address(examined: &Examined, served: &Served, way: ClientAddress) -> Option<Finding> {
    let (server, stranger) = (&examined.server, examined.stranger);
    if way == ClientAddress::None {
        // Worse is told by what it relays.
        let accepted = served.relaying == Relaying::Accepted;
        let what = format!("{server} takes every client for this host, and can't tell one from the other");
        return (!accepted).then(|| finding(Grade::Note, what, Some(show(examined, served, way))));
    }
    let sees = served.sees?;
    if sees == stranger {
        return Some(finding(Grade::Fine, format!("{server} sees the client's address"), None));
    }
    let what = format!("{server} takes the client {stranger} for {sees}");
    Some(finding(Grade::Wrong, what, Some(show(examined, served, way))))
}

fn relaying(examined: &Examined, served: &Served, way: ClientAddress) -> Finding {
    let server = &examined.server;
    match &served.relaying {
        Relaying::Refused(said) => {
            finding(Grade::Fine, format!("{server} does not relay for a client that passes: \"{said}\""), None)
        }
        Relaying::Accepted if way == ClientAddress::None => {
            let what = format!(
                "{server} relays for everybody who passes: it takes all clients for this host, and this host for one of its own"
            );
            finding(Grade::Wrong, what, Some(show(examined, served, way)))
        }
        Relaying::Accepted => {
            let what = format!(
                "{server} relays for everybody who passes: it takes {} for one of its own clients",
                examined.stranger
            );
            finding(Grade::Wrong, what, Some(own_clients(served)))
        }
        Relaying::Untold(why) => {
            finding(Grade::Unknown, format!("{server}: whether it relays for strangers can't be told: {why}"), None)
        }
    }
}

const fn version(header: Manner) -> u8 {
    match header {
        Manner::ProxyV1 => 1,
        Manner::ProxyV2 | Manner::Bare => 2,
    }
}

/// The line of the gate's configuration that sends this header.
fn key(header: Manner) -> String {
    format!("in the configuration, forward.client_address = \"proxy-v{}\"", version(header))
}

/// The line of the mail server's configuration by which it takes a header.
fn header_line(examined: &Examined, served: &Served) -> String {
    if served.greeting.contains("Exim") {
        let from = examined.from.map_or_else(|| "*".to_owned(), |from| from.to_string());
        format!("in Exim's configuration, hosts_proxy = {from} (Debian has that in exim4-daemon-heavy)")
    } else if served.greeting.contains("OpenSMTPD") {
        "in smtpd.conf, proxy-v2 at the end of this listener's line".to_owned()
    } else {
        "in master.cf, below this listener's line, -o smtpd_upstream_proxy_protocol=haproxy".to_owned()
    }
}

fn expect_header(examined: &Examined, served: &Served, manner: Manner) -> String {
    let line = header_line(examined, served);
    let is_version_2_alone = served.greeting.contains("OpenSMTPD") && manner == Manner::ProxyV1;
    if is_version_2_alone { format!("{line}, and {}", key(Manner::ProxyV2)) } else { line }
}

/// What shows it the client.
fn show(examined: &Examined, served: &Served, way: ClientAddress) -> String {
    let is_here = examined.server.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
    if is_here && way == ClientAddress::None {
        "in the configuration, forward.client_address = \"kernel\"".to_owned()
    } else {
        format!("{}, and {}", key(Manner::ProxyV2), header_line(examined, served))
    }
}

/// The line that tells the mail server whom it relays for.
fn own_clients(served: &Served) -> String {
    if served.greeting.contains("Exim") {
        "in Exim's configuration, hostlist relay_from_hosts = 127.0.0.1 : ::1".to_owned()
    } else if served.greeting.contains("OpenSMTPD") {
        "in smtpd.conf, `match from local` in place of `match from any` where mail is relayed".to_owned()
    } else {
        "postconf mynetworks='127.0.0.0/8 [::1]/128' && postfix reload".to_owned()
    }
}

/// The command that shows who listens there.
fn look_at(server: &str) -> String {
    match server.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => format!("ss -ltnp 'sport = :{}'", address.port()),
        Ok(address) => format!("nc -zv {} {}", address.ip(), address.port()),
        Err(_) => format!("ss -lxp 'src {server}'"),
    }
}

#[cfg(test)]
mod tests;
