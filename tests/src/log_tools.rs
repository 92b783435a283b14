//! What administrators have that reads the log of postscreen: Debian's pflogsumm, fail2ban and logwatch.

use std::{fs, path::Path};

use crate::{
    net::Net,
    stage,
    wait::{SOON, wait_for},
};

/// What `pflogsumm` makes of the log at `path`, which is named as Postfix's.
///
/// # Panics
///
/// When it can't be run, or fails.
#[must_use]
pub fn pflogsumm(net: &Net, path: &Path) -> String {
    run(net, "pflogsumm", &["pflogsumm", "--problems-first", "--verbose-msg-detail", &path.display().to_string()])
}

/// The addresses that fail2ban's filter for Postfix would count in the log at `path`, in the order of the lines, with the filter's mode as its
/// documentation names it.
///
/// # Panics
///
/// When it can't be run, or fails.
#[must_use]
pub fn fail2ban(net: &Net, path: &Path, mode: &str) -> Vec<String> {
    let (path, filter) = (path.display().to_string(), format!("postfix[mode={mode}]"));
    let said = run(net, "fail2ban", &["fail2ban-regex", "-c", "/etc/fail2ban", "-o", "ip", &path, &filter]);
    said.lines().map(str::to_owned).collect()
}

/// What logwatch has to say of the log at `path`: it counts what postscreen did.
///
/// # Panics
///
/// When it can't be run, or fails.
#[must_use]
pub fn logwatch(net: &Net, path: &Path) -> String {
    let script = "/usr/share/logwatch/scripts/services/postfix";
    run(net, "logwatch", &["perl", script, "--detail", "10", &path.display().to_string()])
}

/// Runs a program of an unpacked package to its end and returns what it printed.
fn run(net: &Net, package: &str, words: &[&str]) -> String {
    let directory = tempfile::tempdir_in(net.directory()).expect("a directory for a log tool");
    let mut process = stage::start(&net.edge, directory.path(), Some(&stage::unpacked(package)), "", words);
    let status = wait_for(&format!("{package} ends"), SOON, || process.ended());
    let said = fs::read_to_string(directory.path().join("output")).unwrap_or_default();
    assert!(status.success(), "{package}: {status}\n{said}");
    said
}
