//! The directory of block lists: watched here, read by the screener from descriptors.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    mem::MaybeUninit,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{
    Mode, OFlags,
    inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use crate::{
    access::blocklist::read::{LIST_BYTES, too_long},
    kernel::Readable,
};

/// How long a file that was written and closed has to rest: a writer may open it again for its next piece.
const REST: Duration = Duration::from_secs(1);
/// How long one has to rest that is written and was not closed.
const LONG_REST: Duration = Duration::from_secs(10);
/// Between two attempts to watch a directory that is not there.
const RETRY: Duration = Duration::from_secs(5);
/// The most files.
const MOST_FILES: usize = 256;
/// Endings of files that are no lists yet, or no more.
const PASSING: [&str; 9] = ["~", ".swp", ".swo", ".swx", ".tmp", ".part", ".bak", ".dpkg-new", ".dpkg-old"];

/// A file of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListFile {
    /// Its name.
    pub name: String,
    /// What it is at the moment; none: it is being written.
    pub stamp: Option<Stamp>,
}

/// What changes whenever a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    inode: u64,
    bytes: u64,
    /// When it was changed last: seconds and nanoseconds of Unix time.
    changed: (i64, i64),
}

impl Stamp {
    /// That of a file.
    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        // Other than the time of modification, nobody can set that of the change.
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Self { inode: metadata.ino(), bytes: metadata.len(), changed }
    }
}

/// The watched directory.
#[derive(Debug)]
pub(super) struct Watch {
    directory: PathBuf,
    /// None: it could not be watched when it was tried last.
    events: Option<Readable>,
    /// When it is tried again.
    retry: Instant,
    /// Files that are being written, and when they have rested.
    unsettled: BTreeMap<OsString, Instant>,
}

impl Watch {
    /// Begins to watch. A directory that is not there is watched once it is.
    pub(super) fn begin(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            events: watch(directory).ok(),
            retry: Instant::now() + RETRY,
            unsettled: BTreeMap::new(),
        }
    }

    /// Which directory it is.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Waits until it is worth looking at the files again. Whoever gives up waiting loses nothing.
    pub(super) async fn changed(&mut self) {
        loop {
            let Some(events) = &self.events else {
                sleep_until(self.retry).await;
                self.retry = Instant::now() + RETRY;
                self.events = watch(&self.directory).ok();
                if self.events.is_some() {
                    return;
                }
                continue;
            };
            let rested = self.unsettled.values().min().copied();
            tokio::select! {
                // It only fails where the runtime ends.
                _ = events.wait() => {
                    if self.take_events() {
                        return;
                    }
                }
                () = sleep_until(rested.unwrap_or_else(Instant::now)), if rested.is_some() => {
                    let now = Instant::now();
                    self.unsettled.retain(|_, rested| *rested > now);
                    return;
                }
            }
        }
    }

    /// Takes note of what has happened; returns whether any of it is complete.
    fn take_events(&mut self) -> bool {
        let Some(events) = &self.events else { return false };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(events, &mut buffer);
        let mut complete = false;
        let mut lost = false;
        // Nothing more at the moment, or nothing more at all: then the next look finds out.
        while let Ok(event) = reader.next() {
            let what = event.events();
            if what.intersects(ReadFlags::IGNORED | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT) {
                lost = true;
            }
            let Some(name) = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes())) else {
                // Of the directory itself, or that events were left out.
                complete = true;
                continue;
            };
            if is_passing(name) {
                continue;
            }
            let rest = if what.intersects(ReadFlags::MOVED_TO | ReadFlags::MOVED_FROM | ReadFlags::DELETE) {
                self.unsettled.remove(name);
                complete = true;
                continue;
            } else if what.intersects(ReadFlags::MODIFY | ReadFlags::CREATE) {
                LONG_REST
            } else {
                REST
            };
            self.unsettled.insert(name.to_owned(), Instant::now() + rest);
        }
        if lost {
            self.events = None;
            self.unsettled.clear();
        }
        complete
    }

    /// The files that may be lists, by name.
    pub(super) fn files(&mut self) -> io::Result<Vec<ListFile>> {
        self.take_events();
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let Some(text) = name.to_str().filter(|_| !is_passing(&name)) else { continue };
            // One that has gone by now is none, and what is no file neither.
            let Ok(metadata) = fs::metadata(self.directory.join(&name)) else { continue };
            if !metadata.is_file() {
                continue;
            }
            if files.len() == MOST_FILES {
                return Err(io::Error::other(format!("more than {MOST_FILES} files")));
            }
            let stamp = (!self.unsettled.contains_key(&name)).then(|| Stamp::of(&metadata));
            files.push(ListFile { name: text.to_owned(), stamp });
        }
        files.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(files)
    }

    /// One of them, open; none: it is being written.
    pub(super) fn open(&mut self, name: &str) -> io::Result<Option<(File, Stamp)>> {
        let path = Path::new(name);
        if path.file_name() != Some(path.as_os_str()) || is_passing(path.as_os_str()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no list of the directory"));
        }
        // A pipe must not keep the keeper waiting.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(self.directory.join(path), flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        if metadata.len() > LIST_BYTES {
            return Err(too_long());
        }
        // Whoever writes from now on changes the stamp.
        let stamp = Stamp::of(&metadata);
        self.take_events();
        Ok((!self.unsettled.contains_key(path.as_os_str())).then_some((file, stamp)))
    }
}

/// Waits for [`Watch::changed`]; where nothing is watched, for ever.
pub(super) async fn changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

fn watch(directory: &Path) -> io::Result<Readable> {
    let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let what = WatchFlags::CLOSE_WRITE
        | WatchFlags::MODIFY
        | WatchFlags::ATTRIB
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR;
    add_watch(&inotify, directory, what)?;
    Readable::new(inotify)
}

/// Whether a file of this name is none that stays: hidden, or an editor's or a downloader's own.
fn is_passing(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b".") || name.starts_with(b"#") || PASSING.iter().any(|ending| name.ends_with(ending.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(watch: &mut Watch) -> Vec<(String, bool)> {
        watch.files().unwrap().into_iter().map(|file| (file.name, file.stamp.is_some())).collect()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_file_that_is_written_is_complete_once_it_rests() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::begin(folder.path());
        fs::write(folder.path().join(".hidden"), "x").unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        let mut file = File::create(folder.path().join("list")).unwrap();
        file.write_all(b"192.0.2.1\n").unwrap();
        assert_eq!(names(&mut watch), [("list".to_owned(), false)]);
        assert!(watch.open("list").unwrap().is_none());
        drop(file);
        assert_eq!(names(&mut watch), [("list".to_owned(), false)], "it may be opened again");
        watch.changed().await;
        assert_eq!(names(&mut watch), [("list".to_owned(), true)]);
        let (_, stamp) = watch.open("list").unwrap().unwrap();
        assert_eq!(watch.files().unwrap()[0].stamp, Some(stamp));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_file_that_is_renamed_is_complete_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::begin(folder.path());
        let path = folder.path().join("list");
        fs::write(folder.path().join(".list"), "192.0.2.1\n").unwrap();
        fs::rename(folder.path().join(".list"), &path).unwrap();
        let (mut list, first) = watch.open("list").unwrap().unwrap();
        let mut content = String::new();
        io::Read::read_to_string(&mut list, &mut content).unwrap();
        assert_eq!(content, "192.0.2.1\n");
        // The same length, and perhaps within the same tick of the clock.
        fs::write(folder.path().join(".list"), "192.0.2.2\n").unwrap();
        fs::rename(folder.path().join(".list"), &path).unwrap();
        assert_ne!(watch.open("list").unwrap().unwrap().1, first);
        fs::remove_file(&path).unwrap();
        assert!(names(&mut watch).is_empty());
        assert_eq!(watch.open("list").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn only_files_of_the_directory_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let lists = folder.path().join("lists");
        fs::create_dir(&lists).unwrap();
        fs::write(folder.path().join("secret"), "x").unwrap();
        fs::write(lists.join(".hidden"), "x").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, lists.join("pipe"), Mode::RUSR).unwrap();
        let mut watch = Watch::begin(&lists);
        for bad in ["../secret", "/etc/passwd", "", ".", "..", ".hidden", "./x", "pipe", "x/"] {
            assert!(watch.open(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_directory_that_goes_and_comes_is_watched_again() {
        let folder = tempfile::tempdir().unwrap();
        let lists = folder.path().join("lists");
        let mut watch = Watch::begin(&lists);
        assert_eq!(watch.files().unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir(&lists).unwrap();
        // It is not waited for in one piece: other things happen meanwhile.
        while tokio::time::timeout(Duration::from_millis(300), watch.changed()).await.is_err() {}
        fs::write(lists.join("list"), "x").unwrap();
        watch.changed().await;
        assert_eq!(names(&mut watch), [("list".to_owned(), true)]);
        fs::remove_dir_all(&lists).unwrap();
        watch.changed().await;
        assert!(watch.files().is_err());
    }
}
