//! How a client that vanished is noticed: its host is gone, and no packet will ever say so.

use std::{fs, io, time::Duration};

use socket2::{Socket, TcpKeepalive};

/// How long a connection may be silent before its other end is asked for, how often, and how many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keepalive {
    idle: Duration,
    interval: Duration,
    probes: u32,
}

impl Keepalive {
    /// Five minutes in all. The kernel's own default is more than two hours, in which a vanished client would keep its place.
    const DEFAULT: Self = Self { idle: Duration::from_secs(120), interval: Duration::from_secs(30), probes: 6 };

    /// The shorter, value for value, of ours and what the host is set to (`net.ipv4.tcp_keepalive_*`, for IPv6 too).
    pub(super) fn of_this_host() -> Self {
        let set_to = |name: &str| -> Option<u32> {
            fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_keepalive_{name}")).ok()?.trim().parse().ok()
        };
        Self::DEFAULT.or_shorter(set_to("time"), set_to("intvl"), set_to("probes"))
    }

    fn or_shorter(self, idle: Option<u32>, interval: Option<u32>, probes: Option<u32>) -> Self {
        let shorter = |ours: Duration, host: Option<u32>| {
            host.map_or(ours, |seconds| ours.min(Duration::from_secs(seconds.max(1).into())))
        };
        Self {
            idle: shorter(self.idle, idle),
            interval: shorter(self.interval, interval),
            probes: probes.map_or(self.probes, |probes| self.probes.min(probes.max(1))),
        }
    }

    /// Sets what every connection gets that comes in by a listening socket (tcp(7): accepted sockets inherit it): this, the same limit
    /// for bytes that are not acknowledged, and no delay.
    ///
    /// # Errors
    /// The system does not know one of the options.
    pub(super) fn set(self, socket: &Socket) -> io::Result<()> {
        let keepalive = TcpKeepalive::new().with_time(self.idle).with_interval(self.interval).with_retries(self.probes);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_nodelay(true)?;
        // It also decides when probes have been unanswered for too long (tcp(7)), so it has to be their sum.
        socket.set_tcp_user_timeout(Some(self.idle + self.interval * self.probes))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};

    use socket2::{Domain, Type};

    use super::*;

    #[test]
    fn accepted_sockets_inherit_it() {
        let keepalive = Keepalive::DEFAULT;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        keepalive.set(&socket).unwrap();
        socket.listen(1).unwrap();
        let _client = TcpStream::connect(socket.local_addr().unwrap().as_socket().unwrap()).unwrap();
        let (accepted, _) = socket.accept().unwrap();
        assert!(accepted.keepalive().unwrap());
        assert!(accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), keepalive.idle);
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), keepalive.interval);
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), keepalive.probes);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(Duration::from_secs(300)));
    }

    #[test]
    fn the_host_may_be_stricter_and_not_laxer() {
        let ours = Keepalive::DEFAULT;
        assert_eq!(ours.or_shorter(Some(7200), Some(75), Some(9)), ours);
        assert_eq!(ours.or_shorter(None, None, None), ours);
        let strict = ours.or_shorter(Some(2), Some(1), Some(0));
        assert_eq!(strict, Keepalive { idle: Duration::from_secs(2), interval: Duration::from_secs(1), probes: 1 });
    }
}
