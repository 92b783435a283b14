//! Orders to forget: all that was learnt of a network before a certain moment counts no more, also what only other hosts know.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use super::Version;

/// Most orders that are remembered; beyond, the oldest ones go.
const MOST: usize = 10_000;

/// How long an order is remembered, in milliseconds: longer than anything lasts that it could be about.
pub(super) const LIFE_MILLIS: u64 = 90 * 24 * 3600 * 1000;

/// The orders to forget, one a network.
#[derive(Debug, Default)]
pub struct Forgets {
    orders: HashMap<IpNet, Version>,
    /// The same, oldest first.
    by_age: BTreeMap<(Version, IpNet), ()>,
    /// How many there are of each prefix length, by family: a look-up tries no other.
    lengths: BTreeMap<(bool, u8), usize>,
}

impl Forgets {
    /// Notes an order, unless a later one for the same network is there. Returns whether it is new.
    pub fn add(&mut self, net: IpNet, version: Version) -> bool {
        let net = net.trunc();
        match self.orders.insert(net, version) {
            Some(known) if known >= version => {
                self.orders.insert(net, known);
                return false;
            }
            Some(known) => {
                self.by_age.remove(&(known, net));
            }
            None => *self.lengths.entry((net.addr().is_ipv4(), net.prefix_len())).or_default() += 1,
        }
        self.by_age.insert((version, net), ());
        if self.orders.len() > MOST
            && let Some(((_, oldest), ())) = self.by_age.first_key_value()
        {
            self.remove(*oldest);
        }
        true
    }

    /// The moment up to which everything about `net` is to be forgotten; [`Version::NONE`] if nothing is.
    #[must_use]
    pub fn of(&self, net: IpNet) -> Version {
        let family = net.addr().is_ipv4();
        self.lengths
            .range((family, 0)..=(family, net.prefix_len()))
            .filter_map(|(&(_, length), _)| self.orders.get(&IpNet::new(net.addr(), length).ok()?.trunc()))
            .copied()
            .max()
            .unwrap_or(Version::NONE)
    }

    /// The order for exactly this network.
    #[must_use]
    pub fn get(&self, net: IpNet) -> Option<Version> {
        self.orders.get(&net).copied()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, Version)> {
        self.orders.iter().map(|(&net, &version)| (net, version))
    }

    /// Drops orders that are older than some months at this time, in milliseconds of Unix time, and returns for which networks.
    pub fn expire(&mut self, unix_millis: u64) -> Vec<IpNet> {
        let oldest = Version::at(unix_millis.saturating_sub(LIFE_MILLIS));
        let gone: Vec<IpNet> =
            self.by_age.keys().take_while(|(version, _)| *version < oldest).map(|(_, net)| *net).collect();
        gone.iter().for_each(|&net| self.remove(net));
        gone
    }

    fn remove(&mut self, net: IpNet) {
        let Some(version) = self.orders.remove(&net) else { return };
        self.by_age.remove(&(version, net));
        let length = (net.addr().is_ipv4(), net.prefix_len());
        if let Some(count) = self.lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_latest_order_that_covers_a_network_counts() {
        let mut forgets = Forgets::default();
        assert!(forgets.add(net("192.0.2.0/24"), Version(5)));
        assert!(forgets.add(net("192.0.2.7/32"), Version(3)));
        assert!(forgets.add(net("::/0"), Version(9)));
        assert!(!forgets.add(net("192.0.2.0/24"), Version(4)), "an older one changes nothing");
        let of = |text: &str| forgets.of(net(text));
        assert_eq!(of("192.0.2.7/32"), Version(5));
        assert_eq!(of("192.0.2.0/25"), Version(5));
        assert_eq!(of("192.0.0.0/16"), Version::NONE, "only a part of it was forgotten");
        assert_eq!(of("2001:db8::/64"), Version(9));
        assert_eq!(of("198.51.100.1/32"), Version::NONE);
    }

    #[test]
    fn orders_end_and_their_number_is_bounded() {
        let mut forgets = Forgets::default();
        let now = LIFE_MILLIS + 2000;
        forgets.add(net("192.0.2.1/32"), Version::at(1999));
        forgets.add(net("192.0.2.2/32"), Version::at(2000));
        assert_eq!(forgets.expire(now), [net("192.0.2.1/32")]);
        assert_eq!(forgets.of(net("192.0.2.1/32")), Version::NONE);
        assert_eq!(forgets.of(net("192.0.2.2/32")), Version::at(2000));
        for number in 0..2 * MOST as u32 {
            forgets.add(std::net::IpAddr::from(number.to_be_bytes()).into(), Version::at(3000 + u64::from(number)));
        }
        assert_eq!(forgets.iter().count(), MOST);
        assert_eq!((forgets.by_age.len(), forgets.lengths.len()), (MOST, 1));
        assert_eq!(forgets.of(net("192.0.2.2/32")), Version::NONE, "the oldest went");
    }
}
