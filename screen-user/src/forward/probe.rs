//! Whether the mail servers are there, asked once at start: the gate runs without them, and says so.

use std::{collections::BTreeSet, fs, os::unix::fs::FileTypeExt as _, path::Path, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use crate::config::{Backend, Config, Forward};

const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// `TCP_LISTEN` as /proc/net/tcp prints it.
const LISTEN: &str = "0A";

/// One sentence for each mail server that does not listen and is to take clients.
pub async fn unreachable(config: &Config) -> Vec<String> {
    let Forward { weights, .. } = &config.forward;
    let to = config.forward.relayed_to();
    let drained = |index: usize| weights.get(index) == Some(&0);
    let what_follows = if (0..to.len()).filter(|index| !drained(*index)).count() == 1 {
        "clients that pass are told to come back until one does"
    } else {
        "it is left out until one does"
    };
    let mut complaints = Vec::from_iter(config.forward.pass_service().and_then(no_pass_service));
    for (_, backend) in to.iter().enumerate().filter(|(index, _)| !drained(*index)) {
        match backend {
            Backend::Local => {
                let listening = listening_ports();
                for port in config.ports.iter().filter(|port| !listening.contains(port)) {
                    complaints.push(format!("no mail server listens on port {port} yet; {what_follows}"));
                }
            }
            // This host's own servers would log a visitor that says nothing.
            Backend::At(address) if address.ip().is_loopback() => {
                if !listening_ports().contains(&address.port()) {
                    complaints.push(format!("no mail server listens on {address} yet; {what_follows}"));
                }
            }
            Backend::Socket(path) => {
                if !fs::metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
                    complaints.push(format!("no mail server has made {} yet; {what_follows}", path.display()));
                }
            }
            Backend::At(address) => {
                if !matches!(timeout(PROBE_LIMIT, TcpStream::connect(address)).await, Ok(Ok(_))) {
                    complaints.push(format!("no mail server can be reached at {address} yet; {what_follows}"));
                }
            }
        }
    }
    complaints
}

fn no_pass_service(path: &Path) -> Option<String> {
    let why = no_socket(path)?;
    Some(format!(
        "smtpd's pass service is not at {} yet ({why}); clients that pass are told to come back until it is: it takes the line \
         `{}` in master.cf, and `postfix reload`",
        path.display(),
        pass_service_line(path)
    ))
}

/// Why there is no socket, if there is none. Postfix makes that of a service when it reads master.cf; a connect would only be tried by a client,
/// as smtpd logs one that says nothing.
#[must_use]
pub fn no_socket(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Ok(data) if data.file_type().is_socket() => None,
        Ok(_) => Some("it is no socket".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// The line of master.cf that makes the socket of smtpd's pass service.
#[must_use]
pub fn pass_service_line(path: &Path) -> String {
    format!("{} pass - - n - - smtpd", path.file_name().unwrap_or_default().display())
}

/// The TCP ports that somebody listens on in this network namespace.
///
/// Read from the kernel's table and not tried by a connect, which the mail server would log as a visitor.
fn listening_ports() -> BTreeSet<u16> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| table.lines().skip(1).filter_map(listening_port).collect::<Vec<_>>())
        .collect()
}

/// The port of one line of /proc/net/tcp, if its socket listens.
fn listening_port(line: &str) -> Option<u16> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let (_, port) = local.rsplit_once(':')?;
    (state == LISTEN).then(|| u16::from_str_radix(port, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_service_that_is_not_there_is_said_with_what_makes_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("smtpd");
        let complaint = no_pass_service(&path).unwrap();
        assert!(complaint.contains("(No such file or directory"), "{complaint}");
        assert!(complaint.ends_with("`smtpd pass - - n - - smtpd` in master.cf, and `postfix reload`"), "{complaint}");
        fs::write(&path, "").unwrap();
        assert!(no_pass_service(&path).unwrap().contains("(it is no socket)"));
        fs::remove_file(&path).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(no_pass_service(&path), None);
    }

    #[test]
    fn listening_sockets_are_found_and_others_are_not() {
        let listening = "   0: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0";
        let connected = "   1: 0100007F:0019 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1";
        assert_eq!(listening_port(listening), Some(25));
        assert_eq!(listening_port(connected), None);
        assert_eq!(listening_port("nonsense"), None);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(listening_ports().contains(&listener.local_addr().unwrap().port()));
    }
}
