//! What the kernel half needs of the host, looked at before a gate is started.

use std::{error::Error as _, fs, path::Path};

use super::{KernelError, cgroup, host, object};

/// Something that the kernel half needs.
#[derive(Debug)]
pub struct Demand {
    /// What is there, in words, or why it is not.
    pub met: Result<String, KernelError>,
    /// Whether a gate does not start without it.
    pub needed: bool,
}

/// Looks at one thing after the other, for a gate that pins below `pin_path`. The kernel gets the programs to verify, and forgets them again;
/// nothing is attached, pinned or mounted.
#[must_use]
pub fn demands(pin_path: &Path) -> Vec<Demand> {
    let needed = |met: Result<String, KernelError>| Demand { met, needed: true };
    let privileges = host::check_privileges();
    let allowed = privileges.is_ok();
    let mut demands = vec![
        needed(host::require_kernel().map(|()| version())),
        needed(privileges.map(|()| "the privileges for the kernel programs are there".to_owned())),
        needed(host::find_bpf_fs(pin_path)),
        needed(cgroup::root().map(|_| "a cgroup2 file system is there".to_owned())),
    ];
    // Without privileges nothing else would be heard of the programs.
    if allowed {
        demands.extend(programs());
    }
    demands
}

fn version() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {} has what the programs need", release.trim_end())
}

fn programs() -> Vec<Demand> {
    let mut ebpf = match object::make_maps(false, None) {
        Ok(ebpf) => ebpf,
        Err(error) => return vec![Demand { met: Err(error), needed: true }],
    };
    let loaded = object::load(&mut ebpf).map(|()| "the kernel takes the programs".to_owned());
    let walk = object::load_walk(&mut ebpf).map(|()| "the kernel takes the program that looks at sockets".to_owned());
    vec![Demand { met: loaded, needed: true }, Demand { met: walk, needed: false }]
}

impl KernelError {
    /// What is wrong, in one line, and what mends it, if that is known.
    #[must_use]
    pub fn apart(&self) -> (String, Option<String>) {
        match self {
            Self::Missing { what, remedy } => (what.clone(), Some(remedy.clone())),
            Self::Privilege { .. } => (self.to_string(), Some("sudo mxscreen doctor".to_owned())),
            _ => {
                let mut line = self.to_string();
                let mut cause = self.source();
                while let Some(error) = cause {
                    line.push_str(": ");
                    // What the verifier has to say fills pages.
                    line.push_str(error.to_string().lines().next().unwrap_or_default());
                    cause = error.source();
                }
                (line, None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_error_is_told_apart_from_what_mends_it() {
        let missing = KernelError::Missing { what: "it is not there".into(), remedy: "make it".into() };
        assert_eq!(missing.apart(), ("it is not there".to_owned(), Some("make it".to_owned())));
        let long = KernelError::system("load", io::Error::other("it is wrong\n1: r0 = 0"));
        assert_eq!(long.apart(), ("load: it is wrong".to_owned(), None));
    }

    #[test]
    fn a_path_that_is_on_no_bpf_file_system_is_found() {
        let demands = demands(Path::new("/proc/no/pins"));
        let missing = demands.iter().filter_map(|demand| demand.met.as_ref().err());
        assert!(missing.map(KernelError::apart).any(|(what, _)| what.contains("/proc/no/pins")), "{demands:?}");
    }
}
