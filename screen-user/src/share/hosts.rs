//! The names of hosts, each kept once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Most hosts that are told apart.
const MOST: usize = 4096;

/// Longest name, in bytes; more is cut off.
pub(super) const LONGEST_NAME: usize = 64;

/// A host, as records name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct HostId(u16);

impl HostId {
    /// This host.
    pub const THIS: Self = Self(0);
}

/// The hosts that were heard of.
#[derive(Debug)]
pub struct Hosts {
    names: Mutex<Names>,
}

#[derive(Debug)]
struct Names {
    by_number: Vec<Arc<str>>,
    by_name: HashMap<Arc<str>, HostId>,
}

impl Hosts {
    /// Knows this host alone, by the name that it goes by.
    #[must_use]
    pub fn new(this: &str) -> Self {
        let this: Arc<str> = cut(this).into();
        let by_name = HashMap::from([(Arc::clone(&this), HostId::THIS)]);
        Self { names: Mutex::new(Names { by_number: vec![this], by_name }) }
    }

    /// The host of this name. Those that are one too many share the name `others`.
    pub fn id(&self, name: &str) -> HostId {
        let name = cut(name);
        let mut names = self.names();
        if let Some(known) = names.by_name.get(name) {
            return *known;
        }
        let name: Arc<str> = if names.by_number.len() + 1 < MOST { name.into() } else { "others".into() };
        if let Some(known) = names.by_name.get(&name) {
            return *known;
        }
        let Ok(number) = u16::try_from(names.by_number.len()) else { return HostId::THIS };
        names.by_number.push(Arc::clone(&name));
        names.by_name.insert(name, HostId(number));
        HostId(number)
    }

    /// What a host is called.
    #[must_use]
    pub fn name(&self, host: HostId) -> Arc<str> {
        self.names().by_number.get(usize::from(host.0)).cloned().unwrap_or_else(|| "".into())
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        // A name is in both tables or in none, but for the last one pushed, which nobody asks for then.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cut(name: &str) -> &str {
    let end = (0..=LONGEST_NAME.min(name.len())).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    name.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_number_and_their_number_is_bounded() {
        let hosts = Hosts::new("mx1.example.test");
        assert_eq!(hosts.id("mx1.example.test"), HostId::THIS);
        let second = hosts.id("mx2.example.test");
        assert_eq!((hosts.id("mx2.example.test"), &*hosts.name(second)), (second, "mx2.example.test"));
        for number in 0..2 * MOST {
            hosts.id(&number.to_string());
        }
        assert_eq!(&*hosts.name(hosts.id("one too many")), "others");
        assert_eq!(hosts.names().by_number.len(), MOST);
        assert_eq!(hosts.id("mx2.example.test"), second);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let hosts = Hosts::new("mx");
        let long = hosts.id(&"ä".repeat(40));
        assert_eq!(&*hosts.name(long), "ä".repeat(32).as_str());
        let odd = hosts.id(&format!("x{}", "ä".repeat(40)));
        assert_eq!(hosts.name(odd).len(), 63);
    }
}
