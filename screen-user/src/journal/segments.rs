//! The segments: files of one folder, numbered in the order in which they were begun.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::writer::Open;
use crate::config;

/// The folder in the state directory.
const FOLDER: &str = "journal";
/// How the files' names end.
const ENDING: &str = ".jsonl";
/// A journal has room for so many full segments: the oldest evidence goes in pieces of that size.
const SHARE: u64 = 8;

/// The folder of the journal in a state directory.
#[must_use]
pub fn within(state: &Path) -> PathBuf {
    state.join(FOLDER)
}

/// The segments of a journal, and how much of them is kept.
#[derive(Debug, Clone)]
pub struct Segments {
    folder: PathBuf,
    limits: config::Journal,
}

/// A segment on the disk.
#[derive(Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    bytes: u64,
    /// When it was written last.
    written: SystemTime,
}

impl Segments {
    /// The segments in `folder`.
    #[must_use]
    pub fn within(folder: PathBuf, limits: config::Journal) -> Self {
        Self { folder, limits }
    }

    /// The bytes of a full segment.
    #[must_use]
    pub fn full(limits: config::Journal) -> u64 {
        limits.max_size / SHARE
    }

    /// The files of the segments in `folder`, the oldest first.
    ///
    /// # Errors
    /// It can't be read.
    pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(list(folder)?.into_iter().map(|segment| segment.path).collect())
    }

    /// Removes what is too old, and the oldest until there is room for one more full segment.
    fn make_room(&self, mut segments: Vec<Segment>) -> io::Result<()> {
        let room = self.limits.max_size.saturating_sub(Self::full(self.limits));
        let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let now = SystemTime::now();
        segments.sort_by_key(|segment| segment.number);
        for segment in segments {
            let age = now.duration_since(segment.written).unwrap_or_default();
            if bytes > room || age > self.limits.retention {
                fs::remove_file(&segment.path)?;
                bytes = bytes.saturating_sub(segment.bytes);
            }
        }
        Ok(())
    }
}

impl Open for Segments {
    fn open(&self, fresh: bool) -> io::Result<File> {
        // What clients say to this mail server is nobody else's business.
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let segments = list(&self.folder)?;
        let last = segments.last().map_or(0, |segment| segment.number);
        let unfinished = segments.last().filter(|last| !fresh && last.bytes < Self::full(self.limits));
        let mut options = OpenOptions::new();
        options.append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = match unfinished {
            Some(segment) => options.open(&segment.path)?,
            None => {
                options.create_new(true).open(self.folder.join(format!("{:010}{ENDING}", last.saturating_add(1))))?
            }
        };
        let others = segments.len() - usize::from(unfinished.is_some());
        self.make_room(segments.into_iter().take(others).collect())?;
        Ok(file)
    }
}

/// The segments, the oldest first. Other files are left alone.
fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for file in fs::read_dir(folder)? {
        let file = file?;
        let name = file.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(ENDING)).and_then(|number| number.parse().ok());
        let Some(number) = number else { continue };
        let about = file.metadata()?;
        if about.is_file() {
            let written = about.modified()?;
            segments.push(Segment { number, path: file.path(), bytes: about.len(), written });
        }
    }
    segments.sort_by_key(|segment| segment.number);
    Ok(segments)
}
