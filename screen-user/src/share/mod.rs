//! What edge hosts tell each other of clients and networks.
//!
//! Everything that is shared is a register that keeps its latest value: each test of a client, each run-time entry, each imported list,
//! each order to forget. What is later is told by a [`Version`]. So it does not matter in which order, how often and by which way
//! hosts hear of each other: those that have heard the same know the same.

#[cfg(test)]
mod convergence;
pub mod exchange;
mod forgets;
pub mod form;
mod hosts;
mod item;
mod key;
mod lane;
mod latency;
mod link;
pub mod postscreen;
mod reader;
pub mod redis;
mod registers;
#[cfg(test)]
mod simulation;
mod version;
mod writer;

pub use self::{
    forgets::Forgets,
    hosts::{HostId, Hosts},
    item::{Cell, Item, ItemError},
    key::{Key, KeyError, SHARDS, Shard},
    latency::{Histogram, Latency, Summary},
    link::{Link, LinkStatus, LookUpStatus},
    registers::{Announced, Fault, Knowledge, Learnt, Merged, News, Page, Place, Places, Registers},
    version::{Clock, Version},
};
