//! The journal: what was found in each session of the last days, for `mxscreen explain` and `mxscreen what-if`.
//!
//! One line of JSON a session, in segments under the state directory. The gate hands lines to a thread that writes them in batches
//! ([`Journal`]); whoever asks reads the segments by himself ([`Reader`]). Losing lines costs evidence and nothing else.

mod entry;
mod reader;
mod segments;
#[cfg(test)]
mod tests;
mod writer;

pub use self::{
    entry::{Entry, Tested},
    reader::{Reader, parse},
    segments::{Segments, within},
    writer::{Journal, JournalStatus, Open},
};
