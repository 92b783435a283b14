//! A program with a private view of the system's directories: servers that Debian's packages would not let stand side by side, and a
//! gate whose `/dev/log` is the test's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{netns::Namespace, process::Process};

/// What prepares the private view; says what it does.
const STAGE: &str = include_str!("stage.sh");

/// Starts `words` in a mount namespace of their own, after the shell commands of `prepare`. `/etc`, `/usr`, `/var` and `/run` can be
/// written to there without a trace outside; the unpacked package `tree`, if given, is laid over them. What the program prints is
/// appended to `output` in `directory`, which is made.
///
/// # Panics
///
/// When it can't be started.
#[must_use]
pub fn start(namespace: &Namespace, directory: &Path, tree: Option<&Path>, prepare: &str, words: &[&str]) -> Process {
    let place = |name: &str| directory.join(name).display().to_string();
    fs::create_dir_all(directory.join("system")).expect("a directory for the private view");
    fs::write(directory.join("stage.sh"), STAGE).expect("a script");
    fs::write(directory.join("prepare.sh"), prepare).expect("a script");
    let tree = tree.map_or("-".to_owned(), |tree| tree.display().to_string());
    let (stage, system, prepare) = (place("stage.sh"), place("system"), place("prepare.sh"));
    let own = ["--mount", "--propagation", "private", "sh", &stage, &system, &tree, &prepare];
    let words: Vec<&str> = own.into_iter().chain(words.iter().copied()).collect();
    Process::start(namespace, Path::new("unshare"), &words, &directory.join("output"))
}

/// Where `cargo xtask setup` unpacks the mail server `name`.
#[must_use]
pub fn unpacked(name: &str) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    std::env::var_os("MXSCREEN_MTA").map_or_else(|| workspace.join("target/mta"), PathBuf::from).join(name)
}
