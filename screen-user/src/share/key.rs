//! What a register is about, and where it stands.

use std::{fmt, str::FromStr};

use ipnet::IpNet;

use crate::{access::runtime::Roll, screen::record::Client};

/// How many shards there are. Fixed, as all hosts have to agree on it: enough to spread over the nodes of a cluster.
pub const SHARDS: u8 = 16;

/// A part of all registers, whose changes are announced in one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u8);

impl Shard {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }

    /// Its place among all of them.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a register is about. Written as the kind, a colon, and whom or what it is about: `record:192.0.2.1/32`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// What was learnt of a client.
    Record(Client),
    /// A run-time entry.
    Entry(Roll, IpNet),
    /// An imported list, by its name.
    List(Box<str>),
    /// An order to forget.
    Forget(IpNet),
}

impl Key {
    /// Where it stands: by an FNV-1a hash of its text, which every host computes alike.
    #[must_use]
    pub fn shard(&self) -> Shard {
        let hash = self
            .to_string()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        // The low bits of the hash alone depend on little more than the low bits of the text.
        Shard(((hash ^ hash >> 32) % u64::from(SHARDS)) as u8)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(client) => write!(f, "record:{}", client.net()),
            Self::Entry(Roll::Allow, net) => write!(f, "allow:{net}"),
            Self::Entry(Roll::Deny, net) => write!(f, "deny:{net}"),
            Self::Entry(Roll::Failure, net) => write!(f, "failure:{net}"),
            Self::List(name) => write!(f, "list:{name}"),
            Self::Forget(net) => write!(f, "forget:{net}"),
        }
    }
}

/// Text that is no key of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no key of a register")]
pub struct KeyError;

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, about) = text.split_once(':').ok_or(KeyError)?;
        // Host bits would make two keys of one network.
        let net = || about.parse::<IpNet>().ok().filter(|net| *net == net.trunc()).ok_or(KeyError);
        match kind {
            "record" => net().map(|net| Self::Record(Client { address: net.addr(), prefix_len: net.prefix_len() })),
            "allow" => net().map(|net| Self::Entry(Roll::Allow, net)),
            "deny" => net().map(|net| Self::Entry(Roll::Deny, net)),
            "failure" => net().map(|net| Self::Entry(Roll::Failure, net)),
            "list" => Ok(Self::List(about.into())),
            "forget" => net().map(Self::Forget),
            _ => Err(KeyError),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn keys_come_back_from_their_text() {
        for text in [
            "record:192.0.2.1/32",
            "record:2001:db8::/64",
            "allow:192.0.2.0/24",
            "deny:2001:db8::1/128",
            "failure:0.0.0.0/0",
            "list:spamhaus-drop",
            "forget:::/0",
        ] {
            assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        }
        for text in ["", "record", "record:", "record:192.0.2.1/24", "deny:x/32", "other:192.0.2.1/32"] {
            assert_eq!(text.parse::<Key>(), Err(KeyError), "{text}");
        }
    }

    #[test]
    fn keys_are_spread_over_the_shards() {
        let mut shards = BTreeMap::<Shard, u32>::new();
        for number in 0..16_000_u32 {
            let client = Client { address: std::net::IpAddr::from(number.to_be_bytes()), prefix_len: 32 };
            *shards.entry(Key::Record(client).shard()).or_default() += 1;
        }
        assert_eq!(shards.len(), usize::from(SHARDS));
        assert!(shards.values().all(|count| (800..1200).contains(count)), "{shards:?}");
        // Other hosts must not come to another result.
        let key: Key = "record:192.0.2.1/32".parse().unwrap();
        assert_eq!(key.shard().index(), 12);
    }
}
