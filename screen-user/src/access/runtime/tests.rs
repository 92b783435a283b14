use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;

use super::{Entry, Kind, Origin, RuntimeLists};

fn entry(net: &str, kind: Kind, until: Option<u64>, origin: Origin) -> Entry {
    Entry { net: net.parse().unwrap(), kind, until, reason: String::new(), origin }
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
    let mut lists = RuntimeLists::with_capacity(2);
    lists.insert(entry("192.0.2.1/32", Kind::Deny, Some(50), Origin::Operator));
    assert_eq!(lists.insert(entry("192.0.2.1/32", Kind::Deny, Some(90), Origin::Failure)), []);
    assert_eq!(lists.get(Kind::Deny, "192.0.2.1/32".parse().unwrap()).unwrap().until, Some(50));

    let soon = entry("192.0.2.2/32", Kind::Deny, Some(60), Origin::Failure);
    lists.insert(soon.clone());
    assert_eq!(lists.insert(entry("192.0.2.3/32", Kind::Allow, None, Origin::Operator)), [soon]);
    let late = entry("192.0.2.4/32", Kind::Deny, Some(70), Origin::Failure);
    assert_eq!(lists.insert(late.clone()), [late], "all the room is the operator's");
    assert_eq!(lists.len(), 2);
}

#[test]
fn forgetting_a_network_forgets_what_is_in_it() {
    let mut lists = RuntimeLists::default();
    for net in ["192.0.0.0/16", "192.0.2.0/24", "192.0.2.7/32", "192.0.3.0/24", "2001:db8::/64"] {
        lists.insert(entry(net, Kind::Deny, None, Origin::Operator));
    }
    lists.insert(entry("192.0.2.200/32", Kind::Allow, None, Origin::Operator));
    let mut gone: Vec<_> =
        lists.remove_within("192.0.2.99/24".parse().unwrap()).iter().map(|entry| entry.net.to_string()).collect();
    gone.sort();
    assert_eq!(gone, ["192.0.2.0/24", "192.0.2.200/32", "192.0.2.7/32"]);
    assert_eq!(lists.len(), 3);
    assert_eq!(lists.remove_within("2001:db8::/32".parse().unwrap()).len(), 1);
}

#[test]
fn entries_outlive_the_process_as_json() {
    let before = entry("2001:db8::/64", Kind::Deny, Some(7), Origin::Failure);
    let json = serde_json::to_string(&before).unwrap();
    assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), before);
}

#[derive(Debug, Clone)]
enum Step {
    Insert(Entry),
    Remove(Kind, IpNet),
    Expire,
}

fn net() -> impl Strategy<Value = IpNet> {
    (0u32..16, 26u8..=32).prop_map(|(low, length)| {
        IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(0xC000_0200 | low << 2), length).unwrap().trunc())
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Allow), Just(Kind::Deny)]
}

fn step() -> impl Strategy<Value = Step> {
    let origin = prop_oneof![Just(Origin::Operator), Just(Origin::Failure)];
    let insert = (net(), kind(), prop::option::of(0u64..40), origin)
        .prop_map(|(net, kind, until, origin)| Step::Insert(Entry { net, kind, until, reason: String::new(), origin }));
    prop_oneof![6 => insert, 2 => (kind(), net()).prop_map(|(kind, net)| Step::Remove(kind, net)), 1 => Just(Step::Expire)]
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
                    let evicted = lists.insert(entry.clone());
                    prop_assert!(evicted.iter().all(|gone| gone.origin == Origin::Failure || *gone == entry));
                    prop_assert!(operators(&lists) >= before);
                }
                Step::Remove(kind, net) => {
                    let held = lists.get(kind, net).cloned();
                    prop_assert_eq!(lists.remove(kind, net), held);
                }
                Step::Expire => {
                    lists.expire(now);
                    prop_assert!(lists.iter().all(|entry| entry.is_live(now)));
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
                        .max_by_key(|entry| entry.net.prefix_len());
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
