//! Who listens where: the mail server on the protected port, and nobody where the gate is to.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use super::finding::{Finding, Grade};
use crate::{
    config::{Config, Layout},
    kernel::{Listener, listeners},
    net::listener::try_address,
};

/// What listens, and what is to.
#[derive(Debug)]
pub(super) struct Ports {
    /// The protected ports, where the mail server listens on them.
    shared: Vec<u16>,
    /// The user, besides root, whose listeners are the mail server's.
    steer_uid: u32,
    listeners: Result<Vec<Listener>, String>,
    /// Whether the host has global addresses, of IPv4 and of IPv6.
    families: [bool; 2],
    /// What the gate is to have; nothing while one has it.
    own: Vec<Own>,
}

/// An address that the gate is to listen on.
#[derive(Debug)]
struct Own {
    key: &'static str,
    address: SocketAddr,
    /// Why it can't, and which process has it, if that can be seen.
    taken: Option<(String, Option<Process>)>,
}

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    id: u32,
    name: String,
}

impl Ports {
    /// `runs`: a gate does, and has what it needs.
    pub(super) fn read(config: &Config, runs: bool) -> Self {
        let listeners = listeners().map_err(|error| error.to_string());
        let there = listeners.as_deref().unwrap_or_default();
        let wanted = config.listen.iter().map(|address| ("listen", *address));
        let wanted = wanted.chain(config.metrics_listen.iter().map(|address| ("metrics.listen", *address)));
        let own = wanted.filter(|_| !runs).map(|(key, address)| Own {
            key,
            address,
            taken: try_address(address).err().map(|error| (error.to_string(), holder(there, &error, address))),
        });
        Self {
            shared: if config.layout == Layout::InPlace { config.ports.clone() } else { Vec::new() },
            steer_uid: config.forward.steer_uid,
            families: families(),
            own: own.collect(),
            listeners,
        }
    }
}

/// Whether this network namespace has global addresses, of IPv4 and of IPv6.
fn families() -> [bool; 2] {
    let mut found = [false, false];
    for interface in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address else { continue };
        if let Some(own) = address.as_sockaddr_in() {
            found[0] |= !own.ip().is_loopback() && !own.ip().is_link_local();
        } else if let Some(own) = address.as_sockaddr_in6() {
            found[1] |= !own.ip().is_loopback() && !own.ip().is_unicast_link_local();
        }
    }
    found
}

/// The process that has the address, or one that overlaps with it.
fn holder(listeners: &[Listener], error: &io::Error, address: SocketAddr) -> Option<Process> {
    if error.kind() != io::ErrorKind::AddrInUse {
        return None;
    }
    let mut on_port = listeners.iter().filter(|listener| listener.address.port() == address.port());
    let overlaps = |listener: &&Listener| {
        let theirs = listener.address.ip();
        theirs == address.ip() || theirs.is_unspecified() || address.ip().is_unspecified()
    };
    process_with(on_port.find(overlaps)?.inode)
}

/// The process that has the socket with this number among its descriptors (proc_pid_fd(5)).
fn process_with(inode: u32) -> Option<Process> {
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    entries(Path::new("/proc")).find_map(|process| {
        let id = process.file_name().to_str()?.parse().ok()?;
        let has = entries(&process.path().join("fd")).any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == socket));
        let name = || fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        has.then(|| Process { id, name: name().trim_end().to_owned() })
    })
}

const fn finding(grade: Grade, what: String, mend: Option<String>) -> Finding {
    Finding { subject: "ports", grade, what, mend }
}

pub(super) fn judge(ports: &Ports) -> Vec<Finding> {
    let mut findings: Vec<Finding> = ports.own.iter().map(own).collect();
    match &ports.listeners {
        Err(why) => {
            findings.push(finding(Grade::Unknown, format!("the kernel does not tell who listens: {why}"), None));
        }
        Ok(listeners) => findings.extend(ports.shared.iter().flat_map(|port| shared(ports, listeners, *port))),
    }
    findings
}

fn own(own: &Own) -> Finding {
    let Own { key, address, taken } = own;
    match taken {
        None => finding(Grade::Fine, format!("{address} is free ({key})"), None),
        // The socket unit's: the gate is handed it.
        Some((_, Some(Process { id: 1, name }))) => {
            finding(Grade::Fine, format!("{address} is held by {name}, which hands it over ({key})"), None)
        }
        Some((why, process)) => {
            let by = process.as_ref().map(|Process { id, name }| format!(", which {name} (process {id}) has"));
            let what = format!("the gate can't listen on {address}{} ({key}): {why}", by.unwrap_or_default());
            finding(Grade::Wrong, what, Some(format!("ss -ltnp 'sport = :{}'", address.port())))
        }
    }
}

/// Whom of the outside the mail server hears on a port that it shares with the gate. That somebody listens there at all is another subject.
fn shared(ports: &Ports, listeners: &[Listener], port: u16) -> Vec<Finding> {
    let mut findings = Vec::new();
    let on_port = || listeners.iter().filter(move |listener| listener.address.port() == port);
    let trusted = |listener: &&Listener| listener.uid == 0 || listener.uid == ports.steer_uid;
    for Listener { address, uid, .. } in on_port().filter(|listener| !trusted(listener)) {
        let what = format!(
            "{address} was bound by user {uid}, who is neither root nor forward.steer_user: no client is sent there"
        );
        findings.push(finding(Grade::Wrong, what, Some(format!("id -nu {uid} # for forward.steer_user"))));
    }
    let servers: Vec<IpAddr> = on_port().filter(trusted).map(|listener| listener.address.ip()).collect();
    if servers.is_empty() {
        return findings;
    }
    let hears = |of_family: fn(&IpAddr) -> bool| {
        // `[::]` hears IPv4 as well.
        servers
            .iter()
            .any(|server| of_family(server) && !server.is_loopback() || server.is_ipv6() && server.is_unspecified())
    };
    let tells = format!("ss -ltnp 'sport = :{port}'");
    let postfix = "postconf -e inet_interfaces=all inet_protocols=all && systemctl restart postfix";
    for (there, family, of_family, grade) in [
        (ports.families[0], "IPv4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool, Grade::Wrong),
        (ports.families[1], "IPv6", IpAddr::is_ipv6, Grade::Note),
    ] {
        if there && !hears(of_family) {
            let what =
                format!("the mail server hears nobody by {family} on port {port}, as it listens on no such address");
            findings.push(finding(grade, what, Some(format!("{tells}; with Postfix: {postfix}"))));
        }
    }
    if findings.is_empty() {
        findings.push(finding(Grade::Fine, format!("the mail server listens on port {port}"), None));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn ports(listening: &[(&str, u32)]) -> Ports {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let one = listeners().unwrap().into_iter().find(|listener| listener.address == address).unwrap();
        let there = listening.iter().map(|(address, uid)| {
            let mut listener = one;
            (listener.address, listener.uid) = (address.parse().unwrap(), *uid);
            listener
        });
        Ports {
            shared: vec![25],
            steer_uid: 105,
            listeners: Ok(there.collect()),
            families: [true, true],
            own: Vec::new(),
        }
    }

    fn grades(listening: &[(&str, u32)]) -> Vec<Grade> {
        judge(&ports(listening)).into_iter().map(|finding| finding.grade).collect()
    }

    #[test]
    fn a_mail_server_hears_the_outside() {
        assert_eq!(grades(&[("0.0.0.0:25", 0), ("[::]:25", 105)]), [Grade::Fine]);
        assert_eq!(grades(&[("[::]:25", 0)]), [Grade::Fine]);
        assert_eq!(grades(&[("192.0.2.1:25", 0), ("[2001:db8::1]:25", 0)]), [Grade::Fine]);
        assert_eq!(grades(&[("127.0.0.1:25", 0), ("[::1]:25", 0)]), [Grade::Wrong, Grade::Note]);
        assert_eq!(grades(&[("0.0.0.0:25", 0)]), [Grade::Note]);
        assert_eq!(grades(&[("0.0.0.0:25", 1_000), ("[::]:25", 0)]), [Grade::Wrong]);
        assert!(grades(&[("0.0.0.0:2525", 0)]).is_empty());
    }

    #[test]
    fn who_has_an_address_is_found() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let error = try_address(address).unwrap_err();
        let process = holder(&listeners().unwrap(), &error, address).unwrap();
        assert_eq!(process.id, std::process::id());
        let taken = own(&Own { key: "listen", address, taken: Some((error.to_string(), Some(process))) });
        assert_eq!(taken.grade, Grade::Wrong);
        assert_eq!(taken.mend, Some(format!("ss -ltnp 'sport = :{}'", address.port())));
        let systemd = Process { id: 1, name: "systemd".into() };
        assert_eq!(
            own(&Own { key: "listen", address, taken: Some((String::new(), Some(systemd))) }).grade,
            Grade::Fine
        );
        drop(socket);
        assert!(try_address(address).is_ok());
    }
}
