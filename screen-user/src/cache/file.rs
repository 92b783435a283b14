//! What is in the file: checked, read, written.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadableDatabase as _, ReadableTable, StorageError, TableDefinition,
    backends::FileBackend,
};

use super::{
    codec::{self, KEY},
    disk::Disk,
    writer::Batch,
};
use crate::share::Hosts;

const RECORDS: TableDefinition<'_, &[u8; KEY], &[u8]> = TableDefinition::new("records");
const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The key in [`META`] under which the version of the tables stands.
const FORMAT: &str = "format";

/// The version of the tables.
const FORMAT_VERSION: u64 = 1;

/// What redb keeps of the file in memory, in bytes.
const PAGE_CACHE: usize = 16 << 20;

/// The file, open or not.
#[derive(Debug)]
pub(super) struct CacheFile {
    disk: Box<dyn Disk>,
    hosts: Arc<Hosts>,
    /// Records whose passes all ended before, in Unix time, leave the file.
    oldest: u64,
}

/// The table of records as it is at one moment, whatever is written afterwards.
pub(super) type Snapshot = ReadOnlyTable<&'static [u8; KEY], &'static [u8]>;

/// What an attempt to open the file gave.
#[derive(Default)]
pub(super) struct Loaded {
    /// The open file, unless it can't be used.
    pub(super) database: Option<Database>,
    /// Its records, not read yet. The file is not closed before this is dropped.
    pub(super) snapshot: Option<Snapshot>,
    /// Its run-time entries.
    pub(super) entries: Vec<(String, Vec<u8>)>,
    /// What is wrong with it.
    pub(super) complaint: Option<String>,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    /// Its content makes no sense, or not to us: a new one is started in its place.
    #[error("{0}")]
    Content(String),
    /// It can't be reached, which says nothing of its content.
    #[error("{0}")]
    Access(String),
}

impl CacheFile {
    /// The file that `disk` opens, not looked at yet. Its records name `hosts`.
    pub(super) fn on(disk: Box<dyn Disk>, hosts: Arc<Hosts>, oldest: u64) -> Self {
        Self { disk, hosts, oldest }
    }

    /// Opens the file, makes it if it is not there, and starts a new one if it makes no sense. Reads all but the records.
    pub(super) fn open(&self) -> Loaded {
        match self.attempt() {
            Ok(loaded) => loaded,
            Err(Unusable::Access(why)) => {
                Loaded { complaint: Some(format!("{}: {why}; nothing is kept", self.shown())), ..Loaded::default() }
            }
            Err(Unusable::Content(why)) => {
                let aside = match self.disk.put_aside() {
                    Ok(aside) => aside,
                    Err(error) => {
                        let complaint =
                            format!("{}: {why}; it can't be put aside ({error}); nothing is kept", self.shown());
                        return Loaded { complaint: Some(complaint), ..Loaded::default() };
                    }
                };
                let begun = format!("{}: {why}; put aside as {}", self.shown(), aside.display());
                match self.attempt() {
                    Ok(loaded) => Loaded { complaint: Some(format!("{begun}, started empty")), ..loaded },
                    Err(error) => Loaded { complaint: Some(format!("{begun}; {error}")), ..Loaded::default() },
                }
            }
        }
    }

    /// Writes a batch in one transaction.
    pub(super) fn write(&self, database: &Database, batch: &Batch) -> Result<(), String> {
        guarded(|| {
            let transaction = database.begin_write().map_err(text)?;
            {
                let mut records = transaction.open_table(RECORDS).map_err(text)?;
                for (client, record) in &batch.records {
                    let key = codec::key(*client);
                    match record {
                        Some(record) => {
                            records.insert(&key, codec::value(record, &self.hosts).as_slice()).map_err(text)?
                        }
                        None => records.remove(&key).map_err(text)?,
                    };
                }
                for key in &batch.stale {
                    // A session may have learnt something of this client since.
                    let found = records.get(key).map_err(text)?;
                    let stale = found.is_some_and(|value| {
                        codec::record(value.value(), &self.hosts)
                            .is_none_or(|record| !codec::fresh(&record, self.oldest))
                    });
                    if stale {
                        records.remove(key).map_err(text)?;
                    }
                }
                let mut entries = transaction.open_table(ENTRIES).map_err(text)?;
                for (key, json) in &batch.entries {
                    match json {
                        Some(json) => entries.insert(key.as_str(), json.as_slice()).map_err(text)?,
                        None => entries.remove(key.as_str()).map_err(text)?,
                    };
                }
            }
            transaction.commit().map_err(text)
        })
        .unwrap_or_else(Err)
    }

    /// Closes a file that failed.
    pub(super) fn abandon(database: Database) {
        // A panic on the way out says nothing new: the file has failed already.
        let _ = guarded(move || drop(database));
    }

    fn attempt(&self) -> Result<Loaded, Unusable> {
        let file = self.disk.open().map_err(|error| Unusable::Access(error.to_string()))?;
        // redb promises no more than an error or a panic for a file that others have changed.
        guarded(move || {
            let backend = FileBackend::new(file).map_err(unusable)?;
            let database = Database::builder()
                .set_cache_size(PAGE_CACHE)
                .set_check_integrity_on_open(true)
                .create_with_backend(backend)
                .map_err(unusable)?;
            load(database)
        })
        .unwrap_or_else(|why| Err(Unusable::Content(why)))
    }

    fn shown(&self) -> impl std::fmt::Display + '_ {
        self.disk.path().display()
    }
}

/// Reads what is short, and takes a look at the records.
fn load(database: Database) -> Result<Loaded, Unusable> {
    let content = |error: &dyn std::fmt::Display| Unusable::Content(error.to_string());
    let mut loaded = Loaded::default();
    let transaction = database.begin_write().map_err(|error| content(&error))?;
    {
        let mut meta = transaction.open_table(META).map_err(|error| content(&error))?;
        let found = meta.get(FORMAT).map_err(|error| content(&error))?.map(|version| version.value());
        match found {
            Some(FORMAT_VERSION) => {}
            Some(other) => {
                return Err(Unusable::Content(format!("format {other}, which this version does not know")));
            }
            None => {
                meta.insert(FORMAT, FORMAT_VERSION).map_err(|error| content(&error))?;
            }
        }
        // For the look at it, where it is not there yet.
        transaction.open_table(RECORDS).map_err(|error| content(&error))?;
        let entries = transaction.open_table(ENTRIES).map_err(|error| content(&error))?;
        for entry in entries.iter().map_err(|error| content(&error))? {
            let (key, json) = entry.map_err(|error| content(&error))?;
            loaded.entries.push((key.value().to_owned(), json.value().to_vec()));
        }
    }
    transaction.commit().map_err(|error| content(&error))?;
    let look = database.begin_read().map_err(|error| content(&error))?;
    loaded.snapshot = Some(look.open_table(RECORDS).map_err(|error| content(&error))?);
    loaded.database = Some(database);
    Ok(loaded)
}

/// Whether an error is the content's fault.
fn unusable(error: DatabaseError) -> Unusable {
    match error {
        DatabaseError::DatabaseAlreadyOpen => Unusable::Access("in use by another process".to_owned()),
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            Unusable::Access(error.to_string())
        }
        other => Unusable::Content(other.to_string()),
    }
}

/// Runs `work`; a panic in it becomes an error.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Nothing that `work` touched is used after a panic: the database is dropped.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("damaged ({})", what.unwrap_or_default())
    })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
