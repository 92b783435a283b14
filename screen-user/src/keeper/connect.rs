//! Connections to the mail server's Unix sockets, whose directory is the mail server's alone: the keeper may enter it, the screener may not.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::{config::Backend, operate::exit::Failure};

/// Connects to the stream socket at `path`, if that is one of the mail servers in `to`. Never waits: where the queue of the one who listens is
/// full, the kernel says so at once. The descriptor does not block either.
pub(super) fn connect_to(to: &[Backend], path: &Path) -> Result<OwnedFd, Failure> {
    let named = to.iter().any(|backend| matches!(backend, Backend::Socket(socket) if socket == path));
    if !named {
        return Err(Failure::usage("forward.to does not name it"));
    }
    try_connect(path).map_err(|error| Failure::of_system(&error))
}

fn try_connect(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(socket.as_fd(), &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::{UnixListener, UnixStream},
    };

    use super::*;

    fn backends(path: &Path) -> [Backend; 2] {
        [Backend::Local, Backend::Socket(path.to_owned())]
    }

    #[test]
    fn what_the_configuration_names_is_connected_to_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("smtpd");
        let listener = UnixListener::bind(&path).unwrap();
        let mut connected = UnixStream::from(connect_to(&backends(&path), &path).unwrap());
        listener.accept().unwrap().0.write_all(b"x").unwrap();
        connected.read_exact(&mut [0; 1]).unwrap();

        let other = directory.path().join("other");
        let _other = UnixListener::bind(&other).unwrap();
        for refused in [other, directory.path().join("./smtpd/../other"), directory.path().join("x/../smtpd")] {
            let failure = connect_to(&backends(&path), &refused).unwrap_err();
            assert_eq!(failure.message, "forward.to does not name it", "{refused:?}");
        }
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn failures_come_at_once_and_say_why() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("smtpd");
        let failure = || connect_to(&backends(&path), &path).unwrap_err().message;
        assert!(failure().starts_with("No such file or directory"), "{}", failure());
        let listener = UnixListener::bind(&path).unwrap();
        // A queue of no length holds one.
        rustix::net::listen(&listener, 0).unwrap();
        let _waiting = connect_to(&backends(&path), &path).unwrap();
        assert!(failure().starts_with("Resource temporarily unavailable"), "{}", failure());
        drop(listener);
        assert!(failure().starts_with("Connection refused"), "{}", failure());
    }
}
