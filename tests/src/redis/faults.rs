//! What happens to servers.

use std::{fs, time::Duration};

use nix::sys::signal::Signal;

use super::{Redis, begin};
use crate::{backplane::Backplane, wait::SOON};

impl Redis {
    /// Stops the process: connections stay open, and nothing is answered.
    pub fn freeze(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Has a stopped process go on.
    pub fn thaw(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// Ends the process at once.
    ///
    /// # Panics
    ///
    /// When it does not end.
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(SOON);
    }

    /// Starts it again after it was killed, with what it has on its disk: nothing, unless a line of its configuration had it keep that.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[track_caller]
    pub fn restart(&mut self, backplane: &Backplane) {
        // A killed server leaves its socket.
        drop(fs::remove_file(self.directory.join("socket")));
        self.process = begin(&backplane.namespace, &self.directory, &self.words);
        self.wait_answers();
    }

    /// Has it do nothing at all for so long, as a slow command would; returns at once.
    ///
    /// # Panics
    ///
    /// When it can't be asked.
    pub fn hold(&self, time: Duration) {
        let mut connection = self.connect().expect("Redis answers");
        connection.send(&["DEBUG", "SLEEP", &time.as_secs_f64().to_string()]).expect("Redis listens");
    }

    /// Has it refuse whatever would need memory, or take it again.
    ///
    /// # Panics
    ///
    /// When it can't be told.
    pub fn set_full(&self, full: bool) {
        self.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        self.ask(&["CONFIG", "SET", "maxmemory", if full { "1" } else { "0" }]);
    }

    /// Has it follow a server that is not there, so that it can be read alone, or write again.
    ///
    /// # Panics
    ///
    /// When it can't be told.
    pub fn set_read_only(&self, read_only: bool) {
        // Port 1 of its own host: refused at once.
        let leader: [&str; 2] = if read_only { ["127.0.0.1", "1"] } else { ["NO", "ONE"] };
        self.ask(&["REPLICAOF", leader[0], leader[1]]);
    }

    /// Drops every announcement from the streams and leaves them where they are: who was away can't tell what it has missed.
    ///
    /// # Panics
    ///
    /// When it can't be told.
    pub fn trim_streams(&self, prefix: &str) {
        for stream in self.keys(prefix).into_iter().filter(|key| key.ends_with(":changes")) {
            self.ask(&["XTRIM", &stream, "MAXLEN", "0"]);
        }
    }
}
