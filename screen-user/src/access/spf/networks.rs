//! The networks that a record allows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::access::segments::{Both, Range, Segments, Span, span};

/// All of both families.
pub const EVERYBODY: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

/// The widest networks that a record may allow, as prefix lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Widest {
    /// In IPv4, 0 to 32.
    pub ipv4: u8,
    /// In IPv6, 0 to 128.
    pub ipv6: u8,
}

impl Widest {
    /// Whether `net` is no wider.
    #[must_use]
    pub fn takes(self, net: IpNet) -> bool {
        let least = match net {
            IpNet::V4(_) => self.ipv4,
            IpNet::V6(_) => self.ipv6,
        };
        net.prefix_len() >= least
    }
}

/// Addresses as the fewest networks, ready for search.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    networks: Vec<IpNet>,
    index: Both,
}

impl PartialEq for Networks {
    fn eq(&self, other: &Self) -> bool {
        self.networks == other.networks
    }
}

impl Eq for Networks {}

impl Networks {
    /// The addresses of all `networks`, at most `most` networks of them: the first ones, IPv4 before IPv6. The second value says how
    /// many networks were left out.
    #[must_use]
    pub fn new(networks: &Vec<IpNet>, most: usize) -> (Self, usize) {
        let mut networks = IpNet::aggregate(networks);
        networks.sort_unstable();
        let left_out = networks.len().saturating_sub(most);
        networks.truncate(most);
        let index = Both::from_networks(networks.iter().copied());
        (Self { networks, index }, left_out)
    }

    /// The networks, disjoint and in order.
    #[must_use]
    pub fn networks(&self) -> &[IpNet] {
        &self.networks
    }

    /// Whether `address` is in one of them. An IPv4-mapped IPv6 address is taken as IPv6.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.index.find(address).is_some()
    }

    pub(in crate::access) const fn index(&self) -> &Both {
        &self.index
    }
}

/// What the mechanisms of one record cover, in order: the first that covers an address decides about it (RFC 7208 section 4.6.2).
#[derive(Debug, Default)]
pub struct Claims {
    v4: Vec<(Range<u32>, u32)>,
    v6: Vec<(Range<u128>, u32)>,
    mechanisms: u32,
}

impl Claims {
    /// Adds a mechanism that covers `networks`; with `allows` they are allowed, without they are not, whatever comes after.
    pub fn add(&mut self, networks: impl IntoIterator<Item = IpNet>, allows: bool) {
        let rule = self.mechanisms << 1 | u32::from(allows);
        self.mechanisms += 1;
        for net in networks {
            match span(net) {
                Span::V4(range) => self.v4.push((range, rule)),
                Span::V6(range) => self.v6.push((range, rule)),
            }
        }
    }

    /// What is allowed, as disjoint networks.
    #[must_use]
    pub fn allowed(self) -> Vec<IpNet> {
        let all = Both { v4: Segments::new(self.v4), v6: Segments::new(self.v6) };
        all.networks_whose(|rule| rule & 1 == 1).collect()
    }
}
