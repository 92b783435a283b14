//! What runs that were killed, and so could not tidy up, have left behind. The tests of the kernel programs have this file, too.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

static SWEPT: Once = Once::new();

/// A name that no other test of any run has, for a namespace, a pin path, a directory: `mxs`, process, number. More may follow it.
pub(crate) fn name(number: u32) -> String {
    format!("mxs{}-{number}", std::process::id())
}

/// Removes what has the name of a process that is gone, once a run.
pub(crate) fn sweep() {
    SWEPT.call_once(|| {
        for namespace in of_the_dead("/run/netns".as_ref()) {
            // Another run may be sweeping too; whoever is second finds nothing.
            drop(Command::new("ip").args(["netns", "del"]).args(namespace.file_name()).output());
        }
        for directory in of_the_dead("/sys/fs/bpf".as_ref()).into_iter().chain(of_the_dead(&std::env::temp_dir())) {
            drop(std::fs::remove_dir_all(directory));
        }
    });
}

fn of_the_dead(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| owner(path).is_some_and(is_gone)).collect()
}

/// The process that a name belongs to.
fn owner(path: &Path) -> Option<u32> {
    let (process, number) = path.file_name()?.to_str()?.strip_prefix("mxs")?.split_once('-')?;
    number.starts_with(|digit: char| digit.is_ascii_digit()).then(|| process.parse().ok())?
}

fn is_gone(process: u32) -> bool {
    !Path::new("/proc").join(process.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dead_have_left_is_theirs() {
        let directory = tempfile::tempdir().unwrap();
        // There are no more than 4,194,304 processes.
        let dead = ["mxs4999999-0", "mxs4999999-12-edge"];
        for name in dead.into_iter().chain([name(3).as_str(), "mxs-edge", "mxs4999999-", "mxscreen", "mxs1-x"]) {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let mut found = of_the_dead(directory.path());
        found.sort();
        assert_eq!(found, dead.map(|name| directory.path().join(name)));
    }
}
