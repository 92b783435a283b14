//! Where hosts meet: registers that many can reach, and what a host asks of them.

use std::{collections::BTreeMap, future::Future};

#[cfg(doc)]
use super::Version;
use super::{Item, Key, Shard};

/// Why the registers could not be asked, for people: it names the server, and never a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// A place in the announcements of a shard.
pub type Place = Box<str>;

/// The last announcement of each shard that a host has heard.
pub type Places = BTreeMap<Shard, Place>;

/// A change that was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Which register has changed.
    pub key: Key,
    /// Its state after that, unless it is too long for an announcement.
    pub item: Option<Item>,
}

/// What has happened since a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// All of it, or the beginning of it, each shard's in order; and where the next news start. What this version does not understand is
    /// left out.
    Heard(Vec<Announced>, Places),
    /// A place is not there any more, so that nobody knows what was missed.
    Gap,
}

/// Some of the keys there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys. One may come twice, and one that is added or removed meanwhile may be there or not.
    pub keys: Vec<Key>,
    /// What to ask for the next page with; `None` at the end.
    pub next: Option<Box<str>>,
}

/// What became of a state that the registers were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merged {
    /// It changed the register.
    Changed,
    /// All of it was known, or what is known is later.
    Known,
    /// It is from a clock so far ahead that nobody would believe it ([`Version::is_believed`]).
    Unbelieved,
}

/// Registers that many hosts can reach, of some shards that are there or away together.
///
/// A register is merged and its change announced in one step. Announcements of a shard have one order, and the state of a shard's registers
/// always corresponds to a place in it: where an announcement is found, everything before it counts as well.
pub trait Registers: Send + Sync + 'static {
    /// Which shards these are.
    fn shards(&self) -> &[Shard];

    /// Merges states into registers and announces those that this changed. Returns what became of each.
    fn merge(&self, items: &[(Key, Item)]) -> impl Future<Output = Result<Vec<Merged>, Fault>> + Send;

    /// The place after all that was announced until now; one is made where there is none yet.
    fn ends(&self) -> impl Future<Output = Result<Places, Fault>> + Send;

    /// What was announced since `places`; waits for news for a second or so.
    fn news(&self, places: &Places) -> impl Future<Output = Result<News, Fault>> + Send;

    /// A page of keys; the first one without `from`.
    fn keys(&self, from: Option<&str>) -> impl Future<Output = Result<Page, Fault>> + Send;

    /// The states of registers, in the order of `keys`; `None` where there is none that this version understands.
    fn fetch(&self, keys: &[Key]) -> impl Future<Output = Result<Vec<Option<Item>>, Fault>> + Send;

    /// The state of one register, on a way that nothing else uses.
    fn look_up(&self, key: &Key) -> impl Future<Output = Result<Option<Item>, Fault>> + Send;
}

/// What became of a state that a host was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learnt {
    /// The host knows something better.
    pub knows_better: bool,
}

/// What a host knows.
pub trait Knowledge: Send + Sync + 'static {
    /// Takes over what the items know better, and has the kernel know. Returns what became of each. Blocks.
    fn learn(&self, items: &[(Key, Item)]) -> Vec<Learnt>;

    /// What the host knows of a register.
    fn item(&self, key: &Key) -> Option<Item>;

    /// Every register of which the host knows something, among those that `wanted` wants.
    fn keys(&self, wanted: &dyn Fn(&Key) -> bool) -> Vec<Key>;

    /// Milliseconds of Unix time.
    fn unix_millis(&self) -> u64;

    /// Tells the operator.
    fn say(&self, trouble: bool, text: &str);
}
