//! What a reload changes, in sentences: keys by their values, files by what they hold.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::{
    config::{Config, Facts, Settings},
    net::expiry::valid_until,
};

/// A configuration as it was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) settings: Settings,
    files: BTreeMap<PathBuf, Held>,
}

/// What a file held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    digest: u64,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// So many entries.
    Entries(usize),
    /// The certificate that clients are shown, and its end, if that can be read.
    Certificate(Option<Timestamp>),
    /// What says nothing to people.
    Other,
}

impl Read {
    /// `source` is the configuration's own file, which says what its keys say.
    pub(super) fn of(settings: Settings, config: &Config, facts: &Facts, source: &Path) -> Self {
        let files = facts.files.iter().filter(|(path, _)| path.as_path() != source);
        let files = files.map(|(path, contents)| (path.clone(), Held::of(path, contents, config))).collect();
        Self { settings, files }
    }

    /// What is not as it was in `old`, a sentence each.
    pub(super) fn changes(&self, old: &Self) -> Vec<String> {
        let keys = self.settings.changes(&old.settings).into_iter().map(|(_, said)| said);
        let files = self.files.iter().filter_map(|(path, held)| {
            let said = held.since(old.files.get(path).copied())?;
            Some(format!("{}: {said}", path.display()))
        });
        let gone = old.files.keys().filter(|path| !self.files.contains_key(*path));
        let gone = gone.map(|path| format!("{}: is not read any more", path.display()));
        keys.chain(files).chain(gone).collect()
    }
}

impl Held {
    fn of(path: &Path, contents: &[u8], config: &Config) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(contents);
        let what = if config.tls.certificate.as_deref() == Some(path) {
            What::Certificate(valid_until(contents))
        } else if contents.starts_with(b"-----BEGIN") || path.starts_with("/etc/hosts") || !path.is_absolute() {
            What::Other
        } else {
            What::Entries(entries(contents))
        };
        Self { digest: hasher.finish(), what }
    }

    /// What is new of it; `None`: nothing.
    fn since(self, old: Option<Self>) -> Option<String> {
        let first = if old.is_some() { "changed" } else { "is read for the first time" };
        if old == Some(self) {
            return None;
        }
        Some(match (self.what, old.map(|old| old.what)) {
            (What::Entries(now), Some(What::Entries(before))) if now > before => {
                format!("{first}, {now} entries, {} more than before", now - before)
            }
            (What::Entries(now), Some(What::Entries(before))) if now < before => {
                format!("{first}, {now} entries, {} fewer than before", before - now)
            }
            (What::Entries(now), _) => format!("{first}, {now} entries"),
            (What::Certificate(Some(until)), _) => format!("{first}, valid until {until}"),
            (What::Certificate(None) | What::Other, _) => first.to_owned(),
        })
    }
}

/// The entries of a table: lines that are neither empty, nor comments, nor go on with the line before.
fn entries(contents: &[u8]) -> usize {
    let is_entry = |line: &&[u8]| line.first().is_some_and(|first| !b"# \t\r".contains(first));
    contents.split(|&byte| byte == b'\n').filter(is_entry).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;

    const SOURCE: &str = "/etc/mxscreen/mxscreen.toml";

    fn read(files: &[(&str, &[u8])]) -> Read {
        let loaded = load_text("", Path::new(SOURCE), &[]).unwrap();
        let mut config = loaded.config;
        config.tls.certificate = Some("/etc/mx.pem".into());
        let files = files.iter().map(|(path, contents)| (PathBuf::from(path), contents.to_vec())).collect();
        Read::of(loaded.settings, &config, &Facts { files, users: BTreeMap::new() }, Path::new(SOURCE))
    }

    #[test]
    fn files_are_told_by_what_they_hold() {
        let table = b"# a table\n192.0.2.1 reject\n\n192.0.2.2\n  reject\n";
        let old = read(&[(SOURCE, b"a"), ("/a", table), ("/gone", b""), ("/etc/hosts", b"x"), ("/same", b"1")]);
        let shorter = b"192.0.2.1 permit\n";
        let new = read(&[
            (SOURCE, b"b"),
            ("/a", shorter),
            ("/new", table),
            ("/etc/hosts", b"y"),
            ("/same", b"1"),
            ("/etc/mx.pem", b"-----BEGIN nonsense"),
            ("credential:redis", b"secret"),
        ]);
        assert_eq!(
            new.changes(&old),
            [
                "/a: changed, 1 entries, 1 fewer than before",
                "/etc/hosts: changed",
                "/etc/mx.pem: is read for the first time",
                "/new: is read for the first time, 2 entries",
                "credential:redis: is read for the first time",
                "/gone: is not read any more",
            ]
        );
        let replaced = read(&[("/a", b"192.0.2.9 permit\n")]).changes(&read(&[("/a", shorter)]));
        assert_eq!(replaced, ["/a: changed, 1 entries"]);
        assert!(read(&[("/a", table)]).changes(&read(&[("/a", table)])).is_empty());
    }
}
