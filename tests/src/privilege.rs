//! What the tests need of the machine, and what happens where it is missing.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Whether the machine has what namespace tests need. Where it has not, the test is skipped with a line on standard error that names
/// what is missing.
///
/// # Panics
///
/// Under CI (the variable `CI` is set), where a skip would hide a failure.
#[must_use]
pub fn ready() -> bool {
    static MISSING: OnceLock<Vec<&'static str>> = OnceLock::new();
    can_go_on(MISSING.get_or_init(missing))
}

/// As [`ready`], of the mail programs that stand before and behind the gate.
///
/// # Panics
///
/// As [`ready`].
#[must_use]
pub fn has_mail_programs() -> bool {
    let unpacked = |name: &str, program: &str| crate::stage::unpacked(name).join(program).is_file();
    let found = [
        (find_program("swaks").is_some(), "swaks (apt-get install swaks libnet-ssleay-perl)"),
        (find_program("nmap").is_some(), "nmap (apt-get install nmap)"),
        (find_program("openssl").is_some(), "openssl (apt-get install openssl)"),
        (find_program("python3").is_some(), "python3 (apt-get install python3)"),
        (unpacked("exim4", "usr/sbin/exim4"), "Exim under target/mta (cargo xtask setup)"),
        (unpacked("opensmtpd", "usr/sbin/smtpd"), "OpenSMTPD under target/mta (cargo xtask setup)"),
        (find_program("node").is_some(), "node (apt-get install npm)"),
        (unpacked("haraka", "node_modules/Haraka/bin/haraka"), "Haraka under target/mta (cargo xtask setup)"),
    ];
    can_go_on(&found.into_iter().filter(|(found, _)| !found).map(|(_, need)| need).collect::<Vec<_>>())
}

/// As [`ready`], of Redis.
///
/// # Panics
///
/// As [`ready`].
#[must_use]
pub fn has_redis() -> bool {
    let found = find_program("redis-server").is_some() && find_program("redis-cli").is_some();
    can_go_on(if found { &[] } else { &["redis-server (apt-get install redis-server, or cargo xtask setup)"] })
}

fn can_go_on(missing: &[&str]) -> bool {
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join(", ");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("CI").is_none(), "{test} can't run, missing: {missing}");
    // Not eprintln!, which the test runner keeps to itself when a test passes.
    drop(writeln!(std::io::stderr(), "skipped {test}, missing: {missing}"));
    false
}

fn missing() -> Vec<&'static str> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root (namespaces, veth, eBPF)");
    }
    if !Path::new("/sys/fs/bpf").is_dir() {
        missing.push("bpffs at /sys/fs/bpf");
    }
    for (program, need) in [
        ("ip", "ip (apt-get install iproute2)"),
        ("bpftool", "bpftool (apt-get install bpftool)"),
        ("setpriv", "setpriv (apt-get install util-linux)"),
        ("postconf", "postfix (apt-get install postfix)"),
    ] {
        if find_program(program).is_none() {
            missing.push(need);
        }
    }
    missing
}

/// Where `program` is installed; the system directories count even when `PATH` leaves them out.
#[must_use]
pub fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// The program under test: `MXSCREEN_BIN`, else the workspace's release build.
///
/// # Panics
///
/// When it is not there.
#[must_use]
pub fn mxscreen() -> PathBuf {
    let binary = std::env::var_os("MXSCREEN_BIN").map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
            workspace.join("target/release/mxscreen")
        },
        PathBuf::from,
    );
    assert!(binary.is_file(), "{} is not there: run `cargo xtask build` first", binary.display());
    binary
}
