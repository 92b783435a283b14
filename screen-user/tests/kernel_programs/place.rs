//! Where a test runs: namespaces and pin paths of its own, gone afterwards whatever happens.

use std::{
    env,
    fs::File,
    ops::Deref,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use aya::{programs::ProgramError, util::KernelVersion};
use nix::sched::{CloneFlags, setns, unshare};
use screen_user::{
    config::{ClientPrefix, KernelReply, Layout, ScreenerDown, Steer, XdpMode},
    kernel::{Installation, Kernel, KernelError, Plan, missing_capabilities},
};

use crate::leftovers;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// See [`leftovers::name`].
fn name() -> String {
    leftovers::name(NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Whether the test can run. Says what is missing if it can't; in CI that is a failure.
pub(crate) fn privileged() -> bool {
    let missing = missing_capabilities().unwrap();
    let root = nix::unistd::geteuid().is_root();
    if missing.is_empty() && root {
        leftovers::sweep();
        return true;
    }
    let what = if root { missing.join(", ") } else { "root".to_owned() };
    assert!(env::var_os("CI").is_none(), "{what} is missing, and in CI no test is skipped");
    println!("skipped: {what} is missing");
    false
}

/// Whether this kernel is older than Linux `major.minor`.
pub(crate) fn is_older_than(major: u8, minor: u8) -> bool {
    KernelVersion::current().unwrap() < KernelVersion::new(major, minor, 0)
}

/// A plan with a pin path of its own.
pub(crate) fn plan() -> Plan {
    Plan {
        ports: vec![25],
        interfaces: Vec::new(),
        xdp: XdpMode::Generic,
        layout: Layout::InPlace,
        steer: Steer::Auto,
        steer_to: None,
        steer_uid: 0,
        on_screener_down: ScreenerDown::Refuse,
        limit: 50,
        client_prefix: ClientPrefix { ipv4: 32, ipv6: 64 },
        proxies: Vec::new(),
        deny_reply: KernelReply::Drop,
        limit_reply: KernelReply::Drop,
        dry_run: false,
        pin_path: Path::new("/sys/fs/bpf").join(name()),
        event_rate: Plan::EVENT_RATE,
        debug: false,
    }
}

/// The gate's entries: every frame is judged alike by both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Xdp,
    Tc,
}

/// An installation and its tables, in one process.
pub(crate) struct Started {
    pub(crate) kernel: Kernel,
    pub(crate) installation: Installation,
}

impl Started {
    /// Loaded and opened; what is at work does not know of it yet.
    pub(crate) fn staged(plan: &Plan) -> Result<Self, KernelError> {
        let installation = Installation::start(plan).inspect_err(keep_verifier_log)?;
        let kernel = Kernel::open(installation.maps()?, plan, installation.finds_servers())?;
        Ok(Self { kernel, installation })
    }

    /// At work, with empty tables.
    pub(crate) fn new(plan: &Plan) -> Result<Self, KernelError> {
        let started = Self::staged(plan)?;
        started.installation.activate()?;
        started.installation.look_at_sockets()?;
        Ok(started)
    }

    /// Whether the gate lets a frame pass that comes in by `entry`.
    pub(crate) fn passes(&self, entry: Entry, frame: &[u8]) -> bool {
        match entry {
            Entry::Xdp => self.installation.try_frame(frame).unwrap(),
            Entry::Tc => self.installation.try_frame_in_tc(frame).unwrap(),
        }
    }
}

/// What the verifier said of a program that it did not take, in a file: it is too long for a test's output.
fn keep_verifier_log(error: &KernelError) {
    if let KernelError::Program { program, source: source @ ProgramError::LoadError { .. } } = error {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("verifier-{program}.log"));
        std::fs::write(&path, source.to_string()).unwrap();
        println!("the verifier's log is in {}", path.display());
    }
}

impl Deref for Started {
    type Target = Kernel;

    fn deref(&self) -> &Kernel {
        &self.kernel
    }
}

/// Runs `test` in a network namespace of its own, which ends with it.
pub(crate) fn alone(test: impl FnOnce() + Send) {
    if !privileged() {
        return;
    }
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            test();
        });
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `test` for each of the gate's entries, in a network namespace of its own.
pub(crate) fn through_each_entry(test: impl Fn(Entry) + Sync) {
    for entry in [Entry::Xdp, Entry::Tc] {
        alone(|| test(entry));
    }
}

/// A host and its neighbour: two namespaces with a pair of interfaces between them.
pub(crate) struct Pair {
    names: [String; 2],
}

pub(crate) const HOST: usize = 0;
pub(crate) const NEIGHBOUR: usize = 1;

impl Pair {
    /// The host has 192.0.2.1 and 2001:db8::1 on `mail0`, its neighbour .2 to .5 and ::2 to ::5.
    pub(crate) fn new() -> Self {
        let stem = name();
        let pair = Self { names: [format!("{stem}-h"), format!("{stem}-n")] };
        for name in &pair.names {
            run("ip", &["netns", "add", name]);
        }
        let [host, neighbour] = &pair.names;
        run("ip", &["-n", host, "link", "add", "mail0", "type", "veth", "peer", "name", "net0", "netns", neighbour]);
        let addresses = |namespace: &str, interface: &str, last: &[u8]| {
            for last in last {
                run("ip", &["-n", namespace, "addr", "add", &format!("192.0.2.{last}/24"), "dev", interface]);
                let ipv6 = format!("2001:db8::{last}/64");
                run("ip", &["-n", namespace, "addr", "add", &ipv6, "dev", interface, "nodad"]);
            }
            run("ip", &["-n", namespace, "link", "set", "lo", "up"]);
            run("ip", &["-n", namespace, "link", "set", interface, "up"]);
        };
        addresses(host, "mail0", &[1]);
        addresses(neighbour, "net0", &[2, 3, 4, 5]);
        pair
    }

    /// The name of one of the namespaces.
    pub(crate) fn name(&self, side: usize) -> &str {
        &self.names[side]
    }

    /// Runs a command in one of the namespaces.
    pub(crate) fn run_in(&self, side: usize, command: &[&str]) {
        run("ip", &[&["netns", "exec", &self.names[side]], command].concat());
    }

    /// Runs `what` in one of the namespaces and returns what it returns; sockets keep belonging where they were made.
    pub(crate) fn within<T: Send>(&self, side: usize, what: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.names[side])).unwrap();
        thread::scope(|scope| {
            let run = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                what()
            });
            run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Runs a command that must succeed; returns what it prints.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
