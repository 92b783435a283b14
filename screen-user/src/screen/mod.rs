//! The protocol core: what the screener says, logs, remembers and decides, without any I/O.
//!
//! [`Screen::open`] turns a new connection into a [`Session`] and the first effects; [`Session::on`] takes one event and returns what
//! is to be done about it, in order. The last effect of a session is its only [`event::Effect::End`]; after it every event is ignored.

pub mod bar;
mod credit;
pub mod dnsbl;
mod dry_run;
mod early;
mod engine;
pub mod event;
mod extensions;
mod flags;
mod footer;
pub mod found;
mod keywords;
mod ladder;
pub mod log;
pub mod outcome;
pub mod policy;
pub mod record;
mod records;
#[cfg(test)]
mod replay;
mod reply;
pub mod retrial;
mod session;
mod shared;
pub mod syn;
#[cfg(test)]
mod tests;
mod text;

pub use self::{
    credit::Credit,
    extensions::Extensions,
    records::DEFAULT_CAPACITY as DEFAULT_RECORD_CAPACITY,
    session::Session,
    shared::{Screen, Snapshot, TlsState},
    text::{Elapsed, escape},
};

/// Most bytes that a session looks at before the greeting (spec 3.2).
pub const PEEK_LIMIT: usize = 1023;
/// Most bytes of one read in the dummy engine (spec 4.2).
pub const READ_LIMIT: usize = 4096;
