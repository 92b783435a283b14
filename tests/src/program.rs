//! Programs that a test puts in place, to be run from there.
//!
//! Another process writes them. A file that is open for writing can't be executed (execve(2), `ETXTBSY`), and what one test has open
//! every child has open too that another test starts at that moment, until it executes its own program.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::privilege::mxscreen;

/// Copies the program under test.
///
/// # Panics
///
/// When it can't be copied.
pub fn copy_mxscreen(to: &Path) {
    let status = Command::new("cp").arg(mxscreen()).arg(to).status().expect("cp starts");
    assert!(status.success(), "can't copy the program to {}: {status}", to.display());
}

/// Writes a script that anyone may run, in place of what was there.
///
/// # Panics
///
/// When it can't be written.
pub fn write_script(to: &Path, text: &str) {
    let mut install = Command::new("install");
    install.args(["-m", "0755", "/dev/stdin"]).arg(to).stdin(Stdio::piped());
    let mut child = install.spawn().expect("install starts");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("install reads");
    let status = child.wait().expect("install ends");
    assert!(status.success(), "can't write {}: {status}", to.display());
}
