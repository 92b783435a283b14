//! What is remembered of a client (spec 6).

use std::{fmt, net::IpAddr, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    config::ClientPrefix,
    share::{HostId, Version},
};

/// The five tests, in postscreen's order (spec 0.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
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

/// Why a stamp is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Grounds {
    /// It was learnt before grounds were kept, or nothing is known.
    #[default]
    Unknown,
    /// The client took the test.
    Taken,
    /// The client failed.
    Failed,
    /// The client failed, which the policy ignores for a while.
    Ignored,
    /// A DNSBL score spared the client the test.
    Score,
    /// A neighbour vouched for the client (`cache.pool_credit`).
    Neighbour,
    /// Late DNSBL answers took a pass back.
    LateAnswers,
    /// It came from the cache of a postscreen.
    Postscreen,
}

impl Grounds {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Taken,
        Self::Failed,
        Self::Ignored,
        Self::Score,
        Self::Neighbour,
        Self::LateAnswers,
        Self::Postscreen,
    ];

    /// Whether the client was spared the test: the pass shows nothing of its own.
    #[must_use]
    pub const fn is_spared(self) -> bool {
        matches!(self, Self::Score | Self::Neighbour)
    }

    /// For people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Taken => "the test was taken",
            Self::Failed => "the test was failed",
            Self::Ignored => "a failure that is ignored",
            Self::Score => "spared by its DNSBL score",
            Self::Neighbour => "spared as a neighbour had passed",
            Self::LateAnswers => "taken back by late DNSBL answers",
            Self::Postscreen => "from postscreen's cache",
        }
    }
}

/// What is known of one test of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Finding {
    /// When it was learnt; [`Version::NONE`] if it is nothing but the state before any test.
    pub version: Version,
    /// The state.
    pub stamp: Stamp,
    /// Why it is so.
    pub grounds: Grounds,
}

/// What is remembered of a client: one finding a test, in the order of [`Test::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Record {
    stamps: [Stamp; 5],
    versions: [Version; 5],
    grounds: [Grounds; 5],
    host: HostId,
}

impl Record {
    /// A record of these stamps, of which nobody knows where they come from.
    #[must_use]
    pub fn of_stamps(stamps: [Stamp; 5]) -> Self {
        let versions = stamps.map(|stamp| if stamp.is_pass() { Version::OLDEST } else { Version::NONE });
        Self { stamps, versions, ..Self::default() }
    }

    /// What is known of `test`.
    #[must_use]
    pub fn finding(&self, test: Test) -> Finding {
        let place = test as usize;
        Finding {
            version: self.versions.get(place).copied().unwrap_or_default(),
            stamp: self.stamp(test),
            grounds: self.grounds.get(place).copied().unwrap_or_default(),
        }
    }

    /// The stamp of `test`.
    #[must_use]
    pub fn stamp(&self, test: Test) -> Stamp {
        self.stamps.get(test as usize).copied().unwrap_or_default()
    }

    /// Replaces what is known of `test`, as learnt by `host`.
    pub fn set(&mut self, test: Test, finding: Finding, host: HostId) {
        self.put(test, finding);
        self.host = host;
    }

    fn put(&mut self, test: Test, finding: Finding) {
        let place = test as usize;
        if let (Some(stamp), Some(version), Some(grounds)) =
            (self.stamps.get_mut(place), self.versions.get_mut(place), self.grounds.get_mut(place))
        {
            (*stamp, *version, *grounds) = (finding.stamp, finding.version, finding.grounds);
        }
    }

    /// The host that learnt the latest finding.
    #[must_use]
    pub const fn host(&self) -> HostId {
        self.host
    }

    /// When the latest finding was learnt.
    #[must_use]
    pub fn version(&self) -> Version {
        self.versions.iter().copied().max().unwrap_or_default()
    }

    /// Takes over what `other` knows better: of each test the later finding.
    pub fn merge(&mut self, other: &Self) {
        if other.version() > self.version() {
            self.host = other.host;
        }
        for test in Test::ALL {
            let theirs = other.finding(test);
            if theirs > self.finding(test) {
                self.put(test, theirs);
            }
        }
    }

    /// The record without what was learnt at `version` or before.
    #[must_use]
    pub fn after(&self, version: Version) -> Self {
        let mut record = *self;
        if version > Version::NONE {
            let forgotten = |test: &Test| record.finding(*test).version <= version;
            let gone: Vec<Test> = Test::ALL.into_iter().filter(forgotten).collect();
            gone.into_iter().for_each(|test| record.put(test, Finding::default()));
        }
        record
    }

    /// Whether nothing was ever learnt of the client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.version() == Version::NONE
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
