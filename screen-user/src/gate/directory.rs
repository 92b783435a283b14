//! Lists whose files are in a watched directory (`blocklists.directory`): each holds for as long as its file is there.
//!
//! The keeper watches and opens, and says when to look; what the files say is read here.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io::BufReader,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{
    Gate, Phase,
    blocklists::{About, FromFile},
    import::{Replacement, check_name},
    unix_now,
};
use crate::{
    access::blocklist::read::{Format, Read, read},
    keeper::{ListFile, Stamp},
    operate::exit::Failure,
    share::Version,
};

/// What is known of the directory.
#[derive(Debug, Default)]
pub(super) struct Directory {
    state: Mutex<State>,
    /// It is worth a look.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Why it can't be read, if so.
    unreadable: Option<String>,
    /// What is wrong with files, by their names.
    complaints: BTreeMap<String, Complaint>,
}

#[derive(Debug, PartialEq, Eq)]
struct Complaint {
    /// What the file was; it is not read again before it changes. None: that costs nothing.
    stamp: Option<Stamp>,
    why: String,
}

/// What the file was that has been imported, and what there is to say of its refused parts.
type Imported = (Stamp, Option<String>);

impl Directory {
    /// Has the lists brought to what the files say.
    pub(super) fn look(&self) {
        self.changed.notify_one();
    }

    /// Has files read again that were no lists: what they may be has changed.
    pub(super) fn look_anew(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).complaints.clear();
        self.look();
    }
}

impl Gate {
    /// Follows the directory until the gate stops.
    pub(super) async fn keep_lists(self: Arc<Self>) {
        let mut phase = self.phase.subscribe();
        loop {
            tokio::select! {
                () = self.directory.changed.notified() => {}
                _ = phase.wait_for(|phase| *phase > Phase::Running) => return,
            }
            let gate = Arc::clone(&self);
            // It only fails where the runtime ends.
            let _ = tokio::task::spawn_blocking(move || gate.follow_directory()).await;
        }
    }

    /// Brings the lists that come from files to what the files say.
    pub(super) fn follow_directory(&self) {
        let mut state = self.directory.state.lock().unwrap_or_else(PoisonError::into_inner);
        let files = match self.keeper.lists() {
            Ok(files) => files.unwrap_or_default(),
            Err(failure) => {
                let why = failure.message;
                if state.unreadable.as_ref() != Some(&why) {
                    self.log.warn(format!("the directory of block lists: {why}; its lists stay as they are"));
                    state.unreadable = Some(why);
                }
                return;
            }
        };
        state.unreadable = None;
        state.complaints.retain(|name, _| files.iter().any(|file| file.name == *name));
        let mut lists: BTreeMap<&str, &ListFile> = BTreeMap::new();
        for file in &files {
            match lists.entry(list_of(&file.name)) {
                Entry::Vacant(place) => {
                    place.insert(file);
                }
                Entry::Occupied(first) => {
                    let why = format!("{} is the list {} already", first.get().name, first.key());
                    self.complain(&mut state, file, Complaint { stamp: None, why });
                }
            }
        }
        for name in self.lists_of_files() {
            if !lists.contains_key(name.as_str()) {
                self.remove_list_of_file(&name);
            }
        }
        for (name, file) in lists {
            self.follow_file(&mut state, name, file);
        }
    }

    fn follow_file(&self, state: &mut State, name: &str, file: &ListFile) {
        // While it is being written there is nothing to read.
        let Some(stamp) = file.stamp else { return };
        let refused = state.complaints.get(&file.name).is_some_and(|complaint| complaint.stamp == Some(stamp));
        let from = FromFile { name: file.name.clone(), stamp };
        if refused || self.is_of(name, &from) {
            return;
        }
        let complaint = match self.import_file(name, file) {
            // The keeper says when it is complete.
            Ok(None) => return,
            Ok(Some((stamp, refused))) => refused.map(|why| Complaint { stamp: Some(stamp), why }),
            Err((stamp, failure)) => {
                Some(Complaint { stamp, why: format!("{}; the list stays as it was", failure.message) })
            }
        };
        match complaint {
            Some(complaint) => self.complain(state, file, complaint),
            None => drop(state.complaints.remove(&file.name)),
        }
    }

    /// Imports a file; returns what there is to say of its refused parts, or nothing at all if it changes meanwhile. A failure that costs
    /// nothing to find out again has no stamp.
    fn import_file(&self, name: &str, file: &ListFile) -> Result<Option<Imported>, (Option<Stamp>, Failure)> {
        check_name(name).and_then(|()| self.may_replace(name, true)).map_err(|failure| (None, failure))?;
        let Some((opened, stamp)) = self.keeper.open_list(&file.name).map_err(|failure| (file.stamp, failure))? else {
            return Ok(None);
        };
        let failed = |failure| (Some(stamp), failure);
        let list = read(BufReader::new(&opened), Format::Auto, |_| ());
        let list = list.map_err(|error| failed(Failure::usage(error)))?;
        if opened.metadata().map_or(true, |metadata| Stamp::of(&metadata) != stamp) {
            return Ok(None);
        }
        let refused = refused_parts(&list);
        if let (0, Some(why)) = (list.entries, &refused) {
            return Err(failed(Failure::usage(format!("nothing in it is an address or a network: {why}"))));
        }
        let from = FromFile { name: file.name.clone(), stamp };
        let about = About {
            until: None,
            imported: unix_now(),
            reply: None,
            file: Some(from),
            version: Version::NONE,
            host: String::new(),
            forced: false,
        };
        let replacement = Replacement { name, addresses: list.addresses, about, force: false, dry_run: false };
        self.replace_list(replacement).map_err(failed)?;
        Ok(Some((stamp, refused)))
    }

    /// Keeps what is wrong with a file, and says it if it is new.
    fn complain(&self, state: &mut State, file: &ListFile, complaint: Complaint) {
        let known = state.complaints.get(&file.name).is_some_and(|known| known.why == complaint.why);
        if !known {
            self.log.warn(format!("block list {}: {}", file.name, complaint.why));
        }
        state.complaints.insert(file.name.clone(), complaint);
    }

    /// What `status` shows of the directory.
    pub(super) fn directory_status(&self) -> Option<Value> {
        let config = self.config.load();
        let path = config.blocklists.directory.as_ref()?;
        let state = self.directory.state.lock().unwrap_or_else(PoisonError::into_inner);
        let complaints: Vec<Value> =
            state.complaints.iter().map(|(file, complaint)| json!({ "file": file, "why": complaint.why })).collect();
        Some(json!({ "path": path, "unreadable": state.unreadable, "complaints": complaints }))
    }
}

/// The list that a file of this name is: without its ending.
fn list_of(file: &str) -> &str {
    match file.rsplit_once('.') {
        Some((name, _)) if !name.is_empty() => name,
        _ => file,
    }
}

/// What there is to say of refused parts.
fn refused_parts(list: &Read) -> Option<String> {
    let first = list.refused.first()?;
    let more = match list.refused_count - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!("{}: refused: {}{more}", first.at, first.why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_called_as_its_file_without_the_ending() {
        for (file, list) in [("drop.txt", "drop"), ("drop_v4.json", "drop_v4"), ("a.b.txt", "a.b"), ("drop", "drop")] {
            assert_eq!(list_of(file), list, "{file}");
        }
    }
}
