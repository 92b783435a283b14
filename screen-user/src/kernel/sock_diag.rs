//! TCP sockets, and the accept queues of those that listen, as `ss -tan` shows them (sock_diag(7)). Takes no privileges.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use nix::sys::socket::SockProtocol;

use super::netlink::{dump, number};

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// What it is bound to.
    pub address: SocketAddr,
    /// The kernel's name for it, which no other socket ever has.
    pub(super) cookie: u64,
    /// Connections that wait to be accepted.
    pub(super) waiting: u32,
    /// The backlog that was asked for.
    pub(super) backlog: u32,
    /// The user who made it.
    pub uid: u32,
    /// By which number processes have it among their descriptors.
    pub inode: u32,
}

impl Listener {
    /// Whether the kernel drops the next SYN: it takes one connection more than the backlog.
    pub(super) const fn is_full(&self) -> bool {
        self.waiting > self.backlog
    }
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u8 = 10;
/// `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, and the ends and interface asked for, all zero here.
const REQUEST: usize = 56;
/// Places in `struct inet_diag_msg`.
const PORT: usize = 4;
const ADDRESS: usize = 8;
const COOKIE: usize = 44;
const WAITING: usize = 56;
const BACKLOG: usize = 60;
const UID: usize = 64;
const INODE: usize = 68;

/// Every TCP socket of this thread's network namespace that listens.
///
/// # Errors
/// The kernel does not tell.
pub fn listeners() -> io::Result<Vec<Listener>> {
    sockets(1 << TCP_LISTEN, listener)
}

/// The own end of every TCP connection of this thread's network namespace, those that are only being made too.
pub(super) fn connections() -> io::Result<Vec<SocketAddr>> {
    sockets(!(1 << TCP_LISTEN), own_end)
}

/// What `read` makes of the sockets in these states, a bit each.
fn sockets<T>(states: u32, read: impl Fn(&[u8]) -> Option<T> + Copy) -> io::Result<Vec<T>> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let mut request = [0; REQUEST];
        request[0] = family;
        request[1] = IPPROTO_TCP;
        request[4..8].copy_from_slice(&states.to_ne_bytes());
        found.extend(dump(SockProtocol::NetlinkSockDiag, SOCK_DIAG_BY_FAMILY, SOCK_DIAG_BY_FAMILY, &request, read)?);
    }
    Ok(found)
}

fn own_end(body: &[u8]) -> Option<SocketAddr> {
    let address: IpAddr = match *body.first()? {
        AF_INET => Ipv4Addr::from(*body.get(ADDRESS..)?.first_chunk::<4>()?).into(),
        AF_INET6 => Ipv6Addr::from(*body.get(ADDRESS..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    let port = u16::from_be_bytes(*body.get(PORT..)?.first_chunk()?);
    Some(SocketAddr::new(address.to_canonical(), port))
}

fn listener(body: &[u8]) -> Option<Listener> {
    let address = own_end(body)?;
    // Two words, the lower one first, in host order each.
    let low = number(body.get(COOKIE..)?)?;
    let high = number(body.get(COOKIE + 4..)?)?;
    Some(Listener {
        address,
        cookie: u64::from(high) << 32 | u64::from(low),
        waiting: number(body.get(WAITING..)?)?,
        backlog: number(body.get(BACKLOG..)?)?,
        uid: number(body.get(UID..)?)?,
        inode: number(body.get(INODE..)?)?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn queues_are_told_as_they_are() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = TcpListener::bind(address).unwrap();
            let address = socket.local_addr().unwrap();
            let told = || listeners().unwrap().into_iter().find(|listener| listener.address == address);
            let empty = told().unwrap();
            assert_eq!((empty.waiting, empty.uid), (0, nix::unistd::geteuid().as_raw()));
            assert!(empty.backlog > 2 && !empty.is_full());
            let waiting = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
            let connections = connections().unwrap();
            assert!(waiting.iter().all(|stream| connections.contains(&stream.local_addr().unwrap())));
            assert_eq!(connections.iter().filter(|end| **end == address).count(), 2, "a listener is no connection");
            assert_eq!(told(), Some(Listener { waiting: 2, ..empty }));
            drop(socket);
            assert_eq!(told(), None);
        }
    }

    #[test]
    fn answers_cut_anywhere_are_none() {
        let mut body = [0; 72];
        body[0] = AF_INET;
        body[PORT..PORT + 2].copy_from_slice(&25_u16.to_be_bytes());
        body[ADDRESS..ADDRESS + 4].copy_from_slice(&[192, 0, 2, 1]);
        body[COOKIE..COOKIE + 4].copy_from_slice(&7_u32.to_ne_bytes());
        body[COOKIE + 4..COOKIE + 8].copy_from_slice(&1_u32.to_ne_bytes());
        body[WAITING..WAITING + 4].copy_from_slice(&101_u32.to_ne_bytes());
        body[BACKLOG..BACKLOG + 4].copy_from_slice(&100_u32.to_ne_bytes());
        body[UID..UID + 4].copy_from_slice(&105_u32.to_ne_bytes());
        body[INODE..INODE + 4].copy_from_slice(&9_u32.to_ne_bytes());
        let full = Listener {
            address: "192.0.2.1:25".parse().unwrap(),
            cookie: 1 << 32 | 7,
            waiting: 101,
            backlog: 100,
            uid: 105,
            inode: 9,
        };
        assert_eq!(listener(&body), Some(full));
        assert!(full.is_full() && !Listener { waiting: 100, ..full }.is_full());
        for length in 0..INODE + 4 {
            assert_eq!(listener(&body[..length]), None, "{length}");
        }
    }
}
