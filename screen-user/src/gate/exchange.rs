//! What is known, as text and from text: `mxscreen cache export` and `import`.

use serde_json::{Value, json};

use super::{Gate, unix_millis, unix_now};
use crate::{
    operate::{
        exit::Failure,
        request::{CacheForm, CacheImport},
    },
    screen::record::{Client, Record},
    share::{Item, Key, Knowledge as _, Shard, exchange, form, postscreen},
};

/// Refused lines that an answer names.
const NAMED: usize = 100;

/// What became of lines.
#[derive(Debug, Default)]
struct Tally {
    taken: u64,
    known: u64,
    over: u64,
    refused: u64,
    named: Vec<(u64, String)>,
}

/// What became of a line.
enum Fate {
    Taken,
    /// What is known is later, or the same.
    Known,
    /// It is of no use any more.
    Over,
    /// It is no register.
    Nothing,
}

impl Gate {
    /// The registers of a shard, a line each; none before all of them are known.
    pub(super) fn export_shard(&self, shard: u8) -> Result<Value, Failure> {
        if self.loading().is_some() {
            return Err(Failure::unavailable(
                "what is known is still being taken up: ask again when the gate is ready",
            ));
        }
        let wanted = |key: &Key| Shard::all().nth(shard.into()) == Some(key.shard());
        let mut keys = self.keys(&wanted);
        keys.sort();
        let line = |key: &Key| exchange::line(key, &self.item(key)?, &self.hosts);
        Ok(keys.iter().filter_map(line).map(Value::String).collect())
    }

    /// Takes over what lines of a file say and is not known better here.
    pub(super) fn import_lines(&self, import: &CacheImport) -> Result<Value, Failure> {
        let text = str::from_utf8(&import.lines).map_err(|_| Failure::usage("the lines are no text"))?;
        let mut tally = Tally::default();
        for (number, line) in (import.first_line..).zip(text.lines()) {
            match self.import_line(line, import.form, import.dry_run) {
                Ok(Fate::Taken) => tally.taken += 1,
                Ok(Fate::Known) => tally.known += 1,
                Ok(Fate::Over) => tally.over += 1,
                Ok(Fate::Nothing) => {}
                Err(why) => {
                    tally.refused += 1;
                    if tally.named.len() < NAMED {
                        tally.named.push((number, why));
                    }
                }
            }
        }
        if !import.dry_run {
            // The queue of what is to be written has a bound, which a file may not know.
            self.store.flush();
        }
        let Tally { taken, known, over, refused, named } = tally;
        Ok(json!({ "taken": taken, "known": known, "over": over, "refused": refused, "named": named }))
    }

    fn import_line(&self, line: &str, form: CacheForm, dry_run: bool) -> Result<Fate, String> {
        if line.trim().is_empty() {
            return Ok(Fate::Nothing);
        }
        let config = self.config.load();
        let (retention, prefix) = (config.cache.retention, config.policy.limits.client_prefix);
        match form {
            CacheForm::Mxscreen => match exchange::read(line, retention, &self.hosts)? {
                exchange::Held::Head => Ok(Fate::Nothing),
                exchange::Held::Register(Key::Record(client), _) if client != Client::of(client.address, prefix) => {
                    Err(format!("{}: limits.client_prefix makes other clients", client.net()))
                }
                exchange::Held::Register(_, item) if !item.version().is_believed(unix_millis()) => {
                    Err("its version is more than a day ahead of this host's clock".to_owned())
                }
                exchange::Held::Register(key, item) => Ok(self.import_register(&key, &item, dry_run)),
            },
            CacheForm::Postscreen => match postscreen::read(line, prefix)? {
                postscreen::Held::Else => Ok(Fate::Nothing),
                postscreen::Held::Record(client, record) => Ok(self.import_record(client, &record, dry_run)),
            },
        }
    }

    fn import_register(&self, key: &Key, item: &Item, dry_run: bool) -> Fate {
        if item.cells.is_empty() || item.is_over(unix_now()) {
            return Fate::Over;
        }
        let later = |ours: &Item| ours.is_behind(item);
        let forgotten = |net| self.screen().forgets().of(net) >= item.version();
        let news = self.item(key).as_ref().is_none_or(later)
            && match key {
                Key::Record(client) => !forgotten(client.net()),
                Key::Entry(_, net) => !forgotten(*net),
                Key::Forget(_) | Key::List(_) => true,
            };
        if news && !dry_run {
            self.learn(&[(key.clone(), item.clone())]);
            self.tell(key.clone());
        }
        if news { Fate::Taken } else { Fate::Known }
    }

    /// Apart from other registers, as a record says also which tests were never taken while they were enabled.
    fn import_record(&self, client: Client, record: &Record, dry_run: bool) -> Fate {
        let item = form::of_record(record, self.config.load().cache.retention, &self.hosts);
        if item.is_over(unix_now()) {
            return Fate::Over;
        }
        let key = Key::Record(client);
        let ours = self.item(&key);
        if ours.is_some_and(|ours| !ours.is_behind(&item)) || self.screen().forgets().of(client.net()) >= item.version()
        {
            return Fate::Known;
        }
        if !dry_run {
            let changed = self.screen().learn(client, record);
            if let Some(record) = changed {
                self.keep_record(client, record);
                self.tell(key);
            }
        }
        Fate::Taken
    }
}
