use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;

use super::{Entry, Inserted, Kind, Offence, Origin, Roll, RuntimeLists};
use crate::share::Version;

fn entry(net: &str, kind: Kind, until: Option<u64>, origin: Origin) -> Entry {
    made(net.parse().unwrap(), kind, until, origin, Version::NONE)
}

fn made(net: IpNet, kind: Kind, until: Option<u64>, origin: Origin, version: Version) -> Entry {
    Entry { net, kind, until, reason: String::new(), origin, version, host: String::new(), offence: None }
}

fn evicts(evicted: &[Entry]) -> Inserted {
    Inserted { taken: true, evicted: evicted.to_vec() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_longest_live_prefix_is_reported() {
    let mut lists = RuntimeLists::default();
    lists.insert(entry("192.0.2.0/24", Kind::Deny, None, Origin::Operator));
    lists.insert(entry("192.0.2.7/32", Kind::Deny, Some(100), Origin::Failure));
    assert_eq!(lists.denied(ip("192.0.2.7"), 99).unwrap().net, "192.0.2.7/32".parse().unwrap());
    assert_eq!(lists.denied(ip("192.0.2.7"), 100).unwrap().net, "192.0.2.0/24".parse().unwrap());
    assert_eq!(lists.denied(ip("::ffff:192.0.2.9"), 0).unwrap().net, "192.0.2.0/24".parse().unwrap());
    assert!(lists.denied(ip("192.0.3.7"), 0).is_none());
    assert!(lists.allowed(ip("192.0.2.7"), 0).is_none());
}

#[test]
fn a_failure_never_takes_an_operators_place() {
    let mut lists = RuntimeLists::with_capacity(3);
    lists.insert(entry("192.0.2.1/32", Kind::Deny, Some(50), Origin::Operator));
    assert_eq!(lists.insert(entry("192.0.2.1/32", Kind::Deny, Some(90), Origin::Failure)), evicts(&[]));
    assert_eq!(lists.denied(ip("192.0.2.1"), 49).unwrap().until, Some(50));
    assert_eq!(lists.denied(ip("192.0.2.1"), 50).unwrap().until, Some(90));
    lists.remove(Roll::Failure, "192.0.2.1/32".parse().unwrap()).unwrap();

    lists.insert(entry("192.0.2.5/32", Kind::Allow, None, Origin::Operator));
    let soon = entry("192.0.2.2/32", Kind::Deny, Some(60), Origin::Failure);
    lists.insert(soon.clone());
    assert_eq!(lists.insert(entry("192.0.2.3/32", Kind::Allow, None, Origin::Operator)), evicts(&[soon]));
    let late = lists.insert(entry("192.0.2.4/32", Kind::Deny, Some(70), Origin::Failure));
    assert_eq!(late, Inserted { taken: false, evicted: vec![] }, "all the room is the operator's");
    assert_eq!(lists.len(), 3);
}

#[test]
fn the_later_of_two_entries_stays_in_whatever_order_they_come() {
    let net: IpNet = "192.0.2.1/32".parse().unwrap();
    let older = made(net, Kind::Deny, Some(90), Origin::Failure, Version(1));
    let newer = made(net, Kind::Deny, Some(50), Origin::Failure, Version(2));
    let twin = Entry { host: "mx2".to_owned(), ..newer.clone() };
    for order in [[&older, &newer, &twin], [&twin, &newer, &older], [&newer, &twin, &older]] {
        let mut lists = RuntimeLists::default();
        order.into_iter().for_each(|entry| drop(lists.insert(entry.clone())));
        assert_eq!(lists.get(Roll::Failure, net), Some(&twin));
        assert!(!lists.insert(older.clone()).taken);
    }
}

#[test]
fn forgetting_a_network_forgets_what_is_in_it() {
    let mut lists = RuntimeLists::default();
    for net in ["192.0.0.0/16", "192.0.2.0/24", "192.0.2.7/32", "192.0.3.0/24", "2001:db8::/64"] {
        lists.insert(entry(net, Kind::Deny, None, Origin::Operator));
    }
    lists.insert(entry("192.0.2.200/32", Kind::Allow, None, Origin::Operator));
    lists.insert(made("192.0.2.201/32".parse().unwrap(), Kind::Allow, None, Origin::Operator, Version(6)));
    let mut gone: Vec<_> =
        lists.forget("192.0.2.99/24".parse().unwrap(), Version(5)).iter().map(|entry| entry.net.to_string()).collect();
    gone.sort();
    assert_eq!(gone, ["192.0.2.0/24", "192.0.2.200/32", "192.0.2.7/32"]);
    assert_eq!(lists.len(), 4, "what was entered later stays");
    assert_eq!(lists.forget("2001:db8::/32".parse().unwrap(), Version(5)).len(), 1);
}

#[test]
fn entries_outlive_the_process_as_json() {
    let before = entry("2001:db8::/64", Kind::Deny, Some(7), Origin::Failure);
    let json = serde_json::to_string(&before).unwrap();
    assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), before);
    // As a version wrote them that did not share them.
    let former = r#"{"net":"2001:db8::/64","kind":"deny","until":7,"reason":"","origin":"failure"}"#;
    assert_eq!(serde_json::from_str::<Entry>(former).unwrap(), before);
}

#[derive(Debug, Clone)]
enum Step {
    Insert(Entry),
    Remove(Roll, IpNet),
    Expire,
}

fn net() -> impl Strategy<Value = IpNet> {
    (0u32..16, 26u8..=32).prop_map(|(low, length)| {
        IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(0xC000_0200 | low << 2), length).unwrap().trunc())
    })
}

fn roll() -> impl Strategy<Value = Roll> {
    prop::sample::select(Roll::ALL.as_slice())
}

fn step() -> impl Strategy<Value = Step> {
    let insert =
        (net(), roll(), prop::option::of(0u64..40), 0u64..9, 0u64..9).prop_map(|(net, roll, until, version, more)| {
            let (kind, origin) = match roll {
                Roll::Allow => (Kind::Allow, Origin::Operator),
                Roll::Deny => (Kind::Deny, Origin::Operator),
                Roll::Failure => (Kind::Deny, Origin::Failure),
            };
            let offence =
                until.filter(|_| roll == Roll::Failure).map(|until| Offence { failures: 1, until: until + more });
            Step::Insert(Entry { offence, ..made(net, kind, until, origin, Version(version)) })
        });
    prop_oneof![6 => insert, 2 => (roll(), net()).prop_map(|(roll, net)| Step::Remove(roll, net)), 1 => Just(Step::Expire)]
}

proptest! {
    #[test]
    fn lists_stay_bounded_and_say_what_a_plain_search_says(steps in prop::collection::vec(step(), 1..60), capacity in 1usize..12) {
        let mut lists = RuntimeLists::with_capacity(capacity);
        for (step, now) in steps.into_iter().zip(0u64..) {
            let operators = |lists: &RuntimeLists| lists.iter().filter(|entry| entry.origin == Origin::Operator).count();
            let before = operators(&lists);
            match step {
                Step::Insert(entry) => {
                    let known = lists.get(entry.roll(), entry.net).cloned();
                    let Inserted { taken, evicted } = lists.insert(entry.clone());
                    prop_assert!(evicted.iter().all(|gone| gone.origin == Origin::Failure));
                    prop_assert!(operators(&lists) >= before);
                    if taken {
                        prop_assert_eq!(lists.get(entry.roll(), entry.net), Some(&entry));
                    } else if let Some(known) = known {
                        prop_assert!(known.version >= entry.version);
                    } else {
                        prop_assert_eq!(operators(&lists), capacity);
                    }
                }
                Step::Remove(roll, net) => {
                    let held = lists.get(roll, net).cloned();
                    prop_assert_eq!(lists.remove(roll, net), held);
                }
                Step::Expire => {
                    lists.expire(now);
                    prop_assert!(lists.iter().all(|entry| entry.ends().is_none_or(|end| end > now)));
                    prop_assert!(lists.next_end().is_none_or(|end| end > now));
                }
            }
            prop_assert!(lists.len() <= capacity);
            for low in 0..64 {
                let address = IpAddr::V4(Ipv4Addr::from_bits(0xC000_0200 | low));
                for (kind, found) in [(Kind::Allow, lists.allowed(address, now)), (Kind::Deny, lists.denied(address, now))] {
                    let expected = lists
                        .iter()
                        .filter(|entry| entry.kind == kind && entry.is_live(now) && entry.net.contains(&address))
                        // An operator's word comes first among those of one prefix.
                        .max_by_key(|entry| (entry.net.prefix_len(), entry.origin == Origin::Operator));
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
