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

/// Where programs that are no crowd come from; no client of a crowd does.
const PROGRAM: &str = "198.18.0.1";

/// Clients with an address of their own that there is room for: 198.18.1.0 to 198.18.255.255.
pub(super) const CLIENTS: u32 = 255 * 256;

/// The address of client number `index`.
pub(super) fn client_address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 1, 0).to_bits() + index % CLIENTS)
}

/// Makes the namespaces.
pub(super) fn make() -> Result<()> {
    let script = workspace::root().join("tests/oracle/netns.sh");
    process::run(Command::new("sh").arg(script).args(["up", PREFIX]))?;
    let route = ["route", "replace", "198.19.0.0/16", "via", "198.51.100.1", "src", PROGRAM];
    process::run(Command::new("ip").args(["-n", &format!("{PREFIX}-cl")]).args(route))
}

/// A command that runs where the servers are.
pub(super) fn server(program: impl AsRef<OsStr>) -> Command {
    command("mx", program)
}

/// A command that runs where the clients are. It comes from [`PROGRAM`], unless it binds another address.
pub(super) fn client(program: impl AsRef<OsStr>) -> Command {
    command("cl", program)
}

fn command(side: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{PREFIX}-{side}")).arg("--").arg(program);
    command
}

/// Runs a function where the clients are, in a thread of its own, to its end.
pub(super) fn as_client<T: Send>(function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    inside("cl", function)
}

/// Runs a function where the servers are, in a thread of its own, to its end.
pub(super) fn as_server<T: Send>(function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    inside("mx", function)
}

fn inside<T: Send>(side: &str, function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let path = format!("/run/netns/{PREFIX}-{side}");
            let namespace = File::open(&path).with_context(|| format!("can't open {path}"))?;
            setns(&namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("can't enter {path}"))?;
            function()
        });
        thread.join().map_err(|_| anyhow!("a thread in {PREFIX}-{side} panicked"))?
    })
}
