//! The file on the disk, as far as that takes rights: opened, and put aside when its content makes no sense.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The file's name in the state directory.
pub(super) const FILE_NAME: &str = "cache.redb";

/// Damaged files that are kept for a look at them; the highest number is the newest.
const DAMAGED_KEPT: u32 = 3;

/// Who can open the file: this process, or somebody who does it for a process that may not.
pub trait Disk: fmt::Debug + Send {
    /// Opens the file for reading and writing; an empty one is made where there is none.
    ///
    /// # Errors
    /// It can't be reached, which says nothing of its content.
    fn open(&self) -> io::Result<File>;

    /// Moves the file out of the way, and returns where.
    ///
    /// # Errors
    /// It is still where it was.
    fn put_aside(&self) -> io::Result<PathBuf>;

    /// What the file is called.
    fn path(&self) -> &Path;
}

/// The file in a state directory of this host.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file in `directory`, not looked at yet.
    #[must_use]
    pub fn within(directory: &Path) -> Self {
        Self { path: directory.join(FILE_NAME) }
    }
}

impl Disk for StateFile {
    fn open(&self) -> io::Result<File> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            // Who talks to this mail server is nobody else's business.
            .mode(0o600)
            // A pipe in the file's place must not hang the start.
            .custom_flags(libc::O_NONBLOCK)
            .open(&self.path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
    }

    fn put_aside(&self) -> io::Result<PathBuf> {
        let numbered = |number: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".damaged-{number}"));
            PathBuf::from(name)
        };
        let free = (1..=DAMAGED_KEPT).find(|number| !numbered(*number).exists());
        let target = match free {
            Some(number) => numbered(number),
            None => {
                for number in 1..DAMAGED_KEPT {
                    fs::rename(numbered(number + 1), numbered(number))?;
                }
                numbered(DAMAGED_KEPT)
            }
        };
        fs::rename(&self.path, &target)?;
        Ok(target)
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
