//! What a configuration takes from the host that it is for: files, accounts, the host's own name.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The variable that says where systemd puts credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Where those of the package's unit are while it runs, for commands beside it: root sees them.
const OF_THE_UNIT: &str = "/run/credentials/mxscreen.service";

/// How a credential is named in the place of a file (systemd.exec(5), `LoadCredential=`).
const CREDENTIAL: &str = "credential:";

/// Where a configuration finds what it names.
///
/// Of the host itself everything that was asked is remembered, so that a process that may not open files can read the same
/// configuration again from [`Host::facts`].
#[derive(Debug)]
pub struct Host {
    live: bool,
    facts: Mutex<Facts>,
}

/// What was found on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Contents of files, by the names by which they were asked for.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// The numbers of users that there are, by name.
    pub users: BTreeMap<String, u32>,
}

impl Host {
    /// The host that this process runs on.
    #[must_use]
    pub fn here() -> Self {
        Self { live: true, facts: Mutex::default() }
    }

    /// A host of which only this is known.
    #[must_use]
    pub fn remembered(facts: Facts) -> Self {
        Self { live: false, facts: Mutex::new(facts) }
    }

    /// What was asked and found.
    #[must_use]
    pub fn facts(self) -> Facts {
        self.facts.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// The contents of a regular file, or of a credential that the service manager has handed over: `credential:NAME`.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if let Some(name) = path.to_str().and_then(|path| path.strip_prefix(CREDENTIAL)) {
            return self.credential(path, name);
        }
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.live {
            return facts.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into());
        }
        // A pipe would keep a start, or a reload, waiting for ever.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let contents = fs::read(path)?;
        facts.files.insert(path.to_owned(), contents.clone());
        Ok(contents)
    }

    /// The contents of the credential `name`, remembered by its whole name.
    fn credential(&self, whole: &Path, name: &str) -> io::Result<Vec<u8>> {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.live {
            return facts.files.get(whole).cloned().ok_or_else(|| io::ErrorKind::NotFound.into());
        }
        let directory = std::env::var_os(CREDENTIALS).map(PathBuf::from);
        let directory = directory.or_else(|| Some(PathBuf::from(OF_THE_UNIT)).filter(|there| there.is_dir()));
        let directory = directory.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("the service manager has handed over none ({CREDENTIALS} is not set)"),
            )
        })?;
        if name.is_empty() || name.contains('/') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "that is no name of a credential"));
        }
        let contents = fs::read(directory.join(name))?;
        facts.files.insert(whole.to_owned(), contents.clone());
        Ok(contents)
    }

    /// The number of the user `name`, if there is one.
    pub(super) fn uid(&self, name: &str) -> Option<u32> {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.live {
            return facts.users.get(name).copied();
        }
        let uid = nix::unistd::User::from_name(name).ok().flatten()?.uid.as_raw();
        facts.users.insert(name.to_owned(), uid);
        Some(uid)
    }

    /// The host's name with its domain where that is known: from the kernel, completed by `/etc/hosts`, never by a look-up.
    pub(super) fn fqdn(&self) -> String {
        let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let hosts = self.read(Path::new("/etc/hosts")).unwrap_or_default();
        let name = name.trim().trim_end_matches('.');
        if name.is_empty() { "localhost".to_owned() } else { complete(name, &String::from_utf8_lossy(&hosts)) }
    }
}

/// `name` with the domain that a line of the hosts file gives it.
fn complete(name: &str, hosts: &str) -> String {
    if name.contains('.') {
        return name.to_owned();
    }
    for line in hosts.lines() {
        let names = || line.split('#').next().unwrap_or_default().split_ascii_whitespace().skip(1);
        if names().any(|alias| alias.eq_ignore_ascii_case(name)) {
            let full = names().find(|alias| alias.contains('.') && !alias.starts_with("localhost."));
            if let Some(full) = full {
                return full.to_owned();
            }
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_gets_its_domain_from_the_hosts_file() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 mx.example.test mx # mx.wrong.test\n";
        assert_eq!(complete("mx", hosts), "mx.example.test");
        assert_eq!(complete("mail", hosts), "mail");
        assert_eq!(complete("mail.example.net", hosts), "mail.example.net");
        assert_eq!(complete("localhost", "127.0.0.1 localhost.localdomain localhost"), "localhost");
    }

    #[test]
    fn what_was_asked_is_remembered_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (asked, other) = (folder.path().join("asked"), folder.path().join("other"));
        fs::write(&asked, "one").unwrap();
        fs::write(&other, "two").unwrap();
        let here = Host::here();
        assert_eq!(here.read(&asked).unwrap(), b"one");
        assert_eq!(here.uid("root"), Some(0));
        assert_eq!(here.uid("nobody.of.this.name"), None);
        assert!(here.read(folder.path()).unwrap_err().to_string().contains("not a file"));
        assert!(here.read(Path::new("credential:a/b")).is_err());

        fs::write(&asked, "changed").unwrap();
        let mut facts = here.facts();
        facts.files.insert("credential:key".into(), b"secret".to_vec());
        let remembered = Host::remembered(facts);
        assert_eq!(remembered.read(Path::new("credential:key")).unwrap(), b"secret");
        assert_eq!(remembered.read(Path::new("credential:other")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(remembered.read(&asked).unwrap(), b"one");
        assert_eq!(remembered.read(&other).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(remembered.uid("root"), Some(0));
    }
}
