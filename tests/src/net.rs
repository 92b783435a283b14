//! The topology of a test: an edge host and its clients.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use tempfile::TempDir;

use crate::{
    leftovers,
    middlebox::{TO_CLIENT, TO_EDGE},
    netns::Namespace,
    privilege,
};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// An edge host and client hosts, all of them namespaces, and a directory for the test's files.
///
/// Client host `n` shares the networks 198.(18+n).0.0/16 and 2001:2:n::/48 with the edge, whose own addresses end in 1.
#[derive(Debug)]
pub struct Net {
    /// The host with the mail server and the gate.
    pub edge: Namespace,
    /// The hosts of the clients.
    pub clients: Vec<Host>,
    directory: TempDir,
    id: String,
}

/// A host of clients, with as many addresses as the test asks for.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub namespace: Namespace,
    number: u8,
    addresses: Mutex<Vec<IpAddr>>,
}

impl Net {
    /// An edge with one client host; none where the machine can't do that and the test is to be skipped.
    #[must_use]
    pub fn new() -> Option<Self> {
        Self::with_clients(1)
    }

    /// An edge with `clients` client hosts.
    ///
    /// # Panics
    ///
    /// When the machine should be able to, and is not.
    #[must_use]
    pub fn with_clients(clients: u8) -> Option<Self> {
        if !privilege::ready() {
            return None;
        }
        leftovers::sweep();
        let id = leftovers::name(COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::Builder::new().prefix(&format!("{id}-")).tempdir().expect("a directory for the test");
        // Postfix and a gate without privileges have to get to their files.
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
        let edge = Namespace::new(format!("{id}-edge"));
        let clients = (0..clients).map(|number| Host::join(&edge, format!("{id}-client{number}"), number)).collect();
        Some(Self { edge, clients, directory, id })
    }

    /// The test's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A name that no other test of any run has: `mxs`, process, number.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The only client host of most tests.
    #[must_use]
    pub fn client(&self) -> &Host {
        &self.clients[0]
    }
}

impl Host {
    fn join(edge: &Namespace, name: String, number: u8) -> Self {
        let namespace = Namespace::new(name);
        edge.ip(&format!("link add mx{number} type veth peer name c0 netns {}", namespace.name()));
        let host = Self { namespace, number, addresses: Mutex::default() };
        host.bring_up(edge);
        host
    }

    /// Gives the edge its addresses on the wire to this host.
    fn bring_up(&self, edge: &Namespace) {
        let number = self.number;
        edge.ip(&format!("address add 198.{}.0.1/16 dev mx{number}", 18 + number));
        edge.ip(&format!("address add 2001:2:{number}::1/48 dev mx{number} nodad"));
        edge.ip(&format!("link set mx{number} up"));
        self.namespace.ip("link set c0 up");
        // Hosts of a machine with too much to do answer late, and the kernel gives up after three tries, one a second.
        for (namespace, device) in [(edge, format!("mx{number}")), (&self.namespace, "c0".to_owned())] {
            for family in ["ipv4", "ipv6"] {
                namespace.sysctl(&format!("net.{family}.neigh.{device}.mcast_solicit"), "30");
            }
        }
    }

    /// Leads the wire to the edge through another namespace, which has an interface for each half of it.
    pub(crate) fn rewire(&self, edge: &Namespace, through: &Namespace) {
        let (number, through) = (self.number, through.name());
        edge.ip(&format!("link del mx{number}"));
        edge.ip(&format!("link add mx{number} type veth peer name {TO_EDGE} netns {through}"));
        self.namespace.ip(&format!("link add c0 type veth peer name {TO_CLIENT} netns {through}"));
        self.bring_up(edge);
    }

    /// Port 25 of the edge as this host reaches it, in the family of `client`.
    #[must_use]
    pub fn edge(&self, client: IpAddr) -> SocketAddr {
        let address = match client {
            IpAddr::V4(_) => IpAddr::from([198, 18 + self.number, 0, 1]),
            IpAddr::V6(_) => IpAddr::from([0x2001, 2, u16::from(self.number), 0, 0, 0, 0, 1]),
        };
        SocketAddr::new(address, 25)
    }

    /// Gives the host this address, if it has not got it yet.
    pub fn adopt(&self, address: IpAddr) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.contains(&address) {
            return;
        }
        match address {
            IpAddr::V4(_) => self.namespace.ip(&format!("address add {address}/16 dev c0")),
            IpAddr::V6(_) => self.namespace.ip(&format!("address add {address}/48 dev c0 nodad")),
        }
        addresses.push(address);
    }
}
