//! A program that runs in a namespace until its value is dropped.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{netns::Namespace, wait::wait_for};

/// A running program, leader of its own process group. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `program` with `words`; both of its outputs are appended to `output`. Should the test be killed, the program is ended too.
    ///
    /// # Panics
    ///
    /// When it can't be started.
    #[must_use]
    pub fn start(namespace: &Namespace, program: &Path, words: &[&str], output: &Path) -> Self {
        Self::start_with(namespace, &[], program, words, output)
    }

    /// As [`Process::start`], with more options for `setpriv`: what the program may not do.
    ///
    /// # Panics
    ///
    /// When it can't be started.
    #[must_use]
    pub fn start_with(
        namespace: &Namespace,
        restrictions: &[&str],
        program: &Path,
        words: &[&str],
        output: &Path,
    ) -> Self {
        let file = File::options().create(true).append(true).open(output).expect("a file for the program's output");
        let mut command = Command::new("setpriv");
        command.args(restrictions).args(["--pdeathsig", "TERM", "--"]).arg(program).args(words);
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("dup")).stderr(file).process_group(0);
        let child = namespace.spawn(command).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        Self { child, name: program.file_name().unwrap_or_default().to_string_lossy().into_owned() }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids fit")
    }

    /// The processes that it has started itself.
    ///
    /// # Panics
    ///
    /// When /proc can't be read.
    #[must_use]
    pub fn children(&self) -> Vec<i32> {
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        ids.filter(|id| parent_of(*id) == Some(self.pid())).collect()
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    ///
    /// When the system can't say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("waitpid")
    }

    /// Sends it a signal.
    pub fn signal(&self, what: Signal) {
        signal(self.pid(), what);
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    ///
    /// When it has not within `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} (process {}) ends", self.name, self.pid());
        wait_for(&what, limit, || self.ended())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

impl Process {
    /// Asks it to end, asks again (a gate that waits for its sessions takes that as haste), and ends it if it has heard neither.
    pub fn end(&mut self) {
        for _ in 0..2 {
            if self.ends_within(Duration::ZERO) {
                return;
            }
            self.signal(Signal::SIGTERM);
            if self.ends_within(Duration::from_secs(2)) {
                return;
            }
        }
        eprintln!("{} (process {}) ignores SIGTERM", self.name, self.pid());
        drop(self.child.kill());
        drop(self.child.wait());
    }

    fn ends_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The process that started this one.
fn parent_of(process: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, which may hold anything, ends at the last parenthesis; the state and the parent follow.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Sends a signal to a process; one that has ended needs none.
pub(crate) fn signal(process: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(process), signal);
}
