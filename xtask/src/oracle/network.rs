//! Where the gates and the clients of a run stand: a pair of network namespaces, or the loopback net.

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::process;

/// The prefix of the namespaces' names. They are seen in the sandbox alone.
const PREFIX: &str = "mxsor";

/// The ground of one run.
#[derive(Debug)]
pub(super) struct Network {
    namespaces: bool,
}

/// The addresses of one group's server, by role.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    /// The main IPv4 address.
    pub(super) mx: SocketAddr,
    /// The IPv6 address.
    pub(super) mx6: Option<SocketAddr>,
    /// The second IPv4 address.
    pub(super) alt: SocketAddr,
    /// The mail server behind it.
    pub(super) backend: SocketAddr,
}

impl Network {
    /// Two network namespaces with all the addresses of the scenarios, made by their own script.
    pub(super) fn namespaces(tools: &Path) -> Result<Self> {
        process::run(Command::new("sh").arg(tools.join("netns.sh")).args(["up", PREFIX]))?;
        Ok(Self { namespaces: true })
    }

    /// The host's own loopback net, which any user may use.
    pub(super) fn loopback() -> Self {
        Self { namespaces: false }
    }

    /// A command that runs where the servers are.
    pub(super) fn server(&self, program: impl AsRef<OsStr>) -> Command {
        self.command("mx", program)
    }

    /// A command that runs where the clients are.
    pub(super) fn client(&self, program: impl AsRef<OsStr>) -> Command {
        self.command("cl", program)
    }

    fn command(&self, side: &str, program: impl AsRef<OsStr>) -> Command {
        if !self.namespaces {
            return Command::new(program);
        }
        // Not `ip netns exec`: that would hide the mounts under /sys.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{PREFIX}-{side}")).arg("--").arg(program);
        command
    }

    /// The addresses of the server number `ordinal`.
    pub(super) fn addresses(&self, ordinal: u8) -> Result<Addresses> {
        if self.namespaces {
            let v4 = |last| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 19, ordinal, last)), 25);
            let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x19, ordinal.into(), 0, 0, 0, 2);
            return Ok(Addresses {
                mx: v4(2),
                mx6: Some(SocketAddr::new(IpAddr::V6(v6), 25)),
                alt: v4(3),
                backend: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 20_000 + u16::from(ordinal)),
            });
        }
        let at = |last| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 19, ordinal, last)), 0);
        Ok(Addresses { mx: free_port(at(2))?, mx6: None, alt: free_port(at(3))?, backend: free_port(at(4))? })
    }

    /// Where the DNS server listens.
    pub(super) fn resolver(&self) -> Result<SocketAddr> {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        if self.namespaces {
            return Ok(SocketAddr::new(localhost, 5353));
        }
        let socket = UdpSocket::bind((localhost, 0)).context("no free port for the DNS server")?;
        socket.local_addr().context("no free port for the DNS server")
    }

    /// Prefixes of addresses as the scenarios write them, and as they are here.
    pub(super) fn mapped(&self) -> Vec<(String, String)> {
        if self.namespaces {
            return Vec::new();
        }
        // The clients are on the loopback net themselves, so that "the loopback net is ours" must not mean all of it.
        [("198.18.", "127.18."), ("127.0.0.0/8", "127.0.0.0/16")]
            .map(|(from, to)| (from.to_owned(), to.to_owned()))
            .into()
    }
}

/// The address with a port that nobody uses right now.
fn free_port(address: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| format!("no free port on {}", address.ip()))?;
    listener.local_addr().with_context(|| format!("no free port on {}", address.ip()))
}
