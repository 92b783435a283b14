//! The network behind the edge hosts, by which they share what they know.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    net::Net,
    netns::{Namespace, run},
    wait::{SOON, wait_for},
};

/// Where the servers of the backplane are.
pub const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 5)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5))];

/// A host with a switch that edges are joined to, in the networks 192.0.2.0/24 and 2001:db8::/64. Clients do not get there.
#[derive(Debug)]
pub struct Backplane {
    /// The host.
    pub namespace: Namespace,
    directory: PathBuf,
}

impl Backplane {
    /// Joins the edges of these nets, each by an interface `back0` of its own.
    ///
    /// # Panics
    ///
    /// When `ip` refuses, or a directory can't be made.
    #[must_use]
    pub fn behind<'a>(nets: impl IntoIterator<Item = &'a Net>) -> Self {
        let nets: Vec<&Net> = nets.into_iter().collect();
        let first = nets.first().expect("an edge");
        let namespace = Namespace::new(format!("{}-back", first.id()));
        let directory = first.directory().join("back");
        std::fs::create_dir_all(&directory).expect("a directory for the backplane");
        namespace.ip("link add back0 type bridge");
        let [v4, v6] = ADDRESSES;
        namespace.ip(&format!("address add {v4}/24 dev back0"));
        namespace.ip(&format!("address add {v6}/64 dev back0 nodad"));
        namespace.ip("link set back0 up");
        for (number, net) in nets.iter().enumerate() {
            let port = port(number);
            net.edge.ip(&format!("link add back0 type veth peer name {port} netns {}", namespace.name()));
            net.edge.ip(&format!("address add 192.0.2.{}/24 dev back0", 101 + number));
            net.edge.ip(&format!("address add 2001:db8::{:x}/64 dev back0 nodad", 0x101 + number));
            net.edge.ip("link set back0 up");
            namespace.ip(&format!("link set {port} master back0 up"));
        }
        nets.iter().for_each(|net| wait_joined(&net.edge));
        Self { namespace, directory }
    }

    /// A directory for what runs here.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Has everything from and to an edge vanish, without a word to either side.
    ///
    /// # Panics
    ///
    /// When `bridge` refuses.
    pub fn cut(&self, edge: usize) {
        self.set_state(edge, "disabled");
    }

    /// Lets an edge that was cut off take part again.
    ///
    /// # Panics
    ///
    /// When `bridge` refuses.
    pub fn mend(&self, edge: usize) {
        self.set_state(edge, "forwarding");
    }

    fn set_state(&self, edge: usize, state: &str) {
        run("bridge", ["-n", self.namespace.name(), "link", "set", "dev", &port(edge), "state", state]);
    }
}

/// A port of the switch takes a while to notice that its wire is up.
#[track_caller]
fn wait_joined(edge: &Namespace) {
    for address in ADDRESSES {
        wait_for(&format!("the edge reaches {address}"), SOON, || {
            let knock = || TcpStream::connect_timeout(&SocketAddr::new(address, 1), Duration::from_secs(1));
            edge.enter(knock).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused).then_some(())
        });
    }
}

fn port(edge: usize) -> String {
    format!("edge{edge}")
}
