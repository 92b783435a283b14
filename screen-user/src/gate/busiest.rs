//! Who comes most often, in bounded room.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use ipnet::IpNet;

use crate::operate::top::snapshot::{Fates, MOST_ROWS, Visitor};

/// Whom there is room for. In a flood from ever new sources somebody who comes as often as one in so many is seen among them.
const CAPACITY: usize = 512;
/// Seconds over which a rate is taken: a connection counts e times less after them.
const MEMORY: f64 = 10.0;

/// Clients, or networks, and how often they come.
#[derive(Debug, Default)]
pub(super) struct Busiest(HashMap<IpNet, Kept>);

#[derive(Debug)]
struct Kept {
    address: IpAddr,
    /// The logarithm of the connections that still count, as of time zero: two of them compare without a clock.
    rank: f64,
    fates: Fates,
    last: &'static str,
}

/// What became of a connection: how it is called, and where it is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fate {
    pub(super) name: &'static str,
    pub(super) count: fn(&mut Fates) -> &mut u64,
}

impl Busiest {
    /// A connection of `address`, which belongs to `net`, at this time since the start.
    pub(super) fn came(&mut self, net: IpNet, address: IpAddr, at: Duration) {
        let now = at.as_secs_f64() / MEMORY;
        if !self.0.contains_key(&net)
            && self.0.len() >= CAPACITY
            && let Some(seldom) = self.0.iter().min_by(|a, b| a.1.rank.total_cmp(&b.1.rank)).map(|(net, _)| *net)
        {
            self.0.remove(&seldom);
        }
        let new = Kept { address, rank: f64::NEG_INFINITY, fates: Fates::default(), last: "" };
        let kept = self.0.entry(net).or_insert(new);
        kept.address = address;
        kept.rank = now + ((kept.rank - now).exp() + 1.0).ln();
    }

    /// What became of a connection of `net`, if that is still among those that come most often.
    pub(super) fn ended(&mut self, net: IpNet, fate: Fate) {
        if let Some(kept) = self.0.get_mut(&net) {
            *(fate.count)(&mut kept.fates) += 1;
            kept.last = fate.name;
        }
    }

    /// Those that come most often, the busiest first.
    pub(super) fn top(&self, at: Duration) -> Vec<Visitor> {
        let now = at.as_secs_f64() / MEMORY;
        let mut all: Vec<(&IpNet, &Kept)> = self.0.iter().collect();
        all.sort_by(|a, b| b.1.rank.total_cmp(&a.1.rank).then(a.0.cmp(b.0)));
        let row = |(net, kept): (&IpNet, &Kept)| Visitor {
            net: *net,
            address: kept.address,
            per_second: (kept.rank - now).exp() / MEMORY,
            open: None,
            fates: kept.fates,
            last: kept.last.to_owned(),
        };
        all.into_iter().take(MOST_ROWS).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn come(busiest: &mut Busiest, address: Ipv4Addr, at: Duration) {
        busiest.came(IpNet::from(IpAddr::V4(address)), address.into(), at);
    }

    const HOG: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    #[test]
    fn a_steady_client_has_its_rate_and_loses_it_with_time() {
        let mut busiest = Busiest::default();
        for number in 0..1000 {
            come(&mut busiest, HOG, Duration::from_millis(100 * number));
        }
        let rate = |seconds| busiest.top(Duration::from_secs(seconds))[0].per_second;
        assert!((9.0..11.0).contains(&rate(100)), "{}", rate(100));
        assert!(rate(200) < 0.01, "{}", rate(200));
    }

    #[test]
    fn a_flood_of_strangers_hides_no_frequent_client_and_takes_bounded_room() {
        let mut busiest = Busiest::default();
        for number in 0..100_000_u32 {
            let at = Duration::from_micros(u64::from(number) * 100);
            come(&mut busiest, Ipv4Addr::from_bits(0x0a00_0000 + number), at);
            if number % 200 == 0 {
                come(&mut busiest, HOG, at);
            }
        }
        assert_eq!(busiest.0.len(), CAPACITY);
        let top = busiest.top(Duration::from_secs(10));
        assert_eq!((top.len(), top[0].address), (MOST_ROWS, HOG.into()));
    }

    #[test]
    fn fates_count_for_those_that_are_known() {
        let mut busiest = Busiest::default();
        let fate = Fate { name: "denied", count: |fates| &mut fates.denied };
        let net = IpNet::from(IpAddr::V4(HOG));
        busiest.ended(net, fate);
        come(&mut busiest, HOG, Duration::ZERO);
        busiest.ended(net, fate);
        let top = busiest.top(Duration::ZERO);
        assert_eq!((top[0].fates.denied, top[0].last.as_str()), (1, "denied"));
    }
}
