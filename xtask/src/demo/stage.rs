//! The stage: an edge host, some clients, and an internet between them, each in a network namespace of the sandbox.

use std::{
    ffi::OsStr,
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns},
};

use crate::{process, sandbox};

/// The host name of the mail server.
pub(super) const HOSTNAME: &str = "mx.example.test";

/// The mail server's IPv4 address.
pub(super) const EDGE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 25);

/// The mail server's IPv6 address.
pub(super) const EDGE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x25, 0, 0, 0, 0, 0x25);

/// A host on the stage; its namespace has its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host(pub(super) &'static str);

/// Where the mail server and the gate are.
pub(super) const EDGE: Host = Host("mxs-edge");

/// What all packets between the hosts pass.
const INTERNET: Host = Host("mxs-internet");

impl Host {
    /// A command that runs on this host.
    pub(super) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).arg("--").arg(program);
        command
    }

    /// Runs a function on this host, in a thread of its own.
    pub(super) fn thread<T: Send + 'static>(
        self,
        function: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        thread::spawn(move || {
            let path = format!("/run/netns/{}", self.0);
            let namespace = File::open(&path).with_context(|| format!("can't open {path}"))?;
            setns(&namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("can't enter {path}"))?;
            function()
        })
    }
}

/// The mail server as a client with such an address reaches it.
pub(super) fn server_for(client: IpAddr) -> SocketAddr {
    match client {
        IpAddr::V4(_) => SocketAddr::new(IpAddr::V4(EDGE_V4), 25),
        IpAddr::V6(_) => SocketAddr::new(IpAddr::V6(EDGE_V6), 25),
    }
}

/// Makes the sandbox a machine of its own as far as files go: what the programs write is gone with it.
pub(super) fn private_files() -> Result<()> {
    std::fs::create_dir_all("/run/own/etc").context("can't make /run/own")?;
    process::run(Command::new("cp").args(["-a", "/etc/.", "/run/own/etc"]))?;
    bind(Path::new("/run/own/etc"), Path::new("/etc"))?;
    private_devices()?;
    for (folder, mode) in [("/var/lib", 0o755), ("/var/spool", 0o755), ("/var/mail", 0o1777)] {
        std::fs::create_dir_all(folder).with_context(|| format!("can't make {folder}"))?;
        sandbox::tmpfs(Path::new(folder), "mode=755")?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode))
            .with_context(|| format!("can't open {folder}"))?;
    }
    sandbox::bpffs()?;
    nix::unistd::sethostname(HOSTNAME).context("can't set the host name")?;
    std::fs::write("/etc/mailname", format!("{HOSTNAME}\n")).context("can't write /etc/mailname")?;
    std::fs::write("/etc/hostname", format!("{HOSTNAME}\n")).context("can't write /etc/hostname")?;
    std::fs::write(
        "/etc/hosts",
        format!("127.0.0.1 localhost\n::1 localhost\n{EDGE_V4} {HOSTNAME}\n{EDGE_V6} {HOSTNAME}\n"),
    )
    .context("can't write /etc/hosts")?;
    std::fs::write("/etc/resolv.conf", "nameserver 127.0.0.1\n").context("can't write /etc/resolv.conf")
}

/// A `/dev` with the few devices that programs need, so that `/dev/log` can be the demonstration's own.
fn private_devices() -> Result<()> {
    let own = Path::new("/run/own/dev");
    std::fs::create_dir_all(own).context("can't make /run/own/dev")?;
    for device in ["null", "zero", "full", "random", "urandom", "tty"] {
        let file = own.join(device);
        File::create(&file).with_context(|| format!("can't make {}", file.display()))?;
        bind(&Path::new("/dev").join(device), &file)?;
    }
    for (target, link) in [("/proc/self/fd", "fd"), ("fd/0", "stdin"), ("fd/1", "stdout"), ("fd/2", "stderr")] {
        symlink(target, own.join(link)).with_context(|| format!("can't make /dev/{link}"))?;
    }
    bind(own, Path::new("/dev"))
}

fn bind(what: &Path, over: &Path) -> Result<()> {
    let nothing: Option<&str> = None;
    mount(Some(what), over, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing)
        .with_context(|| format!("can't bind {} to {}", what.display(), over.display()))
}

/// Makes the namespaces and the links: every host has one interface, and the internet routes between them.
pub(super) fn network(clients: &[(Host, IpAddr)]) -> Result<()> {
    ip(&["netns", "add", INTERNET.0])?;
    process::run(
        INTERNET
            .command("sh")
            .args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"]),
    )?;
    host(EDGE, "edge", &[IpAddr::V4(EDGE_V4), IpAddr::V6(EDGE_V6)])?;
    for (number, (client, address)) in clients.iter().enumerate() {
        host(*client, &format!("client{number}"), &[*address])?;
    }
    Ok(())
}

/// Makes one host with these addresses, each a network of its own, and connects it.
fn host(host: Host, port: &str, addresses: &[IpAddr]) -> Result<()> {
    let (own, net) = (host.0, INTERNET.0);
    ip(&["netns", "add", own])?;
    ip(&["-n", own, "link", "set", "lo", "up"])?;
    ip(&["-n", own, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", net])?;
    ip(&["-n", net, "addr", "add", "169.254.0.1/32", "dev", port])?;
    ip(&["-n", net, "addr", "add", "fe80::1/64", "dev", port, "nodad"])?;
    for address in addresses {
        let whole = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
        let mut add = vec!["-n", own, "addr", "add", &whole, "dev", "eth0"];
        if address.is_ipv6() {
            add.push("nodad");
        }
        ip(&add)?;
    }
    ip(&["-n", own, "link", "set", "eth0", "up"])?;
    ip(&["-n", net, "link", "set", port, "up"])?;
    for address in addresses {
        let whole = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
        let router = if address.is_ipv4() { "169.254.0.1" } else { "fe80::1" };
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        ip(&["-n", net, family, "route", "add", &whole, "dev", port])?;
        ip(&["-n", own, family, "route", "add", "default", "via", router, "dev", "eth0", "onlink"])?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<()> {
    process::output(Command::new("ip").args(arguments)).map(drop)
}
