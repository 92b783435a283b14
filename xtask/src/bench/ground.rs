//! Where a measurement takes place: one network namespace for the servers, one for all clients.

use std::{
    ffi::OsStr,
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::{process, workspace};

/// The prefix of the namespaces' names. They are seen in the sandbox alone.
const PREFIX: &str = "mxsbn";

/// Where the screener under test listens.
pub(super) const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(198, 19, 0, 2)), 25);

/// Clients with an address of their own that there is room for: 198.18.1.0 to 198.18.255.255.
pub(super) const CLIENTS: u32 = 255 * 256;

/// The address of client number `index`.
pub(super) fn client_address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 1, 0).to_bits() + index % CLIENTS)
}

/// Makes the namespaces.
pub(super) fn make() -> Result<()> {
    let script = workspace::root().join("tests/oracle/netns.sh");
    process::run(Command::new("sh").arg(script).args(["up", PREFIX]))
}

/// A command that runs where the servers are.
pub(super) fn server(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{PREFIX}-mx")).arg("--").arg(program);
    command
}

/// Runs a function where the clients are, in a thread of its own, to its end.
pub(super) fn as_client<T: Send>(function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let path = format!("/run/netns/{PREFIX}-cl");
            let namespace = File::open(&path).with_context(|| format!("can't open {path}"))?;
            setns(&namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("can't enter {path}"))?;
            function()
        });
        thread.join().map_err(|_| anyhow!("the clients' thread panicked"))?
    })
}
