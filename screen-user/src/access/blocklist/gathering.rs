//! What has been read of a list so far.

use std::{fmt, mem};

use super::{Addresses, read::entry};
use crate::access::segments::{Set, Span};

/// The most parts of a list that are refused by name; of more, the number is told.
pub const REFUSED_SHOWN: usize = 100;

/// Entries between two words on how far it is.
const STEP: usize = 100_000;

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The addresses, overlaps made one.
    pub addresses: Addresses,
    /// Entries that make them up.
    pub entries: usize,
    /// What was refused, up to [`REFUSED_SHOWN`].
    pub refused: Vec<Refused>,
    /// How much was refused.
    pub refused_count: usize,
}

/// Something that is no part of the list.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where it stands.
    pub at: At,
    /// Why.
    pub why: String,
}

/// A place in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// A line, from 1.
    Line(usize),
    /// A value of a JSON document, by its pointer (RFC 6901).
    Value(String),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            // The pointer of the whole document is empty.
            Self::Value(pointer) => write!(f, "value \"{pointer}\""),
        }
    }
}

/// Gathers what is read.
pub(super) struct Gathering<'a> {
    v4: Set<u32>,
    v6: Set<u128>,
    entries: usize,
    refused: Vec<Refused>,
    refused_count: usize,
    progress: &'a mut dyn FnMut(usize),
}

impl<'a> Gathering<'a> {
    /// `progress` is told now and then how many entries there are.
    pub(super) fn new(progress: &'a mut dyn FnMut(usize)) -> Self {
        Self { v4: Vec::new(), v6: Vec::new(), entries: 0, refused: Vec::new(), refused_count: 0, progress }
    }

    pub(super) fn add(&mut self, span: Span) {
        match span {
            Span::V4(range) => self.v4.push(range),
            Span::V6(range) => self.v6.push(range),
        }
        self.entries += 1;
        if self.entries.is_multiple_of(STEP) {
            (self.progress)(self.entries);
        }
    }

    pub(super) fn refuse(&mut self, at: At, why: impl Into<String>) {
        self.refused_count += 1;
        if self.refused.len() < REFUSED_SHOWN {
            self.refused.push(Refused { at, why: why.into() });
        }
    }

    /// One address, network or range; `at` is asked for where it stands if it is none.
    pub(super) fn text(&mut self, text: &str, at: impl FnOnce() -> At) {
        match entry(text) {
            Ok(span) => self.add(span),
            Err(why) => self.refuse(at(), why),
        }
    }

    pub(super) fn finish(mut self) -> Read {
        Read {
            addresses: Addresses::merged(mem::take(&mut self.v4), mem::take(&mut self.v6)),
            entries: self.entries,
            refused: self.refused,
            refused_count: self.refused_count,
        }
    }
}
