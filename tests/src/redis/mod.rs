//! Redis servers on the backplane, and what can become of them.

mod cluster;
mod faults;
mod resp;
mod sentinel;

use std::{
    fs, io, iter,
    path::{Path, PathBuf},
    thread,
};

use nix::sys::signal::Signal;

use self::resp::Connection;
pub use self::{cluster::Cluster, resp::Reply, sentinel::Sentinels};
use crate::{
    backplane::{ADDRESSES, Backplane},
    certificate::Certificate,
    netns::Namespace,
    process::Process,
    wait::{SOON, wait_for},
};

/// The ordinary port.
pub const PORT: u16 = 6379;

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    directory: PathBuf,
    words: Vec<String>,
}

impl Redis {
    /// Starts a server at a port of the backplane's addresses, with more lines for its configuration, and waits until it answers.
    /// It keeps nothing on the disk unless a line says so.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn start(backplane: &Backplane, port: u16, more: &[&str]) -> Self {
        let listen = if more.iter().any(|line| line.starts_with("tls-port")) { 0 } else { port };
        let own = format!("port {listen}\nsave \"\"\nenable-debug-command local\nrepl-diskless-sync-delay 0\n");
        let redis = Self::launch(backplane, port, &(own + &more.join("\n")), &[]);
        redis.wait_answers();
        redis
    }

    fn launch(backplane: &Backplane, port: u16, lines: &str, more: &[&str]) -> Self {
        let directory = backplane.directory().join(port.to_string());
        fs::create_dir_all(&directory).expect("a directory for Redis");
        let file = directory.join("redis.conf").display().to_string();
        let text = format!(
            "bind {} {}\nprotected-mode no\ndir {home}\nunixsocket {home}/socket\nuser harness on nopass ~* &* +@all\n{lines}\n",
            ADDRESSES[0],
            ADDRESSES[1],
            home = directory.display(),
        );
        fs::write(&file, text).expect("a configuration for Redis");
        let words: Vec<String> = iter::once(file).chain(more.iter().map(|&word| word.to_owned())).collect();
        let process = begin(&backplane.namespace, &directory, &words);
        Self { process, port, directory, words }
    }

    #[track_caller]
    fn wait_answers(&self) {
        wait_for(&format!("Redis at port {} answers", self.port), SOON, || {
            self.try_ask(&["PING"]).is_ok_and(|reply| reply == Reply::Text("PONG".to_owned())).then_some(())
        });
    }

    /// Waits until it follows a master and has all that that has.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn wait_follows(&self) {
        wait_for(&format!("Redis at port {} follows its master", self.port), SOON, || {
            let follows = self.info("role") == "slave" && self.info("master_link_status") == "up";
            follows.then_some(())
        });
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where gates find it, `192.0.2.5:6379`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", ADDRESSES[0], self.port)
    }

    /// Asks it something, with all rights.
    ///
    /// # Panics
    ///
    /// When it does not answer, or with an error.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> Reply {
        match self.try_ask(words) {
            Ok(Reply::Error(error)) => panic!("Redis at port {}: {words:?}: {error}", self.port),
            Ok(reply) => reply,
            Err(error) => panic!("Redis at port {}: {words:?}: {error}", self.port),
        }
    }

    /// As [`Redis::ask`], of what changes nothing: it is asked again where it cuts the connection off, as it does to all its clients
    /// when sentinels change its role.
    #[track_caller]
    fn inquire(&self, words: &[&str]) -> Reply {
        wait_for(&format!("Redis at port {} answers {words:?}", self.port), SOON, || match self.try_ask(words) {
            Ok(Reply::Error(error)) => panic!("Redis at port {}: {words:?}: {error}", self.port),
            reply => reply.ok(),
        })
    }

    /// As [`Redis::ask`], where there may be no answer.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn try_ask(&self, words: &[&str]) -> io::Result<Reply> {
        self.connect()?.ask(words)
    }

    fn connect(&self) -> io::Result<Connection> {
        let mut connection = Connection::open(&self.directory.join("socket"), SOON)?;
        connection.ask(&["AUTH", "harness", "any"])?;
        Ok(connection)
    }

    /// Every key that begins with `prefix`.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    #[must_use]
    #[track_caller]
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.inquire(&["KEYS", &format!("{prefix}*")]).list().iter().map(|key| key.text().to_owned()).collect()
    }

    /// A field of `INFO`.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn info(&self, field: &str) -> String {
        let info = self.inquire(&["INFO", "everything"]);
        let value = info.text().lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {field} in {info:?}")).to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // What a test has stopped hears no other signal.
        self.process.signal(Signal::SIGCONT);
        self.process.end();
        if thread::panicking() {
            for file in ["redis.conf", "output"] {
                if let Ok(text) = fs::read_to_string(self.directory.join(file)) {
                    eprintln!("--- {file} of Redis at port {}\n{text}", self.port);
                }
            }
        }
    }
}

fn begin(namespace: &Namespace, directory: &Path, words: &[String]) -> Process {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Process::start(namespace, Path::new("redis-server"), &words, &directory.join("output"))
}

/// Has the server take nobody but the user `mxscreen`, with this password and the rights that an operator is told to give.
///
/// # Panics
///
/// When the documentation does not say which.
#[must_use]
pub fn guarded(password: &str) -> String {
    let documented = include_str!("../../../docs/cluster.md").lines();
    let rights = documented.filter_map(|line| line.strip_prefix("ACL SETUSER mxscreen on >PASSWORD ")).next();
    format!("user default off\nuser mxscreen on >{password} {}", rights.expect("the rights of a gate"))
}

/// Has the server speak TLS alone, at its port.
#[must_use]
pub fn encrypted(port: u16, certificate: &Certificate) -> String {
    let (file, key) = (certificate.certificate.display(), certificate.key.display());
    format!("tls-port {port}\ntls-cert-file {file}\ntls-key-file {key}\ntls-auth-clients no")
}
