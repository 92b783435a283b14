//! A running mxscreen, with its own configuration, pins, state and log.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    bpf::{Pins, network_of},
    net::Net,
    netns::Namespace,
    privilege::mxscreen,
    process::{Process, signal},
    program::copy_mxscreen,
    wait::{SOON, wait_for},
};

/// The settings of a gate: what every test needs, and what the test adds or replaces.
#[derive(Debug, Clone)]
pub struct Settings {
    keys: BTreeMap<String, String>,
    directory: PathBuf,
    pins: PathBuf,
    program: PathBuf,
}

impl Settings {
    /// In place, before the mail server on the edge's port 25, with a greet wait of a second.
    ///
    /// # Panics
    ///
    /// When the gate's directory can't be made.
    #[must_use]
    pub fn in_place(net: &Net) -> Self {
        let directory = net.directory().join("gate");
        std::fs::create_dir_all(&directory).expect("the gate's directory");
        let pins = Path::new("/sys/fs/bpf").join(net.id());
        let settings =
            Self { keys: BTreeMap::new(), directory: directory.clone(), pins: pins.clone(), program: mxscreen() };
        settings
            .text("hostname", "mx.example.test")
            .text("kernel.pin_path", &pins.display().to_string())
            .text("state.directory", &directory.join("state").display().to_string())
            .text("control.socket", &directory.join("control.sock").display().to_string())
            .text("log.target", &format!("file:{}", directory.join("log").display()))
            .text("pregreet.wait", "1s")
            .text("user", "nobody")
    }

    /// The gate owns port 25 and the mail server is at `backend`.
    #[must_use]
    pub fn front(net: &Net, backend: &str) -> Self {
        Self::in_place(net)
            .text("layout", "front")
            .set("listen", r#"["[::]:25"]"#)
            .set("forward.to", &format!("[\"{backend}\"]"))
    }

    /// Sets `key` to `value`, written as TOML.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.keys.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets `key` to the string `value`.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Self {
        let quoted = format!("{value:?}");
        self.set(key, &quoted)
    }

    /// Has the gate run from a copy of the program, and says where that is.
    ///
    /// # Panics
    ///
    /// When it can't be copied.
    #[must_use]
    pub fn copied(mut self) -> (Self, PathBuf) {
        self.program = self.directory.join("mxscreen");
        copy_mxscreen(&self.program);
        let program = self.program.clone();
        (self, program)
    }

    /// Where the log goes.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Where the control socket is.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// The gate's own directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Writes the configuration and says where.
    ///
    /// # Panics
    ///
    /// When it can't be written.
    #[must_use]
    pub fn write(&self) -> PathBuf {
        let path = self.directory.join("mxscreen.toml");
        let mut text = String::new();
        for (key, value) in &self.keys {
            writeln!(text, "{key} = {value}").expect("memory");
        }
        std::fs::write(&path, text).expect("the configuration");
        path
    }

    /// Runs `mxscreen` with `words` and this configuration until it ends: for starts that have to fail.
    ///
    /// # Panics
    ///
    /// When it goes on running.
    #[must_use]
    pub fn run_to_end(&self, namespace: &Namespace, restrictions: &[&str], words: &[&str]) -> (ExitStatus, String) {
        let config = self.write().display().to_string();
        let output = self.directory.join("run-to-end");
        // What is said is added to what is there.
        let _ = std::fs::remove_file(&output);
        let words: Vec<&str> = words.iter().copied().chain(["--config", &config]).collect();
        let ended = Process::start_with(namespace, restrictions, &mxscreen(), &words, &output).wait(SOON);
        let mut said = std::fs::read_to_string(&output).unwrap_or_default();
        // What it said before it opened its log, and what it said after.
        said.push_str(&std::fs::read_to_string(self.log()).unwrap_or_default());
        (ended, said)
    }
}

/// A running gate. Dropping it stops it and removes its pins; if the test failed, its log and configuration are printed.
#[derive(Debug)]
pub struct Gate {
    process: Process,
    settings: Settings,
    keeps_pins: bool,
}

impl Gate {
    /// Starts a gate on the edge and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    #[must_use]
    #[track_caller]
    pub fn start(net: &Net, settings: Settings) -> Self {
        Self::start_restricted(net, &[], settings)
    }

    /// As [`Gate::start`], with options for `setpriv`: what the gate may not do.
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    #[must_use]
    #[track_caller]
    pub fn start_restricted(net: &Net, restrictions: &[&str], settings: Settings) -> Self {
        Self::launch(&net.edge, restrictions, settings).wait_ready()
    }

    /// Starts a gate on the edge and waits for nothing.
    ///
    /// # Panics
    ///
    /// When it can't be started.
    #[must_use]
    pub fn begin(net: &Net, settings: Settings) -> Self {
        Self::launch(&net.edge, &[], settings)
    }

    fn launch(namespace: &Namespace, restrictions: &[&str], settings: Settings) -> Self {
        let config = settings.write().display().to_string();
        // An earlier gate of the same test has left its log here.
        drop(std::fs::rename(settings.log(), settings.directory.join("log.before")));
        let output = settings.directory.join("output");
        let words = ["run", "--config", &config];
        let process = Process::start_with(namespace, restrictions, &settings.program, &words, &output);
        Self { process, settings, keeps_pins: false }
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    #[must_use]
    #[track_caller]
    pub fn wait_ready(mut self) -> Self {
        wait_for("the gate is ready", SOON, || {
            if let Some(status) = self.process.ended() {
                panic!("the gate ended at once: {status}");
            }
            let ready = self.log().lines().any(|line| line.ends_with(": ready") || line.trim() == "ready");
            (ready && self.control(&["status"]).status.success()).then_some(())
        });
        self
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The process id of its screener.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn screener(&self) -> i32 {
        wait_for("the gate has a screener", SOON, || self.screener_if_any())
    }

    /// As [`Gate::screener`], if it has one at the moment.
    #[must_use]
    pub fn screener_if_any(&self) -> Option<i32> {
        self.process.children().first().copied()
    }

    /// Sends a signal to its keeper.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Sends a signal to its screener.
    ///
    /// # Panics
    ///
    /// When it has none.
    pub fn signal_screener(&self, what: Signal) {
        signal(self.screener(), what);
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its maps.
    #[must_use]
    pub fn pins(&self) -> Pins {
        Pins::at(&self.settings.pins)
    }

    /// All that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.settings.log()).unwrap_or_default()
    }

    /// How many log lines hold `text`.
    #[must_use]
    pub fn logged(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Waits for a log line with `text` and returns it.
    ///
    /// # Panics
    ///
    /// When none comes.
    #[track_caller]
    pub fn wait_log(&self, text: &str) -> String {
        wait_for(&format!("the gate logs \"{text}\""), SOON, || {
            self.log().lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// Runs an `mxscreen` subcommand against this gate.
    ///
    /// # Panics
    ///
    /// When it can't be run.
    #[must_use]
    pub fn control(&self, words: &[&str]) -> Output {
        Command::new(mxscreen())
            .args(words)
            .arg("--control")
            .arg(self.settings.control())
            .output()
            .expect("mxscreen runs")
    }

    /// Runs a subcommand that has to succeed, and returns what it printed.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[track_caller]
    pub fn tell(&self, words: &[&str]) -> String {
        let output = self.control(words);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mxscreen {words:?}: {}: {error}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a subcommand with `--json` and reads its answer.
    ///
    /// # Panics
    ///
    /// When it fails or prints something else.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> Value {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let printed = self.tell(&words);
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("mxscreen {words:?}: {error}: {printed}"))
    }

    /// Waits until `condition` is true.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    #[track_caller]
    pub fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        wait_for(what, SOON, || condition().then_some(()));
    }

    /// What `list` and `forget` call the client with this address.
    #[must_use]
    pub fn client_net(&self, address: IpAddr) -> String {
        format!("{}/{}", network_of(address), if address.is_ipv4() { 32 } else { 64 })
    }

    /// Waits until the gate says that this client is turned away in the kernel.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    #[track_caller]
    pub fn wait_denied(&self, address: IpAddr) {
        self.wait(&format!("{address} is turned away"), || {
            let known = self.ask(&["explain", &address.to_string()]);
            known["now"] == "is turned away" && known["decided_by"] == "kernel"
        });
    }

    /// Waits until the gate no longer says that this client is turned away.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    #[track_caller]
    pub fn wait_undenied(&self, address: IpAddr) {
        self.wait(&format!("{address} may come in"), || {
            self.ask(&["explain", &address.to_string()])["now"] != "is turned away"
        });
    }

    /// Waits until nothing that was learned waits to be written to the cache's file.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    #[track_caller]
    pub fn wait_written(&self) {
        self.wait("the cache is written", || {
            let status = self.ask(&["status"]);
            let store = &status["cache"]["store"];
            assert!(store["pending"].is_u64(), "no count of pending changes in {status}");
            store["pending"] == 0
        });
    }

    /// Stops it by `mxscreen stop` and waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end, or not with success.
    #[track_caller]
    pub fn stop(self) {
        self.tell(&["stop"]);
        self.wait_end();
    }

    /// Waits for the end of a gate that was told to stop.
    ///
    /// # Panics
    ///
    /// When it does not end, or not with success.
    #[track_caller]
    pub fn wait_end(mut self) {
        self.wait_end_within(SOON);
    }

    /// As [`Gate::wait_end`], of a gate that needs longer.
    ///
    /// # Panics
    ///
    /// When it does not end within `limit`, or not with success.
    #[track_caller]
    pub fn wait_end_within(&mut self, limit: Duration) {
        let status = self.process.wait(limit);
        assert!(status.success(), "the gate ended with {status}");
    }

    /// Ends both of its processes at once. Its pins stay, for the next gate of the same test to find.
    ///
    /// # Panics
    ///
    /// When they do not end.
    #[track_caller]
    pub fn kill(self) -> Settings {
        let screener = self.screener();
        // The keeper first: it would start another one.
        let settings = self.kill_keeper();
        // It may have ended by itself by now, having lost its keeper.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(screener), Signal::SIGKILL);
        wait_for("the screener has ended", SOON, || (!Path::new(&format!("/proc/{screener}")).exists()).then_some(()));
        settings
    }

    /// Ends its keeper; its pins stay.
    ///
    /// # Panics
    ///
    /// When it does not end.
    #[track_caller]
    pub fn kill_keeper(mut self) -> Settings {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(SOON);
        self.keeps_pins = true;
        self.settings.clone()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // What a test has stopped hears no other signal.
        if let Some(screener) = self.screener_if_any() {
            signal(screener, Signal::SIGCONT);
        }
        self.process.end();
        if thread::panicking() {
            for file in ["mxscreen.toml", "output", "log.before", "log"] {
                if let Ok(text) = std::fs::read_to_string(self.settings.directory.join(file)) {
                    eprintln!("--- {file}\n{text}");
                }
            }
        }
        if !self.keeps_pins {
            self.pins().remove();
        }
    }
}
