use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use screen_common::decide::{Class, holds};

use super::*;
use crate::kernel::prefix::{ALL_IPV4, key_of};

/// The maps as the kernel sees them, fed with nothing but changes.
#[derive(Default)]
struct Maps {
    rows: BTreeMap<u16, [u8; ROW]>,
    classes: BTreeMap<u8, ListId>,
    hosts: BTreeMap<IpKey, Entry>,
    nets: BTreeMap<Prefix, Entry>,
}

impl Maps {
    fn apply(&mut self, table: &DenyTable, changes: Changes) {
        self.classes.extend(changes.classes);
        for key in changes.hosts {
            if let Some(entry) = table.host(key) {
                self.hosts.insert(key, entry);
            }
        }
        for key in changes.taken_back {
            if table.host(key).is_none() {
                self.hosts.remove(&key);
            }
        }
        for prefix in changes.nets {
            match table.net(prefix) {
                Some(entry) => self.nets.insert(prefix, entry),
                None => self.nets.remove(&prefix),
            };
        }
        for row in changes.rows {
            self.rows.insert(row, table.row(row));
        }
    }

    /// The kernel's decision, step by step.
    fn denied(&self, key: IpKey, now: u64) -> bool {
        let live = |entry: &Entry| holds(entry.expires.nanos(), now);
        if let Some([a, b, c, _]) = key.ipv4() {
            let byte = self.rows.get(&u16::from_be_bytes([a, b])).map_or(0, |row| row[c as usize]);
            match Class::of(byte) {
                Class::Clear => return false,
                Class::Listed(class) => {
                    assert!(self.classes.contains_key(&class), "a class without a list");
                    return true;
                }
                Class::Further => {}
            }
        }
        if self.hosts.get(&key).is_some_and(live) {
            return true;
        }
        // The wall between the families, which the map holds from the start.
        let wall = Entry { list: ListId(0), expires: Expiry::from_nanos(0) };
        (0..=128)
            .rev()
            .find_map(|bits| {
                let prefix = Prefix::new(key, bits);
                self.nets.get(&prefix).or((prefix == ALL_IPV4).then_some(&wall))
            })
            .is_some_and(live)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(IpNet, u32, Option<u64>),
    Remove(usize),
    Replace(u32, Vec<(IpNet, Option<u64>)>),
    Sweep(u64),
}

/// Few bits vary, so that prefixes meet.
fn net() -> impl Strategy<Value = IpNet> {
    let ipv4 = (0u8..3, 0u8..4, 0u8..4, 0u8..8, 0u8..=32)
        .prop_map(|(a, b, c, d, bits)| IpNet::new(IpAddr::from([a, b, c, d << 5]), bits).unwrap().trunc());
    let long = (0u8..2, 0u8..3, 0u8..255, 20u8..=32)
        .prop_map(|(b, c, d, bits)| IpNet::new(IpAddr::from([1, b, c, d]), bits).unwrap().trunc());
    let ipv6 = (0u16..2, 0u16..3, 0u16..3, 0u8..=128)
        .prop_map(|(a, b, c, bits)| IpNet::new(IpAddr::from([0x2001, a, b, 0, 0, 0, 0, c]), bits).unwrap().trunc());
    prop_oneof![3 => ipv4, 4 => long, 3 => ipv6]
}

fn expiry() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![Just(None), (1u64..20).prop_map(Some)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (net(), 1u32..4, expiry()).prop_map(|(net, list, expires)| Step::Insert(net, list, expires)),
        3 => any::<usize>().prop_map(Step::Remove),
        1 => (1u32..4, prop::collection::vec((net(), expiry()), 0..40)).prop_map(|(list, nets)| Step::Replace(list, nets)),
        1 => (0u64..20).prop_map(Step::Sweep),
    ]
}

fn expires(value: Option<u64>) -> Expiry {
    value.map_or(Expiry::NEVER, Expiry::from_nanos)
}

/// Addresses in and around a prefix.
fn probes(net: &IpNet) -> Vec<IpAddr> {
    let (first, last) = (net.network(), net.broadcast());
    let beside = |address: IpAddr, step: i128| match address {
        IpAddr::V4(address) => IpAddr::from(u32::from(address).wrapping_add(step as u32).to_be_bytes()),
        IpAddr::V6(address) => IpAddr::from(u128::from(address).wrapping_add(step as u128).to_be_bytes()),
    };
    vec![first, last, beside(first, -1), beside(first, 1), beside(last, 1)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_maps_say_what_the_set_says(steps in prop::collection::vec(step(), 1..40)) {
        let mut table = DenyTable::default();
        let mut maps = Maps::default();
        let mut naive: BTreeMap<(IpNet, u32), Option<u64>> = BTreeMap::new();
        let mut seen: Vec<IpNet> = Vec::new();
        for step in steps {
            let mut changes = Changes::default();
            match step {
                Step::Insert(net, list, until) => {
                    table.insert(net.into(), Entry { list: ListId(list), expires: expires(until) }, &mut changes).unwrap();
                    naive.insert((net, list), until);
                    seen.push(net);
                }
                Step::Remove(index) => {
                    let Some((net, list)) = naive.keys().nth(index % naive.len().max(1)).copied() else { continue };
                    prop_assert!(table.remove(net.into(), ListId(list), &mut changes));
                    naive.remove(&(net, list));
                }
                Step::Replace(list, nets) => {
                    let wanted: BTreeMap<Prefix, Expiry> =
                        nets.iter().map(|(net, until)| ((*net).into(), expires(*until))).collect();
                    table.replace(ListId(list), &wanted, &mut changes).unwrap();
                    naive.retain(|(_, other), _| *other != list);
                    for (net, until) in nets {
                        naive.insert((net, list), until);
                        seen.push(net);
                    }
                }
                Step::Sweep(now) => {
                    table.sweep(Expiry::from_nanos(now), &mut changes);
                    naive.retain(|_, until| until.is_none_or(|until| until > now));
                }
            }
            maps.apply(&table, changes);
        }
        for net in &seen {
            for address in probes(net) {
                for now in [0, 5, 10, 19, 20] {
                    let expected = naive.iter().any(|((net, _), until)| net.contains(&address) && until.is_none_or(|until| until > now));
                    prop_assert_eq!(maps.denied(key_of(address), now), expected, "{} at {}", address, now);
                }
            }
        }
        for net in naive.keys().map(|(net, _)| *net).collect::<BTreeSet<_>>() {
            for list in 1..4 {
                let mut changes = Changes::default();
                table.remove(net.into(), ListId(list), &mut changes);
                maps.apply(&table, changes);
            }
        }
        prop_assert!(maps.hosts.is_empty() && maps.nets.is_empty());
        prop_assert!(maps.rows.values().all(|row| *row == [0; ROW]));
        prop_assert!(table.rows.is_empty() && table.len() == 0);
    }
}

fn entry(list: u32) -> Entry {
    Entry { list: ListId(list), expires: Expiry::NEVER }
}

#[test]
fn a_list_that_stays_is_not_written_again() {
    let mut table = DenyTable::default();
    let mut changes = Changes::default();
    let nets: BTreeMap<Prefix, Expiry> = ["192.0.2.0/24", "198.51.100.0/25", "203.0.113.9/32"]
        .into_iter()
        .map(|text| (text.parse::<IpNet>().unwrap().into(), Expiry::NEVER))
        .collect();
    table.replace(ListId(16), &nets, &mut changes).unwrap();
    assert_eq!((changes.rows.len(), changes.hosts.len(), changes.nets.len(), changes.classes.len()), (3, 1, 1, 1));
    let mut changes = Changes::default();
    table.replace(ListId(16), &nets, &mut changes).unwrap();
    assert!(
        changes.rows.is_empty() && changes.hosts.is_empty() && changes.nets.is_empty() && changes.classes.is_empty()
    );
}

#[test]
fn more_lists_than_classes_still_deny() {
    let mut table = DenyTable::default();
    let mut maps = Maps::default();
    for list in 0..300u32 {
        let net = IpNet::new(IpAddr::from([10, (list >> 8) as u8, list as u8, 0]), 24).unwrap();
        let mut changes = Changes::default();
        table.insert(net.into(), entry(list), &mut changes).unwrap();
        maps.apply(&table, changes);
    }
    assert!(maps.denied(key_of(IpAddr::from([10, 0, 0, 1])), 1));
    assert!(maps.denied(key_of(IpAddr::from([10, 1, 43, 1])), 1));
    assert_eq!(table.fill(), (0, 300 - usize::from(MAX_CLASS)));
}

#[test]
fn the_whole_address_space_fits_the_table() {
    let mut table = DenyTable::default();
    let mut changes = Changes::default();
    table.insert("0.0.0.0/0".parse::<IpNet>().unwrap().into(), entry(1), &mut changes).unwrap();
    assert_eq!(changes.rows.len(), 65_536);
    let mut changes = Changes::default();
    assert!(table.remove("0.0.0.0/0".parse::<IpNet>().unwrap().into(), ListId(1), &mut changes));
    assert_eq!(changes.rows.len(), 65_536);
    assert!(table.rows.is_empty());
}

#[test]
fn what_does_not_fit_changes_nothing_and_classes_always_fit() {
    let net = |number: u32, bits: u8| -> Prefix {
        IpNet::new(IpAddr::from((number << (32 - bits)).to_be_bytes()), bits).unwrap().into()
    };
    let mut table = DenyTable::default();
    let too_many: BTreeMap<Prefix, Expiry> =
        (0..DENY_NET_ENTRIES as u32).map(|number| (net(number, 25), Expiry::NEVER)).collect();
    let mut changes = Changes::default();
    assert!(matches!(table.replace(ListId(16), &too_many, &mut changes), Err(KernelError::Full { .. })));
    assert_eq!(table.no_room(), (0, DENY_NET_ENTRIES as u64));
    assert!(table.len() == 0 && changes.nets.is_empty() && changes.rows.is_empty());
    let classes: BTreeMap<Prefix, Expiry> =
        (0..DENY_NET_ENTRIES as u32).map(|number| (net(number, 24), Expiry::NEVER)).collect();
    table.replace(ListId(16), &classes, &mut changes).unwrap();
    assert_eq!((table.len(), table.fill()), (DENY_NET_ENTRIES, (0, 0)));
}
