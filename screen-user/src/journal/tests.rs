//! What is written is read, whatever happens to the writer and the disk.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use super::*;
use crate::{
    config::{self, LogTarget},
    operate::log::{Log, Target, Writer},
    screen::{
        found::Stood,
        outcome::{Reason, Verdict},
    },
};

const LIMITS: config::Journal = config::Journal { max_size: 64 * 1024, retention: Duration::from_secs(3600) };

fn entry(number: u64) -> Entry {
    let ends = ("192.0.2.1:25000".parse().unwrap(), "198.51.100.2:25".parse().unwrap());
    Entry::of_kernel(number, ends, (Verdict::Rejected, Reason::Barred), "operator", Stood::DenyEntry)
}

fn log(folder: &Path) -> (Log, Writer) {
    let target = LogTarget::File(folder.join("log"));
    Log::start(Target::open(&config::Log::to(target)).unwrap()).unwrap()
}

fn read(folder: &Path) -> (Vec<u64>, u64) {
    let mut reader = Reader::begin(folder).unwrap();
    let mut times = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        times.push(entry.time);
    }
    assert_eq!(reader.read, reader.bytes);
    (times, reader.skipped)
}

fn bytes(folder: &Path) -> u64 {
    Segments::files(folder).unwrap().iter().map(|file| file.metadata().unwrap().len()).sum()
}

#[test]
fn a_journal_is_continued_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let journals = within(folder.path());
    let (log, writer) = log(folder.path());
    for start in [0, 100] {
        let journal = Journal::start(LIMITS, Segments::within(journals.clone(), LIMITS), &log);
        (start..start + 100).for_each(|number| journal.keep(&entry(number)));
        journal.close();
        assert_eq!(journal.status(), JournalStatus { kept: false, written: 100, lost: 0, failing: None });
    }
    drop(log);
    writer.finish();
    assert_eq!(read(&journals), ((0..200).collect(), 0));
    assert_eq!(Segments::files(&journals).unwrap().len(), 1 + usize::from(bytes(&journals) > LIMITS.max_size / 8));
}

#[test]
fn the_oldest_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let segments = Segments::within(folder.path().to_owned(), LIMITS);
    let mut number = 0;
    let mut file = segments.open(false).unwrap();
    for _ in 0..40 {
        for _ in 0..60 {
            file.write_all(&entry(number).line().unwrap()).unwrap();
            number += 1;
        }
        assert!(bytes(folder.path()) <= LIMITS.max_size + LIMITS.max_size / 8, "{}", bytes(folder.path()));
        file = segments.open(true).unwrap();
    }
    let (times, skipped) = read(folder.path());
    assert_eq!((times.last(), skipped), (Some(&(number - 1)), 0));
    assert!(times.is_sorted_by(|one, next| one + 1 == *next) && times.len() > 200, "{} left", times.len());
}

#[test]
fn what_is_too_old_goes_and_other_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new, other) = ("0000000001.jsonl", "0000000002.jsonl", "notes.txt");
    for name in [old, new, other] {
        let file = File::create(folder.path().join(name)).unwrap();
        if name != new {
            file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
        }
    }
    drop(Segments::within(folder.path().to_owned(), LIMITS).open(true).unwrap());
    let left = |name: &str| folder.path().join(name).exists();
    assert_eq!([old, new, other, "0000000003.jsonl"].map(left), [false, true, true, true]);
}

#[test]
fn torn_lines_are_skipped_and_what_follows_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let line = |number| entry(number).line().unwrap();
    let whole = line(1);
    for cut in [1, whole.len() / 2, whole.len() - 2] {
        let torn = [&whole, whole.get(..cut).unwrap(), b"\n", &line(2)].concat();
        fs::write(folder.path().join("0000000001.jsonl"), &torn).unwrap();
        assert_eq!(read(folder.path()), (vec![1, 2], 1), "cut at {cut}");
    }
    let long = vec![b'x'; 200_000];
    fs::write(folder.path().join("0000000001.jsonl"), [&long[..], b"\n\n\xff\n", &whole].concat()).unwrap();
    assert_eq!(read(folder.path()), (vec![1], 5));
    // A line without its end is whole, if nothing is missing but that.
    fs::write(folder.path().join("0000000001.jsonl"), whole.trim_ascii_end()).unwrap();
    assert_eq!(read(folder.path()), (vec![1], 0));
}

/// A disk that is full while somebody says so.
#[derive(Debug)]
struct Full(Arc<AtomicBool>, Segments);

impl Open for Full {
    fn open(&self, fresh: bool) -> io::Result<File> {
        if self.0.load(Ordering::Acquire) { File::options().write(true).open("/dev/full") } else { self.1.open(fresh) }
    }
}

#[test]
fn a_full_disk_costs_sessions_and_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let (log, writer) = log(folder.path());
    let disk = Full(Arc::new(AtomicBool::new(true)), Segments::within(within(folder.path()), LIMITS));
    let journal = Journal::start(LIMITS, disk, &log);
    journal.keep(&entry(1));
    while journal.status().lost == 0 {
        std::thread::yield_now();
    }
    journal.keep(&entry(2));
    journal.close();
    let JournalStatus { written, lost, failing, .. } = journal.status();
    assert_eq!((written, lost), (0, 2));
    assert!(failing.unwrap().contains("No space left"));
    drop(log);
    writer.finish();
    let text = fs::read_to_string(folder.path().join("log")).unwrap();
    assert_eq!(text.matches("the journal loses sessions").count(), 1, "{text}");
}

#[test]
fn what_does_not_fit_is_lost_and_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _writer) = log(folder.path());
    let off = config::Journal { max_size: 0, ..LIMITS };
    let journal = Journal::start(off, Segments::within(within(folder.path()), off), &log);
    journal.keep(&entry(1));
    journal.close();
    assert_eq!(journal.status(), JournalStatus::default());
    assert!(!within(folder.path()).exists(), "where none is kept there is no folder");
}
