//! Prefixes as the maps hold them: 128 bits, IPv4 mapped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use screen_common::address::{IpKey, MAPPED_BITS};

/// A prefix. Sorted by address, then length: what holds others comes before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Prefix {
    key: IpKey,
    bits: u8,
}

/// All of IPv4.
pub(super) const ALL_IPV4: Prefix = Prefix { key: IpKey::from_ipv4([0; 4]), bits: MAPPED_BITS };

impl Prefix {
    /// The prefix of `bits` bits that holds `key`.
    pub(super) fn new(key: IpKey, bits: u8) -> Self {
        Self { key: key.prefix(bits), bits: bits.min(128) }
    }

    pub(super) fn key(self) -> IpKey {
        self.key
    }

    pub(super) fn bits(self) -> u8 {
        self.bits
    }

    /// Whether it is a prefix of IPv4. `::/0` is not, although its bits cover the mapped addresses.
    pub(super) fn is_ipv4(self) -> bool {
        self.bits >= MAPPED_BITS && self.key.ipv4().is_some()
    }

    pub(super) fn is_host(self) -> bool {
        self.bits == 128
    }

    /// Its last address.
    pub(super) fn last(self) -> IpKey {
        let bits = u128::from_be_bytes(self.key.address);
        let host = u128::MAX.checked_shr(u32::from(self.bits)).unwrap_or(0);
        IpKey { address: (bits | host).to_be_bytes() }
    }

    /// Whether every address of `other` is in this one, of the same family.
    pub(super) fn holds(self, other: Self) -> bool {
        self.spans(other) && self.is_ipv4() == other.is_ipv4()
    }

    /// Whether its bits are the first ones of `other`, whatever the families.
    pub(super) fn spans(self, other: Self) -> bool {
        self.bits <= other.bits && other.key.prefix(self.bits) == self.key
    }

    /// The shortest length that a prefix around this one may have: families do not hold each other.
    pub(super) fn shortest(self) -> u8 {
        if self.is_ipv4() { MAPPED_BITS } else { 0 }
    }

    /// The /24 of IPv4 that it begins in, as a number.
    pub(super) fn first_slash24(self) -> Option<u32> {
        self.key.ipv4().map(|octets| u32::from_be_bytes(octets) >> 8)
    }

    /// The /24 of IPv4 that it ends in, as a number.
    pub(super) fn last_slash24(self) -> Option<u32> {
        self.last().ipv4().map(|octets| u32::from_be_bytes(octets) >> 8)
    }
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self::new(key_of(IpAddr::V4(net.addr())), MAPPED_BITS + net.prefix_len()),
            IpNet::V6(net) => Self::new(key_of(IpAddr::V6(net.addr())), net.prefix_len()),
        }
    }
}

impl From<Prefix> for IpNet {
    fn from(prefix: Prefix) -> Self {
        if prefix.is_ipv4()
            && let Some(octets) = prefix.key.ipv4()
            && let Ok(net) = Ipv4Net::new(Ipv4Addr::from(octets), prefix.bits - MAPPED_BITS)
        {
            return Self::V4(net);
        }
        Ipv6Net::new(Ipv6Addr::from(prefix.key.address), prefix.bits.min(128))
            .map_or_else(|_| Self::default(), Self::V6)
    }
}

/// The key of an address; a mapped IPv6 address is its IPv4 address.
pub(super) fn key_of(address: IpAddr) -> IpKey {
    match address {
        IpAddr::V4(address) => IpKey::from_ipv4(address.octets()),
        IpAddr::V6(address) => IpKey::from_ipv6(address.octets()),
    }
}

/// The address of a key, canonical.
pub(super) fn address_of(key: &IpKey) -> IpAddr {
    Ipv6Addr::from(key.address).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        Prefix::from(text.parse::<IpNet>().unwrap())
    }

    #[test]
    fn to_the_maps_and_back() {
        for text in ["0.0.0.0/0", "192.0.2.0/24", "192.0.2.7/32", "::/0", "2001:db8::/48", "2001:db8::1/128"] {
            assert_eq!(IpNet::from(prefix(text)).to_string(), text);
        }
        assert_eq!(IpNet::from(prefix("192.0.2.99/24")).to_string(), "192.0.2.0/24");
        assert_eq!(IpNet::from(prefix("::ffff:192.0.2.7/128")).to_string(), "192.0.2.7/32");
    }

    #[test]
    fn families_do_not_hold_each_other() {
        assert!(prefix("::/0").holds(prefix("2001:db8::/48")));
        assert!(!prefix("::/0").holds(prefix("192.0.2.0/24")));
        assert!(prefix("0.0.0.0/0").holds(prefix("192.0.2.7/32")));
        assert!(!prefix("192.0.2.0/25").holds(prefix("192.0.2.0/24")));
    }

    #[test]
    fn ranges() {
        assert_eq!(address_of(&prefix("192.0.2.0/23").last()).to_string(), "192.0.3.255");
        assert_eq!(
            prefix("192.0.2.0/23").first_slash24().zip(prefix("192.0.2.0/23").last_slash24()),
            Some((0xc0_0002, 0xc0_0003))
        );
        assert_eq!(prefix("2001:db8::/32").first_slash24(), None);
    }
}
