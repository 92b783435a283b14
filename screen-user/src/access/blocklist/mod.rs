//! Block lists that are imported by name, whole: what they hold, and reading them in the forms that they are published in.

mod dump;
mod gathering;
mod json;
mod postfix;
pub mod read;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::segments::{self, Range, Set, Span};

/// The addresses of a list: disjoint ranges in order, which take 8 bytes each in IPv4 and 32 in IPv6.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    v4: Set<u32>,
    v6: Set<u128>,
}

impl Addresses {
    /// From ranges in any order, which may overlap.
    fn merged(v4: Set<u32>, v6: Set<u128>) -> Self {
        Self { v4: merged(v4), v6: merged(v6) }
    }

    /// Whether the list holds `address`. O(log n).
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => holds(&self.v4, address.to_bits()),
            IpAddr::V6(address) => holds(&self.v6, address.to_bits()),
        }
    }

    /// Whether the list holds any address of `net`.
    #[must_use]
    pub fn touches(&self, net: IpNet) -> bool {
        match segments::span(net) {
            Span::V4(range) => meets(&self.v4, range),
            Span::V6(range) => meets(&self.v6, range),
        }
    }

    /// The fewest networks that hold just these addresses, in order, IPv4 first.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        let v4 = self.v4.iter().flat_map(|range| segments::networks_v4(range.first, range.last));
        let v6 = self.v6.iter().flat_map(|range| segments::networks_v6(range.first, range.last));
        v4.chain(v6)
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// The larger of its shares of the two address spaces, 0 to 1; of IPv6 only 2000::/3 is in use.
    #[must_use]
    pub fn share(&self) -> f64 {
        let v4: f64 = self.v4.iter().map(|range| f64::from(range.last - range.first) + 1.0).sum();
        let v6: f64 = self.v6.iter().map(|range| (range.last - range.first) as f64 + 1.0).sum();
        (v4 / 2f64.powi(32)).max(v6 / 2f64.powi(125))
    }

    /// The list as bytes, for the store: how many IPv4 ranges, those, then the IPv6 ranges, all in network order.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.v4.len() * 8 + self.v6.len() * 32);
        bytes.extend((self.v4.len() as u64).to_be_bytes());
        for range in &self.v4 {
            bytes.extend(range.first.to_be_bytes());
            bytes.extend(range.last.to_be_bytes());
        }
        for range in &self.v6 {
            bytes.extend(range.first.to_be_bytes());
            bytes.extend(range.last.to_be_bytes());
        }
        bytes
    }

    /// What [`Self::to_bytes`] made; `None` if these bytes are nothing that it makes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk::<8>()?;
        let size = usize::try_from(u64::from_be_bytes(*count)).ok()?.checked_mul(8)?;
        let (v4, v6) = rest.split_at_checked(size)?;
        let (pairs_v4, []) = v4.as_chunks::<8>() else { return None };
        let (pairs_v6, []) = v6.as_chunks::<32>() else { return None };
        let v4: Set<u32> = pairs_v4
            .iter()
            .map(|pair| {
                let number = u64::from_be_bytes(*pair);
                Range { first: (number >> 32) as u32, last: number as u32 }
            })
            .collect();
        let v6: Set<u128> = pairs_v6
            .iter()
            .filter_map(|pair| {
                let (first, last) = pair.split_first_chunk::<16>()?;
                Some(Range { first: u128::from_be_bytes(*first), last: u128::from_be_bytes(last.try_into().ok()?) })
            })
            .collect();
        (in_order(&v4) && in_order(&v6)).then_some(Self { v4, v6 })
    }
}

impl FromIterator<Span> for Addresses {
    fn from_iter<T: IntoIterator<Item = Span>>(spans: T) -> Self {
        let mut addresses = Self::default();
        for span in spans {
            match span {
                Span::V4(range) => addresses.v4.push(range),
                Span::V6(range) => addresses.v6.push(range),
            }
        }
        Self::merged(addresses.v4, addresses.v6)
    }
}

impl FromIterator<IpNet> for Addresses {
    fn from_iter<T: IntoIterator<Item = IpNet>>(nets: T) -> Self {
        nets.into_iter().map(canonical).map(segments::span).collect()
    }
}

/// A network of mapped IPv4 addresses as the IPv4 network that it means.
fn canonical(net: IpNet) -> IpNet {
    match (net.addr().to_canonical(), net.prefix_len().checked_sub(96)) {
        (IpAddr::V4(address), Some(length)) if matches!(net, IpNet::V6(_)) => {
            IpNet::new(address.into(), length).unwrap_or(net)
        }
        _ => net,
    }
}

/// The addresses from `first` to `last`, if they are of one family and in this order.
fn range(first: IpAddr, last: IpAddr) -> Option<Span> {
    match (first.to_canonical(), last.to_canonical()) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
            Some(Span::V4(Range { first: Ipv4Addr::to_bits(first), last: Ipv4Addr::to_bits(last) }))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
            Some(Span::V6(Range { first: Ipv6Addr::to_bits(first), last: Ipv6Addr::to_bits(last) }))
        }
        _ => None,
    }
}

fn holds<N: segments::Number>(set: &[Range<N>], address: N) -> bool {
    meets(set, Range { first: address, last: address })
}

fn meets<N: segments::Number>(set: &[Range<N>], range: Range<N>) -> bool {
    let index = set.partition_point(|candidate| candidate.last < range.first);
    set.get(index).is_some_and(|candidate| candidate.first <= range.last)
}

/// Ranges in order, overlapping and adjoining ones made one.
fn merged<N: segments::Number>(mut ranges: Set<N>) -> Set<N> {
    ranges.sort_unstable_by_key(|range| range.first);
    let mut out: Set<N> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            // A range that reaches to the family's last address has no next one, and holds all that follow.
            Some(before) if before.last.next().is_none_or(|next| range.first <= next) => {
                before.last = before.last.max(range.last);
            }
            _ => out.push(range),
        }
    }
    out.shrink_to_fit();
    out
}

fn in_order<N: segments::Number>(set: &[Range<N>]) -> bool {
    set.iter().all(|range| range.first <= range.last)
        && set.windows(2).all(|pair| matches!(pair, [a, b] if a.last < b.first))
}
