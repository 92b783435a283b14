//! The store behind the table of clients in RAM (spec 6): what was learnt outlives the process.
//!
//! RAM is the truth. The store is read once, after the start, in batches ([`Kept`]), and written behind: changes are queued, the latest
//! of each client wins, and a thread of its own writes a batch every few seconds, at [`Store::flush`] and when the store is dropped. A
//! file that is lost, damaged, locked or can't be written costs nothing but knowledge: the gate goes on, and [`Opened::complaint`] and
//! [`StoreStatus`] say so.

mod codec;
mod disk;
mod file;
mod kept;
#[cfg(test)]
mod tests;
mod writer;

use std::{sync::Arc, time::Duration};

use serde::Serialize;

pub use self::{
    disk::{Disk, StateFile},
    kept::Kept,
};
use self::{
    file::{CacheFile, Loaded},
    writer::{Rhythm, Writer},
};
use crate::{
    config::{Cache, CacheBackend},
    screen::record::{Client, Record},
    share::Hosts,
    unix_time::unix_now,
};

/// Between two batches, and between two attempts to open a file that can't be used.
const RHYTHM: Rhythm = Rhythm { batch: Duration::from_secs(3), reopen: Duration::from_secs(60) };

/// What [`Store::open`] found.
#[derive(Debug)]
pub struct Opened {
    /// Where changes go from now on.
    pub store: Store,
    /// The records, which have yet to be read.
    pub records: Kept,
    /// Run-time entries by their keys, with the bytes that [`Store::keep_entry`] was given.
    pub entries: Vec<(String, Vec<u8>)>,
    /// What is wrong with the file, for the operator; the gate works without it.
    pub complaint: Option<String>,
}

/// The store's state, for `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StoreStatus {
    /// Changes that wait for the next batch.
    pub pending: usize,
    /// Changes written since the start.
    pub written: u64,
    /// Changes that found the queue full, and are in RAM only.
    pub lost: u64,
    /// Why the file can't be written at the moment; it is tried again.
    pub failing: Option<String>,
}

/// Where changes go. Without a file behind it ([`CacheBackend::Memory`]) they go nowhere.
#[derive(Debug)]
pub struct Store {
    writer: Option<Writer>,
}

impl Store {
    /// Opens the store that `config` asks for, with its file on `disk`, and reads all but the records. Blocks: meant for the start.
    ///
    /// Records whose passes all ended longer than `config.retention` ago are not read and leave the file.
    #[must_use]
    pub fn open(config: &Cache, disk: impl Disk + 'static, hosts: Arc<Hosts>) -> Opened {
        Self::open_at(config, Box::new(disk), hosts, unix_now(), RHYTHM)
    }

    /// [`Store::open`] at another time, in Unix seconds, and with another rhythm.
    fn open_at(config: &Cache, disk: Box<dyn Disk>, hosts: Arc<Hosts>, now: u64, rhythm: Rhythm) -> Opened {
        match &config.backend {
            CacheBackend::Memory => {
                Opened { store: Self { writer: None }, records: Kept::none(), entries: Vec::new(), complaint: None }
            }
            // What an operator decides while Redis is away must outlive a restart.
            CacheBackend::Embedded | CacheBackend::Redis(_) => {
                let oldest = now.saturating_sub(config.retention.as_secs());
                let file = CacheFile::on(disk, Arc::clone(&hosts), oldest);
                let Loaded { database, snapshot, entries, complaint } = file.open();
                let (writer, no_writer) = Writer::start(file, database, complaint.clone(), rhythm);
                let (records, no_reader) = snapshot.map_or_else(
                    || (Kept::none(), None),
                    |snapshot| Kept::read(snapshot, oldest, hosts, writer.stale()),
                );
                let complaints: Vec<String> = [complaint, no_writer, no_reader].into_iter().flatten().collect();
                Opened {
                    store: Self { writer: Some(writer) },
                    records,
                    entries,
                    complaint: (!complaints.is_empty()).then(|| complaints.join("; ")),
                }
            }
        }
    }

    /// Queues `record` as the latest word on `client`.
    pub fn remember(&self, client: Client, record: Record) {
        if let Some(writer) = &self.writer {
            writer.queue_record(client, Some(record));
        }
    }

    /// Queues the removal of what is kept of `client`.
    pub fn forget(&self, client: Client) {
        if let Some(writer) = &self.writer {
            writer.queue_record(client, None);
        }
    }

    /// Waits until there is room for so many records more, if the file takes any: for those who can wait, and know a lot. Blocks.
    pub fn make_room(&self, records: usize) {
        if let Some(writer) = &self.writer {
            writer.make_room(records);
        }
    }

    /// Queues a run-time entry; `json` is not looked at.
    pub fn keep_entry(&self, key: &str, json: Vec<u8>) {
        if let Some(writer) = &self.writer {
            writer.queue_entry(key, Some(json));
        }
    }

    /// Queues the removal of a run-time entry.
    pub fn drop_entry(&self, key: &str) {
        if let Some(writer) = &self.writer {
            writer.queue_entry(key, None);
        }
    }

    /// Writes what is queued now and waits for it, a failed attempt included. Blocks for a disk write.
    pub fn flush(&self) {
        if let Some(writer) = &self.writer {
            writer.flush();
        }
    }

    /// Writes what is queued and lets go of the file; what comes later is not kept. Blocks for a disk write.
    pub fn close(&self) {
        if let Some(writer) = &self.writer {
            writer.close();
        }
    }

    /// How the store does.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        self.writer.as_ref().map(Writer::status).unwrap_or_default()
    }
}
