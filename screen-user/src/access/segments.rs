//! Ranges of addresses by first match: what an ordered list of overlapping networks says of each address, ready for binary search.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// An address as a number, in one family.
pub(super) trait Number: Copy + Ord {
    /// The family's last address.
    const LAST: Self;
    /// The next address, if there is one.
    fn next(self) -> Option<Self>;
    /// The address before, if there is one.
    fn previous(self) -> Option<Self>;
}

impl Number for u32 {
    const LAST: Self = Self::MAX;
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

impl Number for u128 {
    const LAST: Self = Self::MAX;
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

/// The addresses from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range<N> {
    pub(super) first: N,
    pub(super) last: N,
}

/// A set of addresses of one family: ranges in order, apart from each other.
pub(super) type Set<N> = Vec<Range<N>>;

/// The addresses that are in both sets.
pub(super) fn intersect<N: Number>(a: &[Range<N>], b: &[Range<N>]) -> Set<N> {
    let mut out = Vec::new();
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        let (first, last) = (x.first.max(y.first), x.last.min(y.last));
        if first <= last {
            out.push(Range { first, last });
        }
        if x.last <= y.last {
            a.next();
        } else {
            b.next();
        }
    }
    out
}

/// The addresses of the family that are not in `range`.
pub(super) fn complement<N: Number + Default>(range: Range<N>) -> Set<N> {
    let below = range.first.previous().map(|last| Range { first: N::default(), last });
    let above = range.last.next().map(|first| Range { first, last: N::LAST });
    below.into_iter().chain(above).collect()
}

/// Disjoint ranges in order, each with the rule that is the first to match there.
#[derive(Debug, Clone)]
pub(super) struct Segments<N> {
    ranges: Vec<(N, N, u32)>,
}

impl<N> Default for Segments<N> {
    fn default() -> Self {
        Self { ranges: Vec::new() }
    }
}

impl<N: Number> Segments<N> {
    /// From ranges that may overlap; where they do, the lowest rule number counts. O(n log n).
    pub(super) fn new(mut claims: Vec<(Range<N>, u32)>) -> Self {
        claims.sort_unstable_by_key(|(range, rule)| (range.first, *rule));
        let mut ranges: Vec<(N, N, u32)> = Vec::with_capacity(claims.len());
        let mut push = |first: N, last: N, rule: u32| match ranges.last_mut() {
            Some(end) if end.2 == rule && end.1.next() == Some(first) => end.1 = last,
            _ => ranges.push((first, last, rule)),
        };
        // Claims that reach to the position or beyond, lowest rule number on top.
        let mut open: BinaryHeap<Reverse<(u32, N)>> = BinaryHeap::new();
        let mut claims = claims.into_iter().peekable();
        let mut position: Option<N> = None;
        while let Some(at) =
            position.filter(|_| !open.is_empty()).or_else(|| claims.peek().map(|(range, _)| range.first))
        {
            while let Some((range, rule)) = claims.next_if(|(range, _)| range.first <= at) {
                open.push(Reverse((rule, range.last)));
            }
            while open.peek().is_some_and(|Reverse((_, last))| *last < at) {
                open.pop();
            }
            let Some(Reverse((rule, last))) = open.peek().copied() else {
                position = None;
                continue;
            };
            // Another claim may win from where it starts, never before.
            let until =
                claims.peek().and_then(|(range, _)| range.first.previous()).map_or(last, |before| last.min(before));
            push(at, until, rule);
            match until.next() {
                Some(next) => position = Some(next),
                None => break,
            }
        }
        ranges.shrink_to_fit();
        Self { ranges }
    }

    /// The rule that is the first to match.
    pub(super) fn find(&self, address: N) -> Option<u32> {
        let index = self.ranges.partition_point(|(_, last, _)| *last < address);
        self.ranges.get(index).filter(|(first, _, _)| *first <= address).map(|(_, _, rule)| *rule)
    }

    /// The ranges whose rule satisfies `which`.
    fn ranges_whose(&self, which: impl Fn(u32) -> bool) -> impl Iterator<Item = (N, N)> {
        self.ranges.iter().filter(move |(_, _, rule)| which(*rule)).map(|(first, last, _)| (*first, *last))
    }

    /// Where what the list says may change: the first address of every range, and the one after its last.
    pub(super) fn edges(&self) -> impl Iterator<Item = N> + '_ {
        self.ranges.iter().flat_map(|(first, last, _)| std::iter::once(*first).chain(last.next()))
    }
}

/// One [`Segments`] a family.
#[derive(Debug, Clone, Default)]
pub(super) struct Both {
    pub(super) v4: Segments<u32>,
    pub(super) v6: Segments<u128>,
}

impl Both {
    /// From networks in order: the first that covers an address is its rule, by position.
    pub(super) fn from_networks(networks: impl Iterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (net, rule) in networks.zip(0u32..) {
            match span(net) {
                Span::V4(range) => v4.push((range, rule)),
                Span::V6(range) => v6.push((range, rule)),
            }
        }
        Self { v4: Segments::new(v4), v6: Segments::new(v6) }
    }

    /// The rule that is the first to match.
    pub(super) fn find(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        }
    }
}

impl Both {
    /// The networks whose rule satisfies `which`, in order, IPv4 first.
    pub(super) fn networks_whose(&self, which: impl Fn(u32) -> bool + Clone) -> impl Iterator<Item = IpNet> {
        let v4 = self.v4.ranges_whose(which.clone()).flat_map(|(first, last)| networks_v4(first, last));
        let v6 = self.v6.ranges_whose(which).flat_map(|(first, last)| networks_v6(first, last));
        v4.chain(v6)
    }
}

/// A network as numbers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Span {
    V4(Range<u32>),
    V6(Range<u128>),
}

/// The addresses of a network.
pub(super) fn span(net: IpNet) -> Span {
    match net {
        IpNet::V4(net) => Span::V4(Range { first: net.network().to_bits(), last: net.broadcast().to_bits() }),
        IpNet::V6(net) => Span::V6(Range { first: net.network().to_bits(), last: net.broadcast().to_bits() }),
    }
}

/// The fewest networks that make up a range of IPv4 addresses.
pub(super) fn networks_v4(first: u32, last: u32) -> impl Iterator<Item = IpNet> {
    Ipv4Subnets::new(Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last), 0).map(IpNet::V4)
}

/// The fewest networks that make up a range of IPv6 addresses.
pub(super) fn networks_v6(first: u128, last: u128) -> impl Iterator<Item = IpNet> {
    Ipv6Subnets::new(Ipv6Addr::from_bits(first), Ipv6Addr::from_bits(last), 0).map(IpNet::V6)
}
