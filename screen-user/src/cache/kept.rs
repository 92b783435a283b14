//! The records that were in the file when it was opened, read while the gate is at work already.

use std::{
    mem,
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use redb::{ReadableTable as _, ReadableTableMetadata as _};
use tokio::sync::mpsc;

use super::{
    codec,
    file::{Snapshot, guarded},
    writer::StaleKeys,
};
use crate::{
    screen::record::{Client, Record},
    share::Hosts,
};

/// Records in one batch: few enough that nobody waits long while they are taken up.
const BATCH: usize = 1024;

/// Batches that are read ahead.
const AHEAD: usize = 4;

/// Records, or what is wrong with the rest of them.
type Part = Result<Vec<(Client, Record)>, String>;

/// The records whose retention has not ended, one batch after the other. Dropping it ends the reading: only then can the file be closed.
#[derive(Debug)]
pub struct Kept {
    parts: mpsc::Receiver<Part>,
    thread: Option<JoinHandle<()>>,
    records: usize,
}

impl Kept {
    /// There are none.
    pub(super) fn none() -> Self {
        Self { parts: mpsc::channel(1).1, thread: None, records: 0 }
    }

    /// Reads `snapshot` in a thread of its own. Keys of records without a pass that ended at `oldest` or later go to `stale`. The second
    /// value says why there is no thread.
    pub(super) fn read(snapshot: Snapshot, oldest: u64, hosts: Arc<Hosts>, stale: StaleKeys) -> (Self, Option<String>) {
        let records = snapshot.len().ok().and_then(|records| usize::try_from(records).ok()).unwrap_or_default();
        let (sender, parts) = mpsc::channel(AHEAD);
        let reader = Reader { sender, oldest, hosts, stale };
        match Builder::new().name("mxs-records".to_owned()).spawn(move || reader.run(&snapshot)) {
            Ok(thread) => (Self { parts, thread: Some(thread), records }, None),
            Err(error) => (Self::none(), Some(format!("no thread that reads the records: {error}"))),
        }
    }

    /// How many there are, before any is left out.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.records
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The next batch, or what is wrong with the file, for the operator; `None` when all have come.
    pub async fn next(&mut self) -> Option<Part> {
        self.parts.recv().await
    }

    /// As [`Kept::next`], for a thread.
    #[cfg(test)]
    pub(super) fn wait_next(&mut self) -> Option<Part> {
        self.parts.blocking_recv()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.parts.close();
        if let Some(thread) = self.thread.take() {
            // It ends with the batch that it reads. An error is a panic of the thread: nothing is left to be read.
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Reader {
    sender: mpsc::Sender<Part>,
    oldest: u64,
    hosts: Arc<Hosts>,
    stale: StaleKeys,
}

/// Nobody wants the rest.
struct Unwanted;

impl Reader {
    fn run(&self, snapshot: &Snapshot) {
        // redb promises no more than an error or a panic for a file that others have changed.
        let read = guarded(|| self.read(snapshot)).unwrap_or_else(Err);
        if let Err(why) = read {
            // If nobody wants records any more, nobody asks for what is wrong with them.
            let _ = self.sender.blocking_send(Err(why));
        }
    }

    fn read(&self, snapshot: &Snapshot) -> Result<(), String> {
        let lost = |error: redb::StorageError| format!("the rest of the records can't be read: {error}");
        let (mut batch, mut stale) = (Vec::with_capacity(BATCH), Vec::new());
        let mut unknown = 0_u64;
        for found in snapshot.iter().map_err(lost)? {
            let (key, value) = found.map_err(lost)?;
            match (codec::client(key.value()), codec::record(value.value(), &self.hosts)) {
                (Some(client), Some(record)) if codec::fresh(&record, self.oldest) => batch.push((client, record)),
                (Some(_), Some(_)) => stale.push(*key.value()),
                _ => {
                    unknown += 1;
                    stale.push(*key.value());
                }
            }
            if batch.len() + stale.len() >= BATCH && self.hand_on(&mut batch, &mut stale).is_err() {
                return Ok(());
            }
        }
        let handed_on = self.hand_on(&mut batch, &mut stale);
        if unknown > 0 && handed_on.is_ok() {
            return Err(format!("{unknown} records that this version does not know were dropped"));
        }
        Ok(())
    }

    fn hand_on(&self, batch: &mut Vec<(Client, Record)>, stale: &mut Vec<[u8; codec::KEY]>) -> Result<(), Unwanted> {
        self.stale.queue(mem::take(stale));
        let batch = mem::replace(batch, Vec::with_capacity(BATCH));
        if batch.is_empty() {
            return if self.sender.is_closed() { Err(Unwanted) } else { Ok(()) };
        }
        self.sender.blocking_send(Ok(batch)).map_err(|_| Unwanted)
    }
}
