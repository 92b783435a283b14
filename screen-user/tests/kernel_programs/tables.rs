//! The tables, full size and in any order of changes: what the loaded gate says to a SYN is what a plain model says, and what the maps
//! take of memory is what the documents say.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData};
use ipnet::IpNet;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use screen_user::kernel::{DenyEntry, Expiry, KernelError, ListId, Plan};

use super::{
    frames::Frame,
    place::{Entry, Started, alone, plan, privileged},
    site::{Site, wait_for},
};

/// Bytes that all maps take together when nothing is in them, at most. Two thirds of it are the class bytes and the buckets
/// of `deny_host` and `pass`.
const IDLE_BYTES: u64 = 72 << 20;
/// Bytes that they take together with a million prefixes and a million addresses denied, at most.
const FULL_BYTES: u64 = 264 << 20;
const MILLION: u32 = 1_000_000;

#[derive(Debug, Clone)]
enum Step {
    Deny(IpNet, u32, Option<Duration>),
    Allow(IpNet, u32, Option<Duration>),
    Undeny(usize),
    Disallow(usize),
    ReplaceDenied(u32, Vec<(IpNet, Option<Duration>)>),
    ReplaceAllowed(u32, Vec<(IpNet, Option<Duration>)>),
    Sweep,
}

/// What lists say, kept as plainly as can be.
#[derive(Default)]
struct Model(BTreeMap<(IpNet, u32), Option<Duration>>);

impl Model {
    fn holds(&self, address: IpAddr) -> bool {
        self.0.iter().any(|((net, _), lasts)| net.contains(&address) && lasts.is_none_or(|lasts| !lasts.is_zero()))
    }

    fn nth(&self, index: usize) -> Option<(IpNet, u32)> {
        self.0.keys().nth(index % self.0.len().max(1)).copied()
    }

    fn replace(&mut self, list: u32, nets: &[(IpNet, Option<Duration>)]) {
        self.0.retain(|(_, other), _| *other != list);
        self.0.extend(nets.iter().map(|(net, lasts)| ((*net, list), *lasts)));
    }
}

/// Few bits vary, so that prefixes hold each other, and addresses of one /24 meet.
fn net() -> impl Strategy<Value = IpNet> {
    let ipv4 = (0u8..3, 0u8..3, any::<u8>(), 8u8..=32)
        .prop_map(|(b, c, d, bits)| IpNet::new(Ipv4Addr::new(11, b, c, d).into(), bits).unwrap().trunc());
    let ipv6 = (0u16..2, 0u16..3, 0u16..3, 0u8..=128).prop_map(|(a, b, c, bits)| {
        IpNet::new(Ipv6Addr::new(0x2001, a, b, 0, 0, 0, 0, c).into(), bits).unwrap().trunc()
    });
    prop_oneof![3 => ipv4, 1 => ipv6]
}

/// Never, in an hour, or long ago.
fn lasts() -> impl Strategy<Value = Option<Duration>> {
    prop_oneof![2 => Just(None), 1 => Just(Some(Duration::from_secs(3_600))), 1 => Just(Some(Duration::ZERO))]
}

fn step() -> impl Strategy<Value = Step> {
    let list = || 2u32..5;
    let nets = || prop::collection::vec((net(), lasts()), 0..30);
    prop_oneof![
        4 => (net(), list(), lasts()).prop_map(|(net, list, lasts)| Step::Deny(net, list, lasts)),
        3 => (net(), list(), lasts()).prop_map(|(net, list, lasts)| Step::Allow(net, list, lasts)),
        2 => any::<usize>().prop_map(Step::Undeny),
        1 => any::<usize>().prop_map(Step::Disallow),
        1 => (list(), nets()).prop_map(|(list, nets)| Step::ReplaceDenied(list, nets)),
        1 => (list(), nets()).prop_map(|(list, nets)| Step::ReplaceAllowed(list, nets)),
        1 => Just(Step::Sweep),
    ]
}

fn expiry(lasts: Option<Duration>) -> Expiry {
    lasts.map_or(Expiry::NEVER, |lasts| if lasts.is_zero() { Expiry::from_nanos(1) } else { Expiry::after(lasts) })
}

/// Addresses in a prefix and beside it.
fn probes(net: &IpNet) -> [IpAddr; 4] {
    let beside = |address: IpAddr, step: i8| match address {
        IpAddr::V4(address) => IpAddr::V4(address.to_bits().wrapping_add_signed(step.into()).into()),
        IpAddr::V6(address) => IpAddr::V6(address.to_bits().wrapping_add_signed(step.into()).into()),
    };
    let (first, last) = (net.network(), net.broadcast());
    [first, last, beside(first, -1), beside(last, 1)]
}

fn passes(gate: &Started, address: IpAddr) -> bool {
    gate.passes(Entry::Xdp, &Frame::syn(&address.to_string()).bytes())
}

/// Takes the same steps in the gate and in the model, and asks both.
fn play(gate: &Started, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut denied, mut allowed) = (Model::default(), Model::default());
    let mut seen = Vec::new();
    let expiries = |nets: &[(IpNet, Option<Duration>)]| -> Vec<(IpNet, Expiry)> {
        nets.iter().map(|(net, lasts)| (*net, expiry(*lasts))).collect()
    };
    for step in steps {
        match step {
            Step::Deny(net, list, lasts) => {
                gate.deny(net, DenyEntry { list: ListId(list), expires: expiry(lasts) }).unwrap();
                denied.0.insert((net, list), lasts);
                seen.push(net);
            }
            Step::Allow(net, list, lasts) => {
                gate.allow(net, ListId(list), expiry(lasts)).unwrap();
                allowed.0.insert((net, list), lasts);
                seen.push(net);
            }
            Step::Undeny(index) => {
                let Some((net, list)) = denied.nth(index) else { continue };
                prop_assert!(gate.undeny(net, ListId(list)).unwrap());
                denied.0.remove(&(net, list));
            }
            Step::Disallow(index) => {
                let Some((net, list)) = allowed.nth(index) else { continue };
                prop_assert!(gate.disallow(net, ListId(list)).unwrap());
                allowed.0.remove(&(net, list));
            }
            Step::ReplaceDenied(list, nets) => {
                gate.replace_denied(ListId(list), expiries(&nets)).unwrap();
                denied.replace(list, &nets);
                seen.extend(nets.into_iter().map(|(net, _)| net));
            }
            Step::ReplaceAllowed(list, nets) => {
                gate.replace_allowed(ListId(list), expiries(&nets)).unwrap();
                allowed.replace(list, &nets);
                seen.extend(nets.into_iter().map(|(net, _)| net));
            }
            Step::Sweep => {
                gate.sweep().unwrap();
                for model in [&mut denied, &mut allowed] {
                    model.0.retain(|_, lasts| lasts.is_none_or(|lasts| !lasts.is_zero()));
                }
            }
        }
    }
    for address in seen.iter().flat_map(probes) {
        let expected = allowed.holds(address) || !denied.holds(address);
        prop_assert_eq!(passes(gate, address), expected, "{}", address);
    }
    Ok(())
}

#[test]
fn the_gate_says_what_a_plain_model_says() {
    alone(|| {
        // Without a limit, which would count the SYNs of an address that is asked for more than once.
        let gate = Started::new(&Plan { limit: 0, ..plan() }).unwrap();
        let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
        let steps = prop::collection::vec(step(), 1..30);
        runner
            .run(&steps, |steps| {
                for list in 2..5 {
                    gate.replace_denied(ListId(list), []).unwrap();
                    gate.replace_allowed(ListId(list), []).unwrap();
                }
                play(&gate, steps)
            })
            .unwrap();
    });
}

/// What the kernel says that the maps of an installation take, in bytes, by name.
fn memory(gate: &Started) -> BTreeMap<String, u64> {
    let maps = gate.installation.every_map().unwrap();
    maps.iter()
        .map(|(name, map)| {
            let info = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", map.as_raw_fd())).unwrap();
            let bytes =
                info.lines().find_map(|line| line.strip_prefix("memlock:")).unwrap().trim().parse::<u64>().unwrap();
            // It leaves out a trie's inner nodes, of which there may be as many as entries.
            let trie = info.lines().any(|line| line.split_whitespace().eq(["map_type:", "11"]));
            (name.to_owned(), if trie { bytes * 2 } else { bytes })
        })
        .collect()
}

/// Prefix number `number` of a million, no two alike: of the kinds that take most room, IPv4 /25 to /31 and IPv6 /56 to /64.
fn prefix(number: u32) -> IpNet {
    // An odd factor mixes the places up, and no two numbers come to the same one.
    let place = number.wrapping_mul(0x9e37_79b1);
    match number % 10 {
        0..3 => {
            let network = 0x2001_0db8_u128 << 96 | u128::from(number) << 72;
            IpNet::new(Ipv6Addr::from(network).into(), 56 + (number % 9) as u8).unwrap()
        }
        _ => IpNet::new(Ipv4Addr::from(place << 7).into(), 25 + (number % 7) as u8).unwrap(),
    }
}

/// Single address number `number` of a million.
fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(number.wrapping_mul(0x85eb_ca6b)).into()
}

#[test]
fn a_million_prefixes_and_a_million_addresses_fit_and_take_what_is_documented() {
    alone(|| {
        let gate = Started::new(&plan()).unwrap();
        let idle: u64 = memory(&gate).values().sum();
        assert!(idle <= IDLE_BYTES, "{:?}", memory(&gate));
        gate.replace_denied(ListId::IMPORTED, (0..MILLION).map(|number| (prefix(number), Expiry::NEVER))).unwrap();
        gate.replace_denied(ListId(17), lasting((0..MILLION).map(address))).unwrap();
        assert_eq!(gate.denied(ListId(17)).len(), MILLION as usize);
        let full: u64 = memory(&gate).values().sum();
        assert!(full <= FULL_BYTES && full > idle, "{:?}", memory(&gate));
        for number in (0..MILLION).step_by(997) {
            assert!(!passes(&gate, address(number)) && !passes(&gate, prefix(number).addr()), "{number}");
        }
    });
}

/// Single address number `number` of the net 10.0.0.0/8.
fn ten(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number).into()
}

fn lasting(nets: impl IntoIterator<Item = IpAddr>) -> impl Iterator<Item = (IpNet, Expiry)> {
    nets.into_iter().map(|address| (address.into(), Expiry::NEVER))
}

/// What `status` says of a table: its entries, how many it holds, and how many it had no room for.
fn shown(gate: &Started, name: &str) -> (usize, usize, u64) {
    let tables = gate.status().tables;
    let table = tables.iter().find(|table| table.name == name).unwrap();
    (table.entries, table.capacity, table.no_room)
}

#[test]
fn a_full_list_says_so_counts_it_and_stays_as_it_was() {
    alone(|| {
        let gate = Started::new(&plan()).unwrap();
        let (_, hosts, none) = shown(&gate, "deny_host");
        assert_eq!(none, 0);
        let refused = gate.replace_denied(ListId::IMPORTED, lasting((0..=hosts as u32).map(ten)));
        assert!(matches!(refused, Err(KernelError::Full { table: "deny_host", .. })));
        assert_eq!(shown(&gate, "deny_host"), (0, hosts, hosts as u64 + 1));
        assert!(passes(&gate, ten(7)));
        let (_, permits, _) = shown(&gate, "allow");
        let refused = gate.replace_allowed(ListId::ACCESS, lasting((0..permits as u32).map(ten)));
        assert!(matches!(refused, Err(KernelError::Full { table: "allow", .. })), "one is taken by the wall");
        assert_eq!(shown(&gate, "allow"), (0, permits, permits as u64));
        gate.replace_allowed(ListId::ACCESS, lasting((1..permits as u32).map(ten))).unwrap();
        assert!(gate.allow("192.0.2.7/32".parse().unwrap(), ListId::OPERATOR, Expiry::NEVER).is_err());
        assert_eq!(shown(&gate, "allow"), (permits - 1, permits, permits as u64 + 1));
        assert_eq!(gate.no_room(), [("deny_host", hosts as u64 + 1), ("allow", permits as u64 + 1)]);
    });
}

#[test]
fn where_passes_are_full_the_one_that_ends_first_makes_room_and_is_counted() {
    alone(|| {
        let gate = Started::new(&plan()).unwrap();
        let (_, capacity, _) = shown(&gate, "pass");
        // The later a client comes here, the sooner its pass ends.
        let pass = |number: u32| (ten(number), Expiry::from_nanos(u64::MAX / 2 - u64::from(number)));
        let numbers: Vec<u32> = (0..capacity as u32 + 3).collect();
        // Also at once, where the last of them find no room.
        numbers.chunks(1_000).for_each(|some| gate.pass_all(some.iter().copied().map(pass)).unwrap());
        assert_eq!(shown(&gate, "pass"), (capacity, capacity, 3));
        let passed: Vec<IpAddr> = gate.passed().into_iter().map(|(client, _)| client).collect();
        let displaced: Vec<u32> =
            (0..capacity as u32 + 3).filter(|number| passed.binary_search(&ten(*number)).is_err()).collect();
        assert_eq!(displaced, [capacity as u32 - 1, capacity as u32, capacity as u32 + 1]);
    });
}

#[test]
fn a_client_that_there_is_no_room_to_count_gets_in_and_is_told_of() {
    if !privileged() {
        return;
    }
    let site = Site::new(plan());
    let pin = site.plan.pin_path.join("maps/clients");
    let mut clients =
        HashMap::<MapData, [u8; 16], [u8; 48]>::try_from(Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap())
            .unwrap();
    let (_, capacity, _) = shown(&site.kernel, "clients");
    let key = |number: u32| Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(number)).octets();
    for number in 0..capacity as u32 {
        clients.insert(key(number), [0; 48], 0).unwrap();
    }
    let _client = site.connect("192.0.2.2");
    site.taken();
    assert_eq!(shown(&site.kernel, "clients"), (capacity, capacity, 1));
    clients.remove(&key(0)).unwrap();
    let _counted = site.connect("192.0.2.2");
    site.taken();
    site.wait_active("192.0.2.2", 1);
}

#[test]
fn an_address_is_denied_while_a_long_list_still_goes_in() {
    alone(|| {
        let gate = Started::new(&Plan { limit: 0, ..plan() }).unwrap();
        let (last, done) = (500_000, AtomicBool::new(false));
        let urgent: IpAddr = [192, 0, 2, 7].into();
        let deny = DenyEntry { list: ListId::OPERATOR, expires: Expiry::NEVER };
        thread::scope(|scope| {
            scope.spawn(|| {
                gate.replace_denied(ListId::IMPORTED, lasting((0..=last).map(ten))).unwrap();
                done.store(true, Ordering::Release);
            });
            // The table has all of them; the maps get them now.
            wait_for("the beginning of the list", || (!gate.denied(ListId::IMPORTED).is_empty()).then_some(()));
            gate.deny(urgent.into(), deny).unwrap();
            assert!(!done.load(Ordering::Acquire), "it waited for the whole list");
            assert!(!passes(&gate, urgent));
            // What the list has yet to write it writes as it is then.
            assert!(gate.undeny(ten(last).into(), ListId::IMPORTED).unwrap());
        });
        assert!(!passes(&gate, ten(0)) && !passes(&gate, ten(last - 1)) && !passes(&gate, urgent));
        assert!(passes(&gate, ten(last)));
    });
}
