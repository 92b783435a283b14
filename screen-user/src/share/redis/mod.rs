//! Registers in Redis: a key a register, a stream a shard, and a script that merges and announces in one step.
//!
//! Keys and stream of a shard carry the same hash tag, so that they live on one node of a cluster: `mxscreen:{7}:record:192.0.2.1/32`,
//! `mxscreen:{7}:changes`. A replica has the beginning of what its master has, in the same order; so has a master that was a replica.

mod checkup;
mod home;
mod refusal;
mod server;
mod way;

use std::{sync::Arc, time::Duration};

use redis::{
    Pipeline, RedisError, Script, Value,
    streams::{StreamRangeReply, StreamReadReply},
};

pub use self::{
    checkup::{Checkup, Memory, State, Trouble, checkup},
    server::Servers,
};
use self::{
    home::Home,
    way::{Scripted, Way},
};
use super::{Announced, Fault, Item, Key, Merged, News, Page, Places, Registers, Shard};
use crate::config;

/// Announcements that a shard's stream keeps, at least: a host that missed more looks at everything.
const ANNOUNCEMENTS: usize = 16_384;

/// The longest state that is announced, in bytes; a longer one is fetched by those who hear of it.
const LONGEST_ANNOUNCED: usize = 4096;

/// Merges states into registers, and announces them.
const MERGE: &str = include_str!("merge.lua");

/// How long to wait for news.
const NEWS_WAIT: Duration = Duration::from_secs(1);

/// Most announcements of each shard that are heard at once.
const NEWS: usize = 1000;

/// How many keys Redis looks at for a page of them.
const PAGE: usize = 2000;

/// The registers of some shards, in one server or one node of a cluster.
#[derive(Debug)]
pub struct RedisRegisters {
    shards: Vec<Shard>,
    prefix: Box<str>,
    script: Script,
    home: Home,
    /// A blocking command holds up its connection, and a long answer those behind it: so each kind of work has its own.
    telling: Way,
    hearing: Way,
    asking: Way,
}

impl RedisRegisters {
    /// All registers, in lanes that are there or away together: one for a server, one a shard in a cluster. Nothing is connected yet.
    #[must_use]
    pub fn lanes(config: &config::Redis, servers: &Arc<Servers>) -> Vec<Self> {
        let all: Vec<Shard> = Shard::all().collect();
        let lanes: Vec<Vec<Shard>> = match &config.servers {
            config::RedisServers::Cluster(_) => all.into_iter().map(|shard| vec![shard]).collect(),
            config::RedisServers::One(_) | config::RedisServers::Sentinel { .. } => vec![all],
        };
        let lane = |shards| Self {
            shards,
            prefix: config.prefix.as_str().into(),
            script: Script::new(MERGE),
            home: Home::new(Arc::clone(servers)),
            telling: Way::new(Duration::from_secs(5)),
            hearing: Way::new(NEWS_WAIT + Duration::from_millis(1500)),
            asking: Way::new(Duration::from_secs(1)),
        };
        lanes.into_iter().map(lane).collect()
    }

    fn stream(&self, shard: Shard) -> String {
        format!("{}:{{{shard}}}:changes", self.prefix)
    }

    fn name(&self, key: &Key) -> String {
        format!("{}:{{{}}}:{key}", self.prefix, key.shard())
    }

    /// The register that a key of Redis holds; none if it is something else.
    fn register(&self, name: &str) -> Option<Key> {
        let (_, key) = name.strip_prefix(&*self.prefix)?.strip_prefix(":{")?.split_once("}:")?;
        key.parse().ok()
    }
}

impl Registers for RedisRegisters {
    fn shards(&self) -> &[Shard] {
        &self.shards
    }

    async fn merge(&self, items: &[(Key, Item)]) -> Result<Vec<Merged>, Fault> {
        let mut merged = vec![Merged::Known; items.len()];
        let mut commands = Pipeline::new();
        let mut order: Vec<Vec<usize>> = Vec::new();
        for shard in &self.shards {
            let (places, items): (Vec<usize>, Vec<&(Key, Item)>) =
                items.iter().enumerate().filter(|(_, (key, _))| key.shard() == *shard).unzip();
            if items.is_empty() {
                continue;
            }
            let command = commands.cmd("EVALSHA").arg(self.script.get_hash()).arg(items.len() + 1);
            command.arg(self.stream(*shard));
            for (key, _) in &items {
                command.arg(self.name(key));
            }
            command.arg(ANNOUNCEMENTS).arg(LONGEST_ANNOUNCED);
            for (_, item) in &items {
                command.arg(item.to_bytes());
            }
            for (key, _) in &items {
                command.arg(key.to_string());
            }
            order.push(places);
        }
        if order.is_empty() {
            return Ok(merged);
        }
        let merges = Scripted { commands, script: &self.script };
        let before = self.home.at().await;
        let results: Vec<Vec<i64>> = self.telling.ask(&self.home, &merges).await?;
        if before.is_none() || self.home.at().await != before {
            // What was known already at one place need not be announced at the other one: only what is heard counts.
            return Ok(vec![Merged::Changed; items.len()]);
        }
        for (places, result) in order.iter().zip(results) {
            for (place, result) in places.iter().zip(result) {
                if let Some(merged) = merged.get_mut(*place) {
                    *merged = match result {
                        1 => Merged::Changed,
                        2 => Merged::Unbelieved,
                        _ => Merged::Known,
                    };
                }
            }
        }
        Ok(merged)
    }

    async fn ends(&self) -> Result<Places, Fault> {
        let mut pipeline = Pipeline::new();
        for shard in &self.shards {
            pipeline.cmd("XREVRANGE").arg(self.stream(*shard)).arg("+").arg("-").arg("COUNT").arg(1);
        }
        let last: Vec<StreamRangeReply> = self.telling.ask(&self.home, &pipeline).await?;
        let mut ends = Places::new();
        for (shard, last) in self.shards.iter().zip(last) {
            let place = match last.ids.into_iter().next() {
                Some(entry) => entry.id,
                // Without a first announcement there would be no place to come back to.
                None => {
                    let mut mark = redis::cmd("XADD");
                    mark.arg(self.stream(*shard)).arg("*").arg("mark").arg("");
                    self.telling.ask(&self.home, &mark).await?
                }
            };
            ends.insert(*shard, place.into());
        }
        Ok(ends)
    }

    async fn news(&self, places: &Places) -> Result<News, Fault> {
        self.asking.keep_open(&self.home).await?;
        let mut pipeline = Pipeline::new();
        for (shard, place) in places {
            pipeline.cmd("XRANGE").arg(self.stream(*shard)).arg(&**place).arg(&**place);
        }
        // In the same breath: for something to be missed, more than a stream's length would have to come between two commands that were
        // sent together.
        let read =
            pipeline.cmd("XREAD").arg("COUNT").arg(NEWS).arg("BLOCK").arg(NEWS_WAIT.as_millis() as u64).arg("STREAMS");
        for shard in places.keys() {
            read.arg(self.stream(*shard));
        }
        for place in places.values() {
            read.arg(&**place);
        }
        let mut replies: Vec<Value> = self.hearing.ask(&self.home, &pipeline).await?;
        let unexpected = |error: redis::ParsingError| self.hearing.fault(&self.home, &RedisError::from(error));
        let news = replies.pop().unwrap_or(Value::Nil);
        for reply in replies {
            let found: StreamRangeReply = redis::from_redis_value(reply).map_err(unexpected)?;
            if found.ids.is_empty() {
                return Ok(News::Gap);
            }
        }
        let news: Option<StreamReadReply> = redis::from_redis_value(news).map_err(unexpected)?;
        let mut places = places.clone();
        let mut heard = Vec::new();
        for stream in news.into_iter().flat_map(|news| news.keys) {
            let Some(shard) = self.shards.iter().find(|shard| self.stream(**shard) == stream.key) else { continue };
            for entry in stream.ids {
                if let Some(Ok(key)) = entry.get::<String>("k").map(|key| key.parse::<Key>()) {
                    let item = entry.get::<Vec<u8>>("v");
                    // What a later version wrote is for those who understand it.
                    match item.map(|item| Item::from_bytes(&item)) {
                        Some(Ok(item)) => heard.push(Announced { key, item: Some(item) }),
                        None => heard.push(Announced { key, item: None }),
                        Some(Err(_)) => {}
                    }
                }
                places.insert(*shard, entry.id.into());
            }
        }
        Ok(News::Heard(heard, places))
    }

    async fn keys(&self, from: Option<&str>) -> Result<Page, Fault> {
        let pattern = match self.shards.as_slice() {
            [shard] => format!("{}:{{{shard}}}:*", self.prefix),
            _ => format!("{}:{{*", self.prefix),
        };
        let mut scan = redis::cmd("SCAN");
        scan.arg(from.unwrap_or("0")).arg("MATCH").arg(pattern).arg("COUNT").arg(PAGE);
        let (next, names): (String, Vec<String>) = self.telling.ask(&self.home, &scan).await?;
        let keys = names.iter().filter_map(|name| self.register(name)).collect();
        Ok(Page { keys, next: (next != "0").then(|| next.into()) })
    }

    async fn fetch(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, Fault> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = redis::cmd("MGET");
        for key in keys {
            get.arg(self.name(key));
        }
        let states: Vec<Option<Vec<u8>>> = self.telling.ask(&self.home, &get).await?;
        Ok(states.into_iter().map(|state| Item::from_bytes(&state?).ok()).collect())
    }

    async fn look_up(&self, key: &Key) -> Result<Option<Item>, Fault> {
        let mut get = redis::cmd("GET");
        get.arg(self.name(key));
        let state: Option<Vec<u8>> = self.asking.ask_open(&self.home, &get).await?;
        Ok(state.and_then(|state| Item::from_bytes(&state).ok()))
    }
}
