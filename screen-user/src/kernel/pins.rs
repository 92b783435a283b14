//! The directory that maps and links are pinned in, and whose it is.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::{
        fd::BorrowedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use aya::{
    maps::MapData,
    programs::links::{FdLink, PinnedLink},
};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::geteuid,
};

use super::{KernelError, interfaces, syscall};

/// The mode of a pin directory: whoever can open it could lock it, and keep the gate from starting.
const CLOSED: u32 = 0o700;

/// A pin directory that this gate holds. Dropping it removes every pin and detaches every program, unless they are to stay.
#[derive(Debug)]
pub(super) struct Pins {
    path: PathBuf,
    /// Held as long as this gate lives; the kernel lets go of it when the process ends, however it ends.
    _lock: Flock<File>,
    links: Mutex<Vec<(String, PinnedLink)>>,
    /// Whether everything is to stay when this goes.
    left: AtomicBool,
}

impl Pins {
    /// Takes the directory at `path` (on a BPF file system), which is made if it is not there. What a dead gate left in it stays for now.
    pub(super) fn take(path: &Path) -> Result<Self, KernelError> {
        loop {
            DirBuilder::new()
                .recursive(true)
                .mode(CLOSED)
                .create(path)
                .map_err(|error| KernelError::system(format!("make {}", path.display()), error))?;
            let directory = match File::open(path) {
                // Another gate that stops may remove the directory at any of these steps.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(|error| KernelError::system(format!("open {}", path.display()), error))?,
            };
            close(&directory, path)?;
            if let Some(pins) = Self::lock(directory, path)? {
                return Ok(pins);
            }
        }
    }

    /// Takes the open directory, unless it is not the one at `path` any more.
    fn lock(directory: File, path: &Path) -> Result<Option<Self>, KernelError> {
        let lock = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Err(KernelError::InUse { path: path.to_owned() }),
            Err((_, error)) => return Err(KernelError::system(format!("lock {}", path.display()), error.into())),
        };
        Ok(same_file(&lock, path).then(|| Self {
            path: path.to_owned(),
            _lock: lock,
            links: Mutex::default(),
            left: AtomicBool::new(false),
        }))
    }

    /// Removes what a dead gate left, which detaches its programs.
    pub(super) fn clear(&self) {
        self.remove();
    }

    /// Makes the directories, where they are not there.
    pub(super) fn prepare(&self) -> Result<(), KernelError> {
        for directory in ["maps", "links"] {
            let path = self.path.join(directory);
            fs::create_dir_all(&path)
                .map_err(|error| KernelError::system(format!("make {}", path.display()), error))?;
        }
        Ok(())
    }

    /// From now on everything stays when this goes, or nothing does.
    pub(super) fn leave(&self, everything: bool) {
        self.left.store(everything, Ordering::Release);
    }

    /// Pins `map` as `name`, in place of what is pinned there.
    pub(super) fn put_map(&self, map: &MapData, name: &str) -> Result<(), KernelError> {
        let path = self.map(name);
        let beside = self.map(&format!("{name}_new"));
        let failed = |error| KernelError::system(format!("pin {}", path.display()), error);
        if path.exists() {
            map.pin(&beside).map_err(|error| failed(io::Error::other(error)))?;
            fs::rename(&beside, &path).map_err(failed)
        } else {
            map.pin(&path).map_err(|error| failed(io::Error::other(error)))
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the link that a dead gate pinned as `name` a new program; returns whether there is one.
    pub(super) fn succeed(&self, name: &str, program: BorrowedFd<'_>) -> Result<bool, KernelError> {
        let path = self.link(name);
        if !path.exists() {
            return Ok(false);
        }
        match syscall::update_link(&path, program) {
            Ok(()) => {
                let link = PinnedLink::from_pin(&path).map_err(|error| {
                    KernelError::system(format!("open {}", path.display()), io::Error::other(error))
                })?;
                self.links().push((name.to_owned(), link));
                Ok(true)
            }
            // What it was attached to is gone, or takes no new program: it is attached anew.
            Err(error) => {
                tracing::debug!("{}: {error}", path.display());
                self.release(|link| link == name);
                Ok(false)
            }
        }
    }

    /// Where the map `name` is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.path.join("maps").join(name)
    }

    /// Where the link `name` is pinned.
    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.path.join("links").join(name)
    }

    /// Pins `link` as `name` and keeps it.
    pub(super) fn keep(&self, link: FdLink, name: &str) -> Result<(), KernelError> {
        let path = self.link(name);
        let pinned = link
            .pin(&path)
            .map_err(|error| KernelError::system(format!("pin {}", path.display()), io::Error::other(error)))?;
        self.links().push((name.to_owned(), pinned));
        Ok(())
    }

    /// Detaches the links whose names satisfy `which`, and removes their pins.
    pub(super) fn release(&self, which: impl Fn(&str) -> bool) {
        // Removing a pin detaches the program only some time later, and whoever attaches next may find the place taken. A dead
        // gate's links stand in the directory alone.
        for entry in fs::read_dir(self.path.join("links")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| which(name)) else { continue };
            let detached = if interfaces::detach_filter(name) { Ok(()) } else { syscall::detach(&entry.path()) };
            if let Err(error) = detached.and_then(|()| fs::remove_file(entry.path())) {
                tracing::warn!("cannot remove {}: {error}", entry.path().display());
            }
        }
        self.links().retain(|(name, _)| !which(name));
    }

    fn links(&self) -> MutexGuard<'_, Vec<(String, PinnedLink)>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self) {
        // Links first: a program without its maps' pins still decides, one without its link does not.
        self.release(|_| true);
        for entry in fs::read_dir(self.path.join("maps")).into_iter().flatten().flatten() {
            if let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!("cannot remove {}: {error}", entry.path().display());
            }
        }
        for directory in ["links", "maps"] {
            // Not there, or somebody else put something in it: neither is ours to mend.
            let _: io::Result<()> = fs::remove_dir(self.path.join(directory));
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if self.left.load(Ordering::Acquire) {
            return;
        }
        self.remove();
        let _: io::Result<()> = fs::remove_dir(&self.path);
    }
}

/// The names and paths of the links that are pinned under `path`, whoever holds it.
pub(super) fn pinned_links(path: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = fs::read_dir(path.join("links")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

/// Keeps everybody else out of the pin directory. In a BPF file system anybody may make one.
fn close(directory: &File, path: &Path) -> Result<(), KernelError> {
    let failed = |error| KernelError::system(format!("close {} to others", path.display()), error);
    let owner = directory.metadata().map_err(failed)?.uid();
    if owner != geteuid().as_raw() {
        return Err(KernelError::Missing {
            what: format!("{} was made by user {owner}, who could take what is pinned in it away", path.display()),
            remedy: format!("rm -r {}", path.display()),
        });
    }
    directory.set_permissions(Permissions::from_mode(CLOSED)).map_err(failed)
}

/// Removes what a gate that is gone left under `path`, in this network namespace: its programs, maps and pins. Returns whether there was something.
///
/// # Errors
/// A gate is at work there, or a privilege is missing.
pub fn remove_left(path: &Path) -> Result<bool, KernelError> {
    match File::open(path) {
        // Whose it is does not matter, as nothing in it is used.
        Ok(directory) => Pins::lock(directory, path).map(|pins| pins.is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(KernelError::system(format!("open {}", path.display()), error)),
    }
}

/// Whether `path` still leads to the open directory.
fn same_file(directory: &File, path: &Path) -> bool {
    match (directory.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}
