//! One network namespace: made, entered, and removed again.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    process::{Child, Command},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    thread,
};

use nix::{
    fcntl::{Flock, FlockArg},
    sched::{CloneFlags, setns},
};

/// `ip netns add` prepares `/run/netns` on its first run, and two first runs at once disturb each other.
static ADDING: Mutex<()> = Mutex::new(());

/// A network namespace of this test, removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: Arc<File>,
    spawner: Sender<Spawn>,
}

struct Spawn {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

impl Namespace {
    /// Makes the namespace `name`, with its loopback up.
    ///
    /// # Panics
    ///
    /// When `ip` refuses.
    #[must_use]
    pub fn new(name: String) -> Self {
        {
            let _in_this_process = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
            let lock = File::create(std::env::temp_dir().join("mxs-netns.lock")).expect("a lock file for ip netns");
            let _between_processes =
                Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("flock");
            run("ip", ["netns", "add", &name]);
        }
        run("ip", ["-n", &name, "link", "set", "lo", "up"]);
        let handle = Arc::new(File::open(format!("/run/netns/{name}")).expect("the new namespace"));
        let spawner = spawner(Arc::clone(&handle));
        Self { name, handle, spawner }
    }

    /// Its name under `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in the namespace with these words.
    ///
    /// # Panics
    ///
    /// When `ip` refuses.
    pub fn ip(&self, words: &str) {
        run("ip", ["-n", &self.name].into_iter().chain(words.split_whitespace()));
    }

    /// Writes a sysctl of the namespace, `net.ipv4.tcp_syncookies` for example.
    ///
    /// # Panics
    ///
    /// When it can't be written.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.enter(|| std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}")));
    }

    /// Runs `work` inside the namespace. Sockets that it makes stay there and can be used from anywhere.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            scope
                .spawn(|| {
                    enter(&self.handle);
                    work()
                })
                .join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a thread inside the namespace.
    pub fn thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        let handle = Arc::clone(&self.handle);
        thread::spawn(move || {
            enter(&handle);
            work()
        })
    }

    /// Starts a process inside the namespace.
    ///
    /// # Errors
    ///
    /// As [`Command::spawn`].
    pub fn spawn(&self, command: Command) -> io::Result<Child> {
        let (reply, answer) = mpsc::channel();
        self.spawner.send(Spawn { command, reply }).map_err(|_| io::Error::other("the namespace's thread ended"))?;
        answer.recv().map_err(|_| io::Error::other("the namespace's thread ended"))?
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("could not remove namespace {}", self.name);
        }
    }
}

/// A thread that starts processes. They ask to be ended when their parent thread ends, so it has to live as long as the namespace.
fn spawner(handle: Arc<File>) -> Sender<Spawn> {
    let (sender, requests) = mpsc::channel::<Spawn>();
    thread::spawn(move || {
        enter(&handle);
        for mut request in requests {
            drop(request.reply.send(request.command.spawn()));
        }
    });
    sender
}

fn enter(handle: &File) {
    setns(handle, CloneFlags::CLONE_NEWNET).expect("setns needs root");
}

/// Runs a command of the system.
///
/// # Panics
///
/// When it fails; the message holds its standard error.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(program: &str, words: impl IntoIterator<Item = S>) -> String {
    let mut command = Command::new(program);
    command.args(words);
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
