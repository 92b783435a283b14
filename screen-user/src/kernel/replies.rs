//! What the gate says to clients that it turns away, and the keys of its cookies.

use std::{collections::BTreeMap, io};

use aya::maps::{Array, MapData};
use screen_common::{
    abi::{TEXT_DENIED, TEXT_LIMITED, map},
    cookie::{Keys, TEXTS},
    reply::Text,
};

use super::{KernelError, ListId, maps::Maps, syscall};

/// For denied clients, unless their list has a text of its own (RFC 7504 section 4).
const DENIED: &str = "521 5.3.2 Service currently unavailable";
/// For clients at their limit (spec 2.2).
const LIMITED: &str = "421 4.7.0 Error: too many connections";

/// The texts and the keys.
pub(super) struct Replies {
    texts: Array<MapData, Text>,
    keys: Array<MapData, Keys>,
    numbers: BTreeMap<ListId, u32>,
}

impl Replies {
    pub(super) fn new(maps: &mut Maps) -> Result<Self, KernelError> {
        let mut replies =
            Self { texts: maps.take(map::REPLIES)?, keys: maps.take(map::COOKIE_KEYS)?, numbers: BTreeMap::new() };
        replies.write(TEXT_LIMITED, LIMITED)?;
        replies.write(TEXT_DENIED, DENIED)?;
        replies.rotate()?;
        Ok(replies)
    }

    /// Gives `list` a text of its own: one line of printable ASCII without its code. Returns its number.
    pub(super) fn set(&mut self, list: ListId, text: &str) -> Result<u32, KernelError> {
        let number = match self.numbers.get(&list) {
            Some(number) => *number,
            // The first two are those above.
            None => (2..TEXTS as u32)
                .find(|number| !self.numbers.values().any(|taken| taken == number))
                .ok_or(KernelError::Full { table: map::REPLIES, capacity: TEXTS })?,
        };
        self.write(number, &format!("521 {text}"))?;
        self.numbers.insert(list, number);
        Ok(number)
    }

    /// The text of `list` is no longer used: another list may have its number.
    pub(super) fn unset(&mut self, list: ListId) {
        self.numbers.remove(&list);
    }

    /// Makes a new key. What was made with the one before is still good, what was made with the one before that is not.
    pub(super) fn rotate(&mut self) -> Result<(), KernelError> {
        let before = self.keys.get(&0, 0).map_err(KernelError::map(map::COOKIE_KEYS))?;
        let mut fresh = [[0; 8]; 4];
        syscall::random(fresh.as_flattened_mut())
            .map_err(|error| KernelError::system("get random numbers from the kernel", error))?;
        let [a, b, c, d] = fresh.map(u64::from_ne_bytes);
        // A former key that nobody knows is one that nothing was made with.
        let former = if before.ready == 0 { [c, d] } else { before.present };
        let keys = Keys { ready: 1, present: [a, b], former };
        self.keys.set(0, keys, 0).map_err(KernelError::map(map::COOKIE_KEYS))
    }

    fn write(&mut self, number: u32, line: &str) -> Result<(), KernelError> {
        let text = Text::new(line).filter(|_| !line.ends_with(' ')).ok_or_else(|| {
            let why = "it must be one line of printable ASCII, 82 characters at most";
            KernelError::system(format!("set the reply {line:?}"), io::Error::new(io::ErrorKind::InvalidInput, why))
        })?;
        self.texts.set(number, text, 0).map_err(KernelError::map(map::REPLIES))
    }
}
