//! A register as it travels: cells, each with the version of its latest value.
//!
//! Of two states of a register the merged one has of each cell the later value. The order in which states are merged, and how
//! often, makes no difference; `redis/merge.lua` does the same beside the data.

use super::{Version, hosts::LONGEST_NAME};

/// The first byte of an item.
const FORMAT: u8 = 1;

/// Most cells of an item.
const MOST_CELLS: usize = 64;

/// Most bytes of all payloads of an item: a list of some millions of networks.
const MOST_BYTES: usize = 256 << 20;

/// A value with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Which cell of the register: the number of a test in a record, zero where there is one cell only.
    pub index: u8,
    /// When the value was given.
    pub version: Version,
    /// Unix time in seconds from which the value is of no use to anybody; zero: never.
    pub expires: u64,
    /// The value.
    pub payload: Vec<u8>,
}

impl Cell {
    /// Of two values of one version every host must choose the same.
    fn replaces(&self, other: &Self) -> bool {
        (self.version, &self.payload, self.expires) > (other.version, &other.payload, other.expires)
    }
}

/// The state of a register.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item {
    /// The host that gave the latest value.
    pub host: Box<str>,
    /// In the order of their indexes.
    pub cells: Vec<Cell>,
}

/// Bytes that are no item of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// A later version wrote it.
    #[error("written by a version that this one does not know")]
    Format,
    /// Nobody wrote it.
    #[error("damaged")]
    Damaged,
}

impl Item {
    /// A register with one cell.
    #[must_use]
    pub fn of_one(host: &str, version: Version, expires: u64, payload: Vec<u8>) -> Self {
        Self { host: host.into(), cells: vec![Cell { index: 0, version, expires, payload }] }
    }

    /// When the latest value was given.
    #[must_use]
    pub fn version(&self) -> Version {
        self.cells.iter().map(|cell| cell.version).max().unwrap_or_default()
    }

    /// Unix time in seconds from which nothing of it is of use; zero: never.
    #[must_use]
    pub fn expires(&self) -> u64 {
        let ends = || self.cells.iter().map(|cell| cell.expires);
        if ends().any(|end| end == 0) { 0 } else { ends().max().unwrap_or(0) }
    }

    /// Whether nothing of it is of use any more at `now`, in Unix seconds.
    #[must_use]
    pub fn is_over(&self, now: u64) -> bool {
        !matches!(self.expires(), 0) && self.expires() <= now
    }

    /// The value of a register with one cell.
    #[must_use]
    pub fn payload(&self) -> Option<&[u8]> {
        self.cells.first().filter(|cell| cell.index == 0).map(|cell| cell.payload.as_slice())
    }

    /// Whether `other` has a later value of some cell.
    #[must_use]
    pub fn is_behind(&self, other: &Self) -> bool {
        other.cells.iter().any(|theirs| self.cell(theirs.index).is_none_or(|ours| theirs.replaces(ours)))
    }

    fn cell(&self, index: u8) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.index == index)
    }

    /// Takes over each value of `other` that is later. Returns whether there was one.
    pub fn merge(&mut self, other: &Self) -> bool {
        if other.version() > self.version() {
            self.host.clone_from(&other.host);
        }
        let mut changed = false;
        for theirs in &other.cells {
            match self.cells.binary_search_by_key(&theirs.index, |cell| cell.index) {
                Err(place) => self.cells.insert(place, theirs.clone()),
                Ok(place) => match self.cells.get_mut(place) {
                    Some(ours) if theirs.replaces(ours) => ours.clone_from(theirs),
                    _ => continue,
                },
            }
            changed = true;
        }
        changed
    }

    /// As bytes, all numbers in network order: format, length and text of the host, how many cells; of each cell index, version, end,
    /// length and value.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let host = self.host.as_bytes();
        let host = host.get(..host.len().min(LONGEST_NAME)).unwrap_or_default();
        let payloads: usize = self.cells.iter().map(|cell| 1 + 8 + 8 + 4 + cell.payload.len()).sum();
        let mut bytes = Vec::with_capacity(3 + host.len() + payloads);
        bytes.extend([FORMAT, host.len() as u8]);
        bytes.extend(host);
        bytes.push(self.cells.len() as u8);
        for cell in &self.cells {
            bytes.push(cell.index);
            bytes.extend(cell.version.0.to_be_bytes());
            bytes.extend(cell.expires.to_be_bytes());
            bytes.extend((cell.payload.len() as u32).to_be_bytes());
            bytes.extend(&cell.payload);
        }
        bytes
    }

    /// What [`Self::to_bytes`] made.
    ///
    /// # Errors
    /// These bytes are nothing that it makes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ItemError> {
        let mut rest = match bytes.split_first() {
            Some((&FORMAT, rest)) => Reader(rest),
            Some(_) => return Err(ItemError::Format),
            None => return Err(ItemError::Damaged),
        };
        rest.item().filter(|_| rest.0.is_empty()).ok_or(ItemError::Damaged)
    }
}

/// Takes an item apart; `None` where the bytes end too early or make no sense.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn item(&mut self) -> Option<Item> {
        let length = self.byte()?;
        let host = str::from_utf8(self.take(usize::from(length))?).ok().filter(|host| host.len() <= LONGEST_NAME)?;
        let count = usize::from(self.byte()?);
        if count > MOST_CELLS {
            return None;
        }
        let mut cells = Vec::<Cell>::with_capacity(count);
        for _ in 0..count {
            let index = self.byte()?;
            if cells.last().is_some_and(|last| last.index >= index) {
                return None;
            }
            let (version, expires) = (Version(self.number()?), self.number()?);
            let length = usize::try_from(u32::from_be_bytes(*self.chunk()?)).ok().filter(|&size| size <= MOST_BYTES)?;
            cells.push(Cell { index, version, expires, payload: self.take(length)?.to_vec() });
        }
        Some(Item { host: host.into(), cells })
    }

    fn byte(&mut self) -> Option<u8> {
        self.chunk::<1>().map(|&[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }

    fn chunk<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(chunk)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::share) fn any_item() -> impl Strategy<Value = Item> {
        let cell = (0..5_u64, 0..3_u64, prop::collection::vec(0..3_u8, 0..3));
        let cells = prop::collection::btree_map(0..4_u8, cell, 1..4);
        ("[a-c]", cells).prop_map(|(host, cells)| Item {
            host: host.into(),
            cells: cells
                .into_iter()
                .map(|(index, (version, expires, payload))| Cell { index, version: Version(version), expires, payload })
                .collect(),
        })
    }

    fn merged(items: &[&Item]) -> Vec<Cell> {
        let mut all = Item::default();
        for item in items {
            all.merge(item);
        }
        all.cells
    }

    proptest! {
        #[test]
        fn merging_has_one_result(a in any_item(), b in any_item(), c in any_item()) {
            let expected = merged(&[&a, &b, &c]);
            for order in [[&a, &c, &b], [&b, &a, &c], [&b, &c, &a], [&c, &a, &b], [&c, &b, &a]] {
                prop_assert_eq!(&merged(&order), &expected);
            }
            prop_assert_eq!(&merged(&[&a, &b, &a, &c, &b, &c]), &expected);
            let mut pair = b.clone();
            prop_assert_eq!(pair.is_behind(&c), pair.merge(&c));
            prop_assert!(!pair.merge(&c) && !pair.is_behind(&b));
            prop_assert_eq!(&merged(&[&a, &pair]), &expected);
        }

        #[test]
        fn an_item_comes_back_and_nothing_else_does(item in any_item(), cut in any::<prop::sample::Index>()) {
            let bytes = item.to_bytes();
            prop_assert_eq!(Item::from_bytes(&bytes), Ok(item));
            prop_assert_eq!(Item::from_bytes(&bytes[..cut.index(bytes.len())]).is_ok(), false);
            prop_assert_eq!(Item::from_bytes(&[bytes.as_slice(), b"x"].concat()), Err(ItemError::Damaged));
        }

        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let with_format = [&[FORMAT], bytes.as_slice()].concat();
            for bytes in [bytes, with_format] {
                if let Ok(item) = Item::from_bytes(&bytes) {
                    prop_assert_eq!(item.to_bytes(), bytes);
                }
            }
        }
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        assert_eq!(Item::from_bytes(&[9, 1, 2]), Err(ItemError::Format));
        assert_eq!(Item::from_bytes(&[]), Err(ItemError::Damaged));
    }

    #[test]
    fn it_ends_with_its_last_cell() {
        let cell = |index, expires| Cell { index, version: Version(1), expires, payload: Vec::new() };
        let item = |ends: [u64; 2]| Item { host: "a".into(), cells: vec![cell(0, ends[0]), cell(1, ends[1])] };
        assert_eq!(item([5, 7]).expires(), 7);
        assert!(!item([5, 7]).is_over(6) && item([5, 7]).is_over(7));
        assert_eq!(item([5, 0]).expires(), 0);
        assert!(!item([5, 0]).is_over(u64::MAX));
    }
}
