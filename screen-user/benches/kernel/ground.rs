//! Where a measurement takes place: a host and its neighbour, two network namespaces that end with this process, as all else
//! that a measurement leaves does.

use std::{fs, fs::File, os::fd::AsRawFd as _, path::Path, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

/// The host's interface; its address is 192.0.2.1, the neighbour's 192.0.2.2, through which all the world is reached.
pub(crate) const HOST: &str = "mxb0";
/// The neighbour's interface.
pub(crate) const NEIGHBOUR: &str = "mxb1";
/// The Ethernet addresses of both.
pub(crate) const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// A view of the interfaces of the new namespace; /sys stays, as it holds other mounts.
const SYS: &str = "/mnt/sys";
/// Where the gate pins its maps.
pub(crate) const PINS: &str = "/sys/fs/bpf";
/// Where the files of the rivals are.
const FILES: &str = "/mnt/files";

/// Both namespaces; this process is in the host's.
pub(crate) struct Ground {
    neighbour: File,
}

impl Ground {
    /// Takes this process, which is to have one thread, into a network namespace of its own and makes the neighbour's.
    pub(crate) fn make() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("can't make namespaces")?;
        let nothing: Option<&str> = None;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
            .context("can't make mounts private")?;
        // All of them end with this process, too, however it ends.
        for (kind, place) in [("tmpfs", "/mnt"), ("sysfs", SYS), ("bpf", PINS)] {
            fs::create_dir_all(place).with_context(|| format!("can't make {place}"))?;
            mount(Some(kind), place, Some(kind), MsFlags::empty(), nothing)
                .with_context(|| format!("can't mount a {kind}"))?;
        }
        fs::create_dir(FILES).context("can't make a folder for files")?;
        let neighbour = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("can't make the neighbour's namespace")?;
            File::open("/proc/thread-self/ns/net").context("can't open the neighbour's namespace")
        });
        let ground = Self { neighbour: neighbour.join().map_err(|_| anyhow!("the neighbour's thread panicked"))?? };
        ground.lay_out()?;
        Ok(ground)
    }

    fn lay_out(&self) -> Result<()> {
        let namespace = format!("/proc/{}/fd/{}", std::process::id(), self.neighbour.as_raw_fd());
        let [host, neighbour] = MACS.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
        run(&format!(
            "ip link add {HOST} address {host} type veth peer name {NEIGHBOUR} address {neighbour} netns {namespace}"
        ))?;
        for command in ["link set lo up", &format!("addr add 192.0.2.1/24 dev {HOST}"), &format!("link set {HOST} up")]
        {
            run(&format!("ip {command}"))?;
        }
        self.as_neighbour(|| {
            run(&format!("ip addr add 192.0.2.2/24 dev {NEIGHBOUR}"))?;
            run(&format!("ip link set {NEIGHBOUR} up"))?;
            run(&format!("ethtool -K {NEIGHBOUR} gro on"))
        })?;
        run(&format!("ip neigh replace 192.0.2.2 lladdr {neighbour} dev {HOST} nud permanent"))?;
        run("ip route add default via 192.0.2.2")?;
        // Frames sent from the neighbour's driver are taken only where the receiving side polls.
        run(&format!("ethtool -K {HOST} gro on"))?;
        // Its own thread takes what comes in, so that the scheduler counts what that costs.
        write(&format!("{SYS}/class/net/{HOST}/threaded"), "1")?;
        for setting in ["conf/all/rp_filter", &format!("conf/{HOST}/rp_filter")] {
            write(&format!("/proc/sys/net/ipv4/{setting}"), "0")?;
        }
        Ok(())
    }

    /// A folder for files.
    pub(crate) fn files() -> &'static Path {
        Path::new(FILES)
    }

    /// Runs a function in the neighbour's namespace, in a thread of its own.
    pub(crate) fn as_neighbour<T: Send>(&self, function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.neighbour, CloneFlags::CLONE_NEWNET).context("can't enter the neighbour's namespace")?;
                function()
            });
            thread.join().map_err(|_| anyhow!("the neighbour's thread panicked"))?
        })
    }

    /// Processor time that the host's receiving thread has used.
    pub(crate) fn receiving_time(&self) -> Result<Duration> {
        for entry in fs::read_dir("/proc").context("can't read /proc")?.flatten() {
            let Ok(name) = fs::read_to_string(entry.path().join("comm")) else { continue };
            // Another namespace may have an interface of that name; of threads that stand idle the sum is right all the same.
            if name.starts_with(&format!("napi/{HOST}-")) {
                let text = fs::read_to_string(entry.path().join("schedstat")).context("can't read schedstat")?;
                let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default();
                return Ok(Duration::from_nanos(nanos));
            }
        }
        bail!("the interface has no receiving thread")
    }

    /// Frames that have come in to the host.
    pub(crate) fn received(&self) -> Result<u64> {
        let path = format!("{SYS}/class/net/{HOST}/statistics/rx_packets");
        let text = fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
        text.trim().parse().context("no number")
    }
}

/// Runs a command line to its end.
pub(crate) fn run(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap_or_default())
        .args(words)
        .output()
        .with_context(|| format!("can't start {line}"))?;
    if !output.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Writes a setting of the kernel.
pub(crate) fn write(path: &str, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("can't write {path}"))
}
