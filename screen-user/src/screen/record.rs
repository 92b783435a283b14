//! What is remembered of a client (spec 6).

use std::{fmt, net::IpAddr, time::Duration};

use ipnet::IpNet;
use serde::Serialize;

use crate::config::ClientPrefix;

/// The five tests, in postscreen's order (spec 0.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// Talks before the greeting.
    Pregreet,
    /// Is listed.
    Dnsbl,
    /// Sends commands without waiting.
    Pipelining,
    /// Sends what is no SMTP.
    NonSmtpCommand,
    /// Ends lines without CR.
    BareNewline,
}

impl Test {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Pregreet, Self::Dnsbl, Self::Pipelining, Self::NonSmtpCommand, Self::BareNewline];
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pregreet => "pregreet",
            Self::Dnsbl => "dnsbl",
            Self::Pipelining => "pipelining",
            Self::NonSmtpCommand => "non-smtp-command",
            Self::BareNewline => "bare-newline",
        })
    }
}

/// A client: an address cut to the prefix that counts as one (`limits.client_prefix`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// The network address; IPv4 is never mapped into IPv6.
    pub address: IpAddr,
    /// The prefix length in the address's own family.
    pub prefix_len: u8,
}

impl Client {
    /// The client that `address` belongs to.
    #[must_use]
    pub fn of(address: IpAddr, prefix: ClientPrefix) -> Self {
        let address = address.to_canonical();
        let prefix_len = match address {
            IpAddr::V4(_) => prefix.ipv4,
            IpAddr::V6(_) => prefix.ipv6,
        };
        Self::within(address, prefix_len)
    }

    /// The network of this prefix length that a canonical `address` belongs to.
    pub(super) fn within(address: IpAddr, prefix_len: u8) -> Self {
        let network = IpNet::new(address, prefix_len).map_or(address, |net| net.network());
        Self { address: network, prefix_len }
    }

    /// The client as a network.
    #[must_use]
    pub fn net(&self) -> IpNet {
        IpNet::new(self.address, self.prefix_len).unwrap_or_else(|_| IpNet::from(self.address))
    }
}

/// The state of one test in a record (spec 6.1): Unix time until which a pass is valid, or [`Stamp::NEVER`], [`Stamp::DISABLED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Never passed.
    pub const NEVER: Self = Self(0);
    /// Never passed, and the test was disabled when the record was written.
    pub const DISABLED: Self = Self(1);

    /// A pass that is valid until `lifetime` after `now`, in Unix seconds.
    #[must_use]
    pub const fn until(now: u64, lifetime: Duration) -> Self {
        Self(now.saturating_add(lifetime.as_secs()))
    }

    /// Whether the pass is valid at `now`, in Unix seconds; its last second counts.
    #[must_use]
    pub const fn is_valid(self, now: u64) -> bool {
        now <= self.0
    }

    /// Whether the test was passed at some time, long ago or not.
    #[must_use]
    pub const fn is_pass(self) -> bool {
        self.0 > Self::DISABLED.0
    }
}

/// What is remembered of a client: one stamp a test, in the order of [`Test::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Record {
    /// One stamp a test.
    pub stamps: [Stamp; 5],
}

impl Record {
    /// The stamp of `test`.
    #[must_use]
    pub fn stamp(&self, test: Test) -> Stamp {
        self.stamps.get(test as usize).copied().unwrap_or_default()
    }

    /// Replaces the stamp of `test`.
    pub fn set(&mut self, test: Test, stamp: Stamp) {
        if let Some(place) = self.stamps.get_mut(test as usize) {
            *place = stamp;
        }
    }

    /// Whether some test, enabled or not, was never passed while it was enabled: such a client is new (spec 1.8).
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.stamps.contains(&Stamp::NEVER)
    }

    /// Whether any test was ever passed.
    #[must_use]
    pub fn has_pass(&self) -> bool {
        self.stamps.iter().any(|stamp| stamp.is_pass())
    }
}
