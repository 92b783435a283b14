//! What the gate reads and writes: whether its account is there, what is secret, and what room the disk has.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::{sys::statvfs::statvfs, unistd::User};

use super::finding::{Finding, Grade};
use crate::config::{CacheBackend, Config, Facts, LogTarget};

/// How the kernel calls the part of a key that is kept secret.
const KEY: &[u8] = b"PRIVATE KEY-----";
/// A file that everybody may read, a directory that everybody may pass (`S_IROTH`, `S_IXOTH`).
const READ_BY_OTHERS: u32 = 0o4;
const PASSED_BY_OTHERS: u32 = 0o1;
/// The share of a file system that should be free, in hundredths.
const ENOUGH: u64 = 5;

/// What was found of files.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// The screener's account, if it is missing.
    no_account: Option<String>,
    /// Files with a secret, and whether everybody may read them.
    secrets: Vec<(PathBuf, bool)>,
    /// Places that are written to, and how many hundredths of their file system are free; `None` where that could not be read.
    room: Vec<(PathBuf, Option<u64>)>,
}

impl Files {
    /// `facts`: what the configuration was made of besides itself, which stands at `path`.
    pub(super) fn read(config: &Config, facts: &Facts, path: &Path) -> Self {
        let password = match &config.cache.backend {
            CacheBackend::Redis(redis) => redis.password.as_ref().map(|password| password.expose().as_bytes()),
            CacheBackend::Embedded | CacheBackend::Memory => None,
        };
        let is_secret = |text: &[u8]| {
            let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
            text.windows(KEY.len()).any(|part| part == KEY) || password.is_some_and(|password| line == password)
        };
        let named = facts.files.iter().filter(|(_, text)| is_secret(text)).map(|(path, _)| path.clone());
        let own = fs::read_to_string(path).is_ok_and(|text| has_password(&text)).then(|| path.to_owned());
        // What the service manager hands over has no path.
        let secrets = named.chain(own).filter(|path| path.is_absolute());
        let log = match &config.log.target {
            LogTarget::File(path) => Some(path.as_path()),
            LogTarget::Stderr | LogTarget::Journald | LogTarget::Syslog => None,
        };
        let written = [Some(config.state_directory.as_path()), log].into_iter().flatten();
        Self {
            no_account: User::from_name(&config.user).ok().flatten().is_none().then(|| config.user.clone()),
            secrets: secrets.map(|path| (path.clone(), is_open(&path))).collect(),
            room: written.map(|path| (path.to_owned(), room(path))).collect(),
        }
    }
}

/// Whether a URL in a configuration has a password.
fn has_password(text: &str) -> bool {
    let urls = text.split('"').filter(|part| part.starts_with("redis")).filter_map(|part| part.split_once("://"));
    let credentials = urls.filter_map(|(_, rest)| rest.split_once('@'));
    credentials.filter_map(|(both, _)| both.split_once(':')).any(|(_, password)| !password.is_empty())
}

/// Whether everybody may read the file, and pass all directories above it.
fn is_open(path: &Path) -> bool {
    let may = |path: &Path, bit| fs::metadata(path).is_ok_and(|data| data.mode() & bit != 0);
    may(path, READ_BY_OTHERS) && path.ancestors().skip(1).all(|above| may(above, PASSED_BY_OTHERS))
}

/// What is free where `path` is, or will be, in hundredths.
fn room(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|ancestor| ancestor.exists())?;
    let disk = statvfs(there).ok()?;
    (disk.blocks_available() * 100).checked_div(disk.blocks())
}

const fn finding(grade: Grade, what: String, mend: Option<String>) -> Finding {
    Finding { subject: "files", grade, what, mend }
}

pub(super) fn judge(files: &Files) -> Vec<Finding> {
    let account = files.no_account.as_ref().map(|name| {
        let what = format!("there is no account {name}, and the screener runs as nobody (user)");
        finding(Grade::Note, what, Some(format!("useradd --system --shell /usr/sbin/nologin {name}")))
    });
    let secrets = files.secrets.iter().map(|(path, open)| {
        let path = path.display();
        if *open {
            let what = format!("{path} holds a secret, and everybody on this host may read it");
            finding(Grade::Wrong, what, Some(format!("chmod o= {path}")))
        } else {
            finding(Grade::Fine, format!("{path} holds a secret, and not everybody may read it"), None)
        }
    });
    let room = files.room.iter().map(|(path, free)| {
        let path = path.display();
        match free {
            None => finding(Grade::Unknown, format!("what room the disk has at {path} can't be read"), None),
            Some(free) if *free < ENOUGH => {
                let what = format!("the disk is full but for {free} % at {path}");
                finding(Grade::Wrong, what, Some(format!("df -h {path}")))
            }
            Some(free) => finding(Grade::Fine, format!("{free} % of the disk are free at {path}"), None),
        }
    });
    account.into_iter().chain(secrets).chain(room).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_open_where_everybody_gets_to_it() {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let key = directory.path().join("key.pem");
        fs::write(&key, "-----BEGIN PRIVATE KEY-----").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for (above, own, open) in [(0o755, 0o644, true), (0o755, 0o640, false), (0o700, 0o644, false)] {
            set(directory.path(), above);
            set(&key, own);
            assert_eq!(is_open(&key), open, "{above:o} {own:o}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_one() {
        assert!(has_password(r#"urls = ["redis://192.0.2.5", "rediss://mxscreen:secret@192.0.2.6:6379/0"]"#));
        assert!(has_password(r#"urls = ["redis://:secret@192.0.2.5"]"#));
        for without in [r#"urls = ["redis://192.0.2.5:6379"]"#, r#"urls = ["redis://mxscreen@192.0.2.5"]"#, "a:b@c"] {
            assert!(!has_password(without), "{without}");
        }
    }

    #[test]
    fn what_is_wrong_has_a_command() {
        let files = Files {
            no_account: Some("mxs".into()),
            secrets: vec![("/etc/key".into(), true), ("/etc/other".into(), false)],
            room: vec![("/var/lib".into(), Some(4)), ("/var/log".into(), Some(5)), ("/x".into(), None)],
        };
        let told: Vec<_> = judge(&files).into_iter().map(|finding| (finding.grade, finding.mend)).collect();
        let mend = |command: &str| Some(command.to_owned());
        assert_eq!(
            told,
            [
                (Grade::Note, mend("useradd --system --shell /usr/sbin/nologin mxs")),
                (Grade::Wrong, mend("chmod o= /etc/key")),
                (Grade::Fine, None),
                (Grade::Wrong, mend("df -h /var/lib")),
                (Grade::Fine, None),
                (Grade::Unknown, None),
            ]
        );
        assert!(judge(&Files::default()).is_empty());
    }
}
