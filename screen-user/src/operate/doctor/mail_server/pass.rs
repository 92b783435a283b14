//! The socket by which smtpd takes clients in mode `postfix`: looked at, and not visited.

use std::{fs, io, path::Path};

use rustix::fs::{Access, access};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Finding, Grade, finding};
use crate::forward::probe;

/// The socket of smtpd's `pass` service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pass {
    /// Somebody does.
    Listens,
    /// It is not there, or no socket.
    Missing(String),
    /// Nobody listens.
    Deserted,
    /// This user may not look.
    Closed(String),
}

impl Pass {
    pub(super) fn read(path: &Path) -> Self {
        if let Err(error) = access(path, Access::WRITE_OK)
            && error == rustix::io::Errno::ACCESS
        {
            return Self::Closed(error.to_string());
        }
        if let Some(why) = probe::no_socket(path) {
            return Self::Missing(why);
        }
        // smtpd logs one that connects and says nothing: only where nobody seems to listen it is tried.
        let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        if table.lines().any(|line| listens(line, path)) {
            return Self::Listens;
        }
        match try_connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Self::Deserted,
            _ => Self::Listens,
        }
    }
}

/// Never waits, as for a place in a full queue.
fn try_connect(path: &Path) -> io::Result<()> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?.connect(&SockAddr::unix(path)?)
}

/// Whether a line of /proc/net/unix is of a socket that listens at `path`. Postfix binds it by its name below the queue directory.
fn listens(line: &str, path: &Path) -> bool {
    /// `__SO_ACCEPTCON`
    const ACCEPTS: &str = "00010000";
    let mut fields = line.split_ascii_whitespace().skip(3);
    fields.next() == Some(ACCEPTS) && fields.nth(3).is_some_and(|bound| path.ends_with(bound))
}

pub(super) fn judge(path: &Path, state: &Pass) -> Finding {
    let shown = path.display();
    match state {
        Pass::Listens => finding(Grade::Fine, format!("{shown}: smtpd's pass service listens"), None),
        Pass::Missing(why) => {
            let what = format!("{shown}: smtpd's pass service is not there: {why}");
            finding(
                Grade::Wrong,
                what,
                Some(format!("in master.cf, {}; then postfix reload", probe::pass_service_line(path))),
            )
        }
        Pass::Deserted => finding(Grade::Wrong, format!("{shown}: nobody listens"), Some("postfix start".to_owned())),
        Pass::Closed(why) => {
            let what = format!("{shown}: this user may not look ({why})");
            finding(Grade::Unknown, what, Some("sudo mxscreen doctor".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pass_service_is_looked_at_and_not_visited() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("smtpd");
        let grade = |state: &Pass| judge(&path, state).grade;
        assert!(matches!(Pass::read(&path), Pass::Missing(_)));
        assert_eq!(grade(&Pass::read(&path)), Grade::Wrong);
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(Pass::read(&path), Pass::Listens);
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "nobody came");
        drop(listener);
        assert_eq!(Pass::read(&path), Pass::Deserted);
        assert_eq!(grade(&Pass::Deserted), Grade::Wrong);
    }

    #[test]
    fn sockets_that_listen_are_found_by_the_end_of_their_path() {
        let path = Path::new("/var/spool/postfix/private/smtpd");
        let line =
            |flags: &str, bound: &str| format!("0000000000000000: 00000002 00000000 {flags} 0001 01 12345 {bound}");
        assert!(listens(&line("00010000", "private/smtpd"), path));
        assert!(listens(&line("00010000", "/var/spool/postfix/private/smtpd"), path));
        for other in [line("00000000", "private/smtpd"), line("00010000", "vate/smtpd"), line("00010000", "")] {
            assert!(!listens(&other, path), "{other}");
        }
        assert!(!listens("Num       RefCount Protocol Flags    Type St Inode Path", path));
    }
}
