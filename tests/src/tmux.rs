//! A terminal of tmux's, with a shell in it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::wait::{SOON, wait_for};

/// A terminal on a server of its own. Dropping it ends both.
#[derive(Debug)]
pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// A shell in a terminal of this size, whose socket lies in `directory`.
    ///
    /// # Panics
    ///
    /// When tmux can't be started.
    #[must_use]
    pub fn start(directory: &Path, width: u16, height: u16) -> Self {
        let terminal = Self { socket: directory.join("tmux.sock") };
        let (width, height) = (width.to_string(), height.to_string());
        let size = ["-x", width.as_str(), "-y", height.as_str()];
        let shell = ["env", "PS1=$ ", "LC_ALL=C.UTF-8", "NO_COLOR=1", "sh"];
        terminal.tmux(&[&["-f", "/dev/null", "new-session", "-d"], &size[..], &shell].concat());
        terminal
    }

    /// Types a line. The shell may ask only when it has that, so that its `$ ` stands before what the line prints.
    pub fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.tmux(&["send-keys", "Enter"]);
    }

    /// Presses keys, by tmux's names.
    pub fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Gives the terminal another size.
    pub fn resize(&self, width: u16, height: u16) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// What is on the screen.
    #[must_use]
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Whether a program has the whole screen for itself.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.tmux(&["display-message", "-p", "#{alternate_on}"]).trim() == "1"
    }

    /// Waits until the screen is as `condition` wants it.
    ///
    /// # Panics
    ///
    /// When that does not happen; the message has the screen.
    #[track_caller]
    pub fn wait(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let mut shown = String::new();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(what, SOON, || {
                shown = self.screen();
                condition(&shown).then_some(())
            });
        }));
        assert!(outcome.is_ok(), "not on the screen: {what}\n{shown}");
        shown
    }

    #[track_caller]
    fn tmux(&self, words: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command().args(words).output().expect("tmux runs");
        assert!(status.success(), "tmux {words:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).into_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(&self.socket).env_remove("TMUX");
        command
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that has failed may have no server.
        drop(self.command().arg("kill-server").output());
    }
}
