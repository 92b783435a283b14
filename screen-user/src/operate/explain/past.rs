//! What the journal has of a client.

use std::{collections::VecDeque, path::Path};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::{
    journal::{Entry, Reader},
    screen::found::ZoneFound,
};

/// Sessions that are shown.
const SHOWN: usize = 20;

/// What the journal has of a client.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// The last ones, oldest first.
    pub(super) sessions: VecDeque<Entry>,
    /// How many there are.
    pub(super) count: u64,
    /// Why it could not be read to its end.
    pub(super) trouble: Option<String>,
}

impl Past {
    /// What can be read; an operator who may ask the gate may not be allowed to read its files.
    pub(super) fn read(folder: &Path, client: IpNet) -> Self {
        let mut past = Self::default();
        let result = Reader::begin(folder).and_then(|mut reader| {
            while let Some(entry) = reader.next_entry()? {
                if client.contains(&entry.client.ip()) {
                    past.add(entry);
                }
            }
            Ok(())
        });
        // Before the first session there is no folder.
        past.trouble = result
            .err()
            .filter(|error| error.kind() != std::io::ErrorKind::NotFound)
            .map(|error| format!("{}: {error}", folder.display()));
        past
    }

    pub(super) fn add(&mut self, entry: Entry) {
        self.count += 1;
        if self.sessions.len() == SHOWN {
            self.sessions.pop_front();
        }
        self.sessions.push_back(entry);
    }

    /// What the zones said when they were asked last, and when that was.
    pub(super) fn zones(&self) -> Option<(u64, &[ZoneFound])> {
        self.sessions.iter().rev().find_map(|entry| {
            let found = entry.found.as_deref()?;
            (!found.zones.is_empty()).then_some((entry.time, found.zones.as_slice()))
        })
    }

    pub(super) fn json(&self) -> Value {
        json!({ "sessions": self.count, "last": self.sessions, "trouble": self.trouble })
    }
}
