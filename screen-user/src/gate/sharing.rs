//! What this gate tells other edge hosts and hears of them (`cache.backend = "redis"`).

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError},
};

use ipnet::IpNet;

use super::{Gate, feed::BATCH, unix_millis};
use crate::{
    access::runtime::Roll,
    config::{Cache, CacheBackend, Resolver},
    dns::Names,
    screen::record::{Client, Record, Test},
    share::{
        Histogram, Item, Key, Knowledge, Learnt, Link, LinkStatus, Version, form,
        redis::{RedisRegisters, Servers},
    },
};

/// How orders to forget are called in the store, before their network.
const STORED_FORGET: &str = "forget ";

impl Gate {
    /// Begins to tell and to hear, where the configuration says so. Must be called in a tokio runtime.
    pub(super) fn begin_sharing(self: &Arc<Self>, cache: &Cache, resolver: &Resolver) {
        let CacheBackend::Redis(redis) = &cache.backend else { return };
        let names = Names::new(&redis.hosts_file, resolver);
        let servers = Arc::new(Servers::new((**redis).clone(), names));
        let lanes = RedisRegisters::lanes(redis, &servers);
        let link = Link::start(lanes, Arc::clone(self), &cache.host, &self.sharing_stops);
        // It is begun once, by the one who starts the gate.
        let _ = self.link.set(link);
    }

    /// Tells what waits, and then nothing any more.
    pub(super) async fn end_sharing(&self) {
        if let Some(link) = self.link.get() {
            link.flush().await;
        }
        self.sharing_stops.send_replace(true);
    }

    /// How the link to other hosts does; `None` if there is none.
    pub(super) fn link_status(&self) -> Option<LinkStatus> {
        self.link.get().map(Link::status)
    }

    /// [How long](Link::latencies) telling and hearing take; `None` if there is no link.
    pub(super) fn link_latencies(&self) -> Option<[Histogram; 3]> {
        self.link.get().map(Link::latencies)
    }

    /// The link, once other hosts are to hear of something.
    pub(super) fn tell(&self, key: Key) {
        if let Some(link) = self.link.get() {
            link.note(key);
        }
    }

    /// Whether other hosts may know more of this client than this one.
    pub fn may_recall(&self, client: IpAddr) -> bool {
        self.link.get().is_some() && {
            let client = Client::of(client, self.config.load().policy.limits.client_prefix);
            self.screen().record(client).is_none()
        }
    }

    /// Asks what other hosts know of a client, for no longer than `cache.redis.lookup_timeout`.
    pub async fn recall(&self, client: IpAddr) {
        let config = self.config.load_full();
        let (Some(link), CacheBackend::Redis(redis)) = (self.link.get(), &config.cache.backend) else { return };
        let key = Key::Record(Client::of(client, config.policy.limits.client_prefix));
        if let Some(item) = link.look_up(&key, redis.lookup_timeout).await {
            self.learn_records(&[(key, item)]);
        }
    }

    /// Whether what an item says is of use, at `now` in milliseconds of Unix time, and from a clock that may be right.
    fn believes(&self, item: &Item, now: u64) -> bool {
        let believed = self.clock.hear(item.version(), now);
        if !believed {
            let host = &item.host;
            self.notice(format!(
                "the clock of {host} is more than a day ahead of this host's: what it says is left out"
            ));
        }
        believed && !item.is_over(now / 1000)
    }

    /// Takes over what records know better, so few that nobody waits long for the screen. Returns of each whether this host knows
    /// something better.
    fn learn_records(&self, items: &[(Key, Item)]) -> Vec<bool> {
        let now = unix_millis();
        let read = |(key, item): &(Key, Item)| match key {
            Key::Record(client) if self.believes(item, now) => Some((*client, form::to_record(item, &self.hosts))),
            _ => None,
        };
        let records: Vec<Option<(Client, Record)>> = items.iter().map(read).collect();
        let mut changed = Vec::new();
        let better = {
            let mut screen = self.screen();
            let mut one = |client: Client, theirs: &Record| {
                let changed_to = screen.learn(client, theirs);
                if let Some(record) = changed_to {
                    // While the screen is locked: what a session learns next is queued after this.
                    self.store_heard(client, record);
                    changed.push((client, record));
                }
                let ours = changed_to.or_else(|| screen.record(client));
                let better =
                    |test: &Test| ours.is_some_and(|ours| ours.finding(*test).version > theirs.finding(*test).version);
                Test::ALL.iter().any(better)
            };
            records.iter().map(|record| record.as_ref().is_some_and(|(client, theirs)| one(*client, theirs))).collect()
        };
        self.feed_records(&changed);
        better
    }

    /// Takes over what an item that is no record knows better. Returns whether this host knows something better.
    fn learn_one(&self, key: &Key, item: &Item) -> bool {
        if !self.believes(item, unix_millis()) {
            return false;
        }
        match key {
            // Those come by the thousand, and are taken over together.
            Key::Record(_) => false,
            Key::Entry(roll, net) => self.learn_entry(*roll, *net, item),
            Key::Forget(net) => self.learn_forget(*net, item.version()),
            Key::List(name) => self.learn_list(name, item),
        }
    }

    fn learn_entry(&self, roll: Roll, net: IpNet, item: &Item) -> bool {
        let Some(entry) = form::to_entry(item).filter(|entry| (entry.roll(), entry.net) == (roll, net)) else {
            self.log.warn(format!("{net}: an entry of another host is not readable and is left out"));
            return false;
        };
        if self.screen().forgets().of(net) >= entry.version {
            return false;
        }
        let version = entry.version;
        if self.take_up(&entry) {
            return false;
        }
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        lists.get(roll, net).is_some_and(|ours| ours.version > version)
    }

    fn learn_forget(&self, net: IpNet, version: Version) -> bool {
        if self.screen().forgets().get(net).is_some_and(|ours| ours >= version) {
            return self.screen().forgets().get(net) > Some(version);
        }
        self.forget(net, version);
        false
    }

    /// Keeps an order to forget for the next start.
    pub(super) fn keep_forget(&self, net: IpNet, version: Version) {
        self.store.keep_entry(&format!("{STORED_FORGET}{net}"), version.0.to_string().into_bytes());
    }

    /// Takes up what the store kept, if it is an order to forget; returns whether it was.
    pub(super) fn restore_forget(&self, key: &str, kept: &[u8]) -> bool {
        let Some(net) = key.strip_prefix(STORED_FORGET) else { return false };
        let version = str::from_utf8(kept).ok().and_then(|text| text.parse().ok());
        match (net.parse(), version) {
            (Ok(net), Some(version)) => drop(self.screen().forget(net, Version(version))),
            _ => self.store.drop_entry(key),
        }
        true
    }

    /// Drops orders to forget whose time is over.
    pub(super) fn expire_forgets(&self) {
        let gone = self.screen().expire_forgets(unix_millis());
        gone.iter().for_each(|net| self.store.drop_entry(&format!("{STORED_FORGET}{net}")));
    }
}

impl Knowledge for Gate {
    fn learn(&self, items: &[(Key, Item)]) -> Vec<Learnt> {
        let is_record = |(key, _): &(Key, Item)| matches!(key, Key::Record(_));
        let runs = items.chunk_by(|one, next| is_record(one) && is_record(next)).flat_map(|run| run.chunks(BATCH));
        let learnt = runs.flat_map(|run| match run {
            [(Key::Record(_), _), ..] => {
                if self.loading().is_none() {
                    self.store.make_room(run.len());
                }
                self.learn_records(run)
            }
            _ => run.iter().map(|(key, item)| self.learn_one(key, item)).collect(),
        });
        learnt.map(|knows_better| Learnt { knows_better }).collect()
    }

    fn item(&self, key: &Key) -> Option<Item> {
        match key {
            Key::Record(client) => {
                let record = self.screen().record(*client)?;
                let item = form::of_record(&record, self.config.load().cache.retention, &self.hosts);
                Some(item).filter(|item| !item.cells.is_empty())
            }
            Key::Entry(roll, net) => {
                form::of_entry(self.lists.read().unwrap_or_else(PoisonError::into_inner).get(*roll, *net)?)
            }
            Key::Forget(net) => {
                let version = self.screen().forgets().get(*net)?;
                Some(form::of_forget(version, &self.config.load().cache.host))
            }
            Key::List(name) => self.list_item(name),
        }
    }

    fn keys(&self, wanted: &dyn Fn(&Key) -> bool) -> Vec<Key> {
        let mut keys: Vec<Key> = {
            let screen = self.screen();
            screen.forgets().iter().map(|(net, _)| Key::Forget(net)).filter(|key| wanted(key)).collect()
        };
        {
            let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
            keys.extend(lists.iter().map(|entry| Key::Entry(entry.roll(), entry.net)).filter(|key| wanted(key)));
        }
        keys.extend(self.list_keys().into_iter().filter(|key| wanted(key)));
        // Without the lock: a million hashes take a while.
        let clients = self.screen().records();
        keys.extend(clients.into_iter().map(|(client, _)| Key::Record(client)).filter(|key| wanted(key)));
        keys
    }

    fn unix_millis(&self) -> u64 {
        unix_millis()
    }

    fn say(&self, trouble: bool, text: &str) {
        if trouble { self.log.warn(text) } else { self.log.info(text) }
    }
}
