//! The journal, read from its oldest line on.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use super::{Entry, Segments};

/// The longest line that is an entry.
const LONGEST_LINE: u64 = 64 * 1024;
/// Bytes that are read at a time.
const BUFFER: usize = 256 * 1024;

/// The entries of a journal, one after the other. Memory is bounded whatever the segments hold.
#[derive(Debug)]
pub struct Reader {
    files: std::vec::IntoIter<PathBuf>,
    open: Option<BufReader<File>>,
    line: Vec<u8>,
    /// Bytes of all segments when the reader began.
    pub bytes: u64,
    /// Bytes that have been read.
    pub read: u64,
    /// Lines that are no entries: torn ones, or those of a version that wrote others.
    pub skipped: u64,
}

/// Reads one line, without its end; `None` if it is no entry.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Entry> {
    serde_json::from_slice(line).ok()
}

impl Reader {
    /// Reads the segments in `folder` as they are now.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn begin(folder: &Path) -> io::Result<Self> {
        let files = Segments::files(folder)?;
        let length = |path: &PathBuf| path.metadata().map_or(0, |about| about.len());
        let bytes = files.iter().map(length).sum();
        Ok(Self { files: files.into_iter(), open: None, line: Vec::new(), bytes, read: 0, skipped: 0 })
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// A segment can't be read. One that is gone by now has made room, and is no error.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let Some(open) = &mut self.open else {
                let Some(path) = self.files.next() else { return Ok(None) };
                match File::open(path) {
                    Ok(file) => self.open = Some(BufReader::with_capacity(BUFFER, file)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                continue;
            };
            self.line.clear();
            let read = open.take(LONGEST_LINE).read_until(b'\n', &mut self.line)? as u64;
            self.read += read;
            if read == 0 {
                self.open = None;
                continue;
            }
            // The rest of a line that is too long is no entry either, and skipped piece by piece.
            match self.line.strip_suffix(b"\n").unwrap_or(&self.line) {
                [] => {}
                line => match parse(line) {
                    Some(entry) => return Ok(Some(entry)),
                    None => self.skipped += 1,
                },
            }
        }
    }
}
