//! Single frames through the gate, in the kernel.

use std::{net::IpAddr, thread, time::Duration};

use ipnet::IpNet;

use screen_user::kernel::{DenyEntry, Expiry, KernelError, ListId, Plan, Reason};

use super::{
    frames::{ACK, Frame, RST, SYN, chains},
    place::{Entry, Started, alone, plan, through_each_entry},
};

fn deny(kernel: &Started, net: &str) {
    let entry = DenyEntry { expires: Expiry::NEVER, list: ListId::OPERATOR };
    kernel.deny(net.parse().unwrap(), entry).unwrap();
}

fn passes(kernel: &Started, entry: Entry, client: &str) -> bool {
    kernel.passes(entry, &Frame::syn(client).bytes())
}

fn total(kernel: &Started, reason: Reason) -> u64 {
    kernel.totals().unwrap().into_iter().find(|(known, _)| *known == reason).unwrap().1.packets
}

/// Every shape of SYN that the gate must know, from two denied clients.
fn shapes() -> Vec<Frame> {
    let mut shapes = Vec::new();
    for tags in [vec![], vec![0x8100], vec![0x88a8, 0x8100], vec![0x8100, 0x8100]] {
        for options in [0, 4, 40] {
            shapes.push(Frame { tags: tags.clone(), options, ..Frame::syn("198.51.100.7") });
        }
        for chain in chains() {
            shapes.push(Frame { tags: tags.clone(), chain, ..Frame::syn("2001:db8:1::7") });
        }
    }
    shapes
}

#[test]
fn a_denied_syn_is_dropped_in_every_shape_and_passed_when_cut_anywhere() {
    through_each_entry(|entry| {
        let kernel = Started::new(&plan()).unwrap();
        deny(&kernel, "198.51.100.7/32");
        deny(&kernel, "2001:db8:1::7/128");
        for shape in shapes() {
            let bytes = shape.bytes();
            assert!(!kernel.passes(entry, &bytes), "{bytes:02x?}");
            // Shorter ones the kernel refuses to run: for TC it reads the packet's own header first.
            let shortest = match entry {
                Entry::Xdp => 14,
                Entry::Tc if shape.tags.is_empty() => 14 + 40,
                Entry::Tc => 15,
            };
            for length in shortest..bytes.len() {
                assert!(kernel.passes(entry, &bytes[..length]), "{length} of {bytes:02x?}");
            }
        }
        assert_eq!(total(&kernel, Reason::Denied), shapes().len() as u64);
        assert!(total(&kernel, Reason::Malformed) > 0);
    });
}

#[test]
fn all_but_syns_to_the_protected_port_pass() {
    through_each_entry(|entry| {
        let kernel = Started::new(&plan()).unwrap();
        deny(&kernel, "0.0.0.0/0");
        deny(&kernel, "::/0");
        for client in ["198.51.100.7", "2001:db8:1::7"] {
            let syn = Frame::syn(client);
            let mut others = vec![
                Frame { protocol: 17, ..syn.clone() },
                Frame { server: (syn.server.ip(), 26).into(), ..syn.clone() },
                Frame { tags: vec![0x8100; 3], ..syn.clone() },
            ];
            for flags in [0, ACK, SYN | ACK, RST, RST | SYN, 0x01, 0x03] {
                others.push(Frame { flags, ..syn.clone() });
            }
            if syn.client.is_ipv4() {
                others.extend([0x2000, 0x2001, 0x0001, 0x1fff].map(|fragment| Frame { fragment, ..syn.clone() }));
            } else {
                let first = (44, vec![0, 0, 1, 0, 0, 0, 9]);
                let later = (44, vec![0, 1, 0, 0, 0, 0, 9]);
                others.extend([first, later].map(|header| Frame { chain: vec![header], ..syn.clone() }));
            }
            for other in others {
                let bytes = other.bytes();
                assert!(kernel.passes(entry, &bytes), "{bytes:02x?}");
            }
            assert!(!passes(&kernel, entry, client));
        }
    });
}

#[test]
fn prefixes_of_every_length_deny_what_they_hold_and_nothing_else() {
    through_each_entry(|entry| {
        let kernel = Started::new(&plan()).unwrap();
        let cases = [
            ("198.51.100.7/32", &["198.51.100.7"][..], &["198.51.100.6", "198.51.100.8"][..]),
            ("198.51.100.0/25", &["198.51.100.0", "198.51.100.127"], &["198.51.100.128", "198.51.99.255"]),
            ("198.51.100.0/24", &["198.51.100.0", "198.51.100.255"], &["198.51.99.255", "198.51.101.0"]),
            ("198.51.100.0/23", &["198.51.100.0", "198.51.101.255"], &["198.51.99.255", "198.51.102.0"]),
            ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255"], &["9.255.255.255", "11.0.0.0"]),
            ("0.0.0.0/0", &["1.2.3.4", "255.255.255.254"], &["2001:db8::9"]),
            ("2001:db8:1::7/128", &["2001:db8:1::7"], &["2001:db8:1::6", "2001:db8:1::8"]),
            ("2001:db8:1:2::/64", &["2001:db8:1:2::", "2001:db8:1:2:ffff::1"], &["2001:db8:1:1::1", "2001:db8:1:3::1"]),
            ("2001:db8:1::/48", &["2001:db8:1::", "2001:db8:1:ffff::1"], &["2001:db8:0:ffff::1", "2001:db8:2::1"]),
            ("::/0", &["2001:db8::9", "fd00::1"], &["1.2.3.4"]),
        ];
        for (net, inside, outside) in cases {
            for expires in [Expiry::NEVER, Expiry::after(Duration::from_secs(3_600))] {
                kernel.deny(net.parse().unwrap(), DenyEntry { expires, list: ListId::OPERATOR }).unwrap();
                for client in inside {
                    assert!(!passes(&kernel, entry, client), "{client} in {net}");
                }
                for client in outside {
                    assert!(passes(&kernel, entry, client), "{client} outside {net}");
                }
                assert!(kernel.undeny(net.parse().unwrap(), ListId::OPERATOR).unwrap());
                for client in inside {
                    assert!(passes(&kernel, entry, client), "{client} after {net} was taken back");
                }
            }
        }
    });
}

#[test]
fn an_allow_entry_beats_any_deny_entry() {
    through_each_entry(|entry| {
        let kernel = Started::new(&plan()).unwrap();
        deny(&kernel, "198.51.100.0/24");
        deny(&kernel, "2001:db8:1::/48");
        for (net, client) in [("198.51.100.8/29", "198.51.100.9"), ("2001:db8:1:2::/64", "2001:db8:1:2::9")] {
            assert!(!passes(&kernel, entry, client));
            kernel.allow(net.parse().unwrap(), ListId::OPERATOR, Expiry::NEVER).unwrap();
            assert!(passes(&kernel, entry, client));
            assert!(kernel.disallow(net.parse().unwrap(), ListId::OPERATOR).unwrap());
            assert!(!passes(&kernel, entry, client));
        }
        kernel.allow("::/0".parse().unwrap(), ListId::OPERATOR, Expiry::NEVER).unwrap();
        assert!(passes(&kernel, entry, "2001:db8:1:2::9"));
        assert!(!passes(&kernel, entry, "198.51.100.9"), "all of IPv6 is not IPv4");
    });
}

#[test]
fn what_has_expired_has_no_effect_and_is_swept() {
    through_each_entry(|entry| {
        let kernel = Started::new(&plan()).unwrap();
        let gone = DenyEntry { expires: Expiry::from_nanos(1), list: ListId::FAILURE };
        for net in ["198.51.100.7/32", "203.0.113.0/24", "203.0.112.0/25", "2001:db8:1::7/128", "2001:db8:2::/48"] {
            kernel.deny(net.parse().unwrap(), gone).unwrap();
        }
        for client in ["198.51.100.7", "203.0.113.9", "203.0.112.9", "2001:db8:1::7", "2001:db8:2::9"] {
            assert!(passes(&kernel, entry, client), "{client}");
        }
        deny(&kernel, "203.0.113.0/24");
        assert!(!passes(&kernel, entry, "203.0.113.9"), "another list still denies it");
        assert_eq!(kernel.sweep().unwrap(), 5);
        assert!(kernel.denied(ListId::FAILURE).is_empty());
        assert!(!passes(&kernel, entry, "203.0.113.9"));
    });
}

#[test]
fn unanswered_syns_take_half_the_limit_and_repeated_ones_the_rest() {
    through_each_entry(|entry| {
        let kernel = Started::new(&Plan { limit: 10, ..plan() }).unwrap();
        let syn = |sequence: u32| Frame { sequence, ..Frame::syn("198.51.100.7") }.bytes();
        let admitted = (0..20).filter(|sequence| kernel.passes(entry, &syn(*sequence))).count();
        assert_eq!(admitted, 5);
        // Another client is not concerned.
        assert!(passes(&kernel, entry, "198.51.100.8"));
        // A client repeats its SYN after a second (RFC 6298), which the programs take for proof from half a second on.
        thread::sleep(Duration::from_millis(700));
        let repeated = (5..20).filter(|sequence| kernel.passes(entry, &syn(*sequence))).count();
        assert_eq!(repeated, 5, "up to the limit and no further");
        assert!(total(&kernel, Reason::Unproven) >= 15 && total(&kernel, Reason::Limited) >= 1);
    });
}

#[test]
fn a_flood_is_counted_by_source_where_a_syn_of_it_made_an_event() {
    through_each_entry(|entry| {
        let kernel = Started::new(&plan()).unwrap();
        deny(&kernel, "198.18.0.0/15");
        let totals = || kernel.totals().unwrap().into_iter().find(|(known, _)| *known == Reason::Denied).unwrap().1;
        let mut sent = 0;
        while totals().suppressed < 1000 {
            (0..500).for_each(|_| assert!(!passes(&kernel, entry, "198.18.0.1")));
            sent += 500;
        }
        let of = |client: &str| kernel.refused(client.parse().unwrap()).unwrap();
        assert_eq!(of("198.18.0.1").unwrap().denied, sent, "events or not");

        let events = totals().events;
        let others: Vec<String> = (0..2000).map(|number| format!("198.19.{}.{}", number / 250, number % 250)).collect();
        others.iter().for_each(|client| assert!(!passes(&kernel, entry, client)));
        let noted = others.iter().filter(|client| of(client).is_some()).count();
        assert_eq!(noted as u64, totals().events - events, "one entry for each event");
    });
}

#[test]
fn dry_run_counts_and_drops_nothing() {
    through_each_entry(|entry| {
        let kernel = Started::new(&Plan { dry_run: true, ..plan() }).unwrap();
        deny(&kernel, "198.51.100.0/24");
        assert!(passes(&kernel, entry, "198.51.100.7"));
        assert_eq!((total(&kernel, Reason::Denied), total(&kernel, Reason::Spared)), (1, 1));
        let client: IpAddr = [198, 51, 100, 7].into();
        let refused = kernel.refused(client).unwrap().unwrap();
        assert_eq!((refused.denied, refused.limited, refused.list), (1, 0, ListId::OPERATOR.0));
        kernel.reconfigure(&plan()).unwrap();
        assert!(!passes(&kernel, entry, "198.51.100.7"));
        assert_eq!(total(&kernel, Reason::Spared), 1);
        drop(kernel);

        let narrow = Plan { limit: 1, ..plan() };
        let kernel = Started::new(&Plan { dry_run: true, ..narrow.clone() }).unwrap();
        assert!(passes(&kernel, entry, "203.0.113.7") && passes(&kernel, entry, "203.0.113.7"));
        assert_eq!((total(&kernel, Reason::Limited), total(&kernel, Reason::Spared)), (1, 1));
        kernel.reconfigure(&narrow).unwrap();
        assert!(!passes(&kernel, entry, "203.0.113.7"));
    });
}

#[test]
fn with_debug_messages_it_decides_the_same() {
    through_each_entry(|entry| {
        let kernel = Started::new(&Plan { debug: true, ..plan() }).unwrap();
        deny(&kernel, "198.51.100.0/24");
        assert!(!passes(&kernel, entry, "198.51.100.7") && passes(&kernel, entry, "203.0.113.7"));
        assert!(passes(&kernel, entry, "2001:db8:1::7"));
    });
}

#[test]
fn a_live_gate_keeps_its_pin_path_and_a_dead_one_loses_it() {
    alone(|| {
        let plan = plan();
        let first = Started::new(&plan).unwrap();
        assert!(matches!(Started::new(&plan), Err(KernelError::InUse { .. })));
        deny(&first, "198.51.100.7/32");
        assert!(!passes(&first, Entry::Xdp, "198.51.100.7"));
        assert!(plan.pin_path.join("maps/clients").exists() && plan.pin_path.join("links/steer").exists());
        drop(first);
        assert!(!plan.pin_path.exists());
        // As a gate that was killed leaves them: directories, and in them pins of maps with another layout.
        std::fs::create_dir_all(plan.pin_path.join("maps")).unwrap();
        std::fs::create_dir_all(plan.pin_path.join("links")).unwrap();
        let stale = plan.pin_path.join("maps/clients");
        super::place::run(
            "bpftool",
            &[
                "map",
                "create",
                stale.to_str().unwrap(),
                "type",
                "hash",
                "key",
                "4",
                "value",
                "4",
                "entries",
                "1",
                "name",
                "stale",
            ],
        );
        let second = Started::new(&plan).unwrap();
        assert!(passes(&second, Entry::Xdp, "198.51.100.7"));
        drop(second);
        assert!(!plan.pin_path.exists());
    });
}

#[test]
fn a_proxy_is_never_denied_and_never_limited() {
    through_each_entry(|entry| {
        let proxies = ["198.51.100.0/28", "2001:db8:1::/64"].map(|net| net.parse().unwrap()).to_vec();
        let with_proxies = Plan { limit: 2, proxies, ..plan() };
        let kernel = Started::new(&with_proxies).unwrap();
        for (proxy, client, net) in [
            ("198.51.100.7", "198.51.100.17", "198.51.100.0/24"),
            ("2001:db8:1::7", "2001:db8:1:1::7", "2001:db8:1::/48"),
        ] {
            for sequence in 0..20 {
                let frame = |client: &str| Frame { sequence, ..Frame::syn(client) }.bytes();
                assert!(kernel.passes(entry, &frame(proxy)), "SYN {sequence} of the proxy");
                assert_eq!(kernel.passes(entry, &frame(client)), sequence == 0, "SYN {sequence} of a client");
            }
            deny(&kernel, net);
            deny(&kernel, &format!("{proxy}/{}", if proxy.contains(':') { 128 } else { 32 }));
            assert!(passes(&kernel, entry, proxy) && !passes(&kernel, entry, client));
            assert!(kernel.refused(proxy.parse().unwrap()).unwrap().is_none());
        }
        kernel.reconfigure(&plan()).unwrap();
        assert!(!passes(&kernel, entry, "198.51.100.7") && !passes(&kernel, entry, "2001:db8:1::7"));
        kernel.reconfigure(&with_proxies).unwrap();
        assert!(passes(&kernel, entry, "198.51.100.7") && passes(&kernel, entry, "2001:db8:1::7"));
    });
}

#[test]
fn when_everybody_is_a_proxy_the_kernel_judges_nobody_and_says_so() {
    through_each_entry(|entry| {
        let ipv6 = Plan { proxies: vec!["::/0".parse().unwrap()], ..plan() };
        let kernel = Started::new(&ipv6).unwrap();
        deny(&kernel, "0.0.0.0/0");
        deny(&kernel, "::/0");
        assert!(passes(&kernel, entry, "2001:db8:1::7"));
        assert!(!passes(&kernel, entry, "198.51.100.7"), "all of IPv6 is not IPv4");
        let said = |what: &str| kernel.status().notes.iter().any(|note| note.contains(what));
        assert!(said("judges no IPv6 client"));
        let all = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        kernel.reconfigure(&Plan { proxies: all, ..plan() }).unwrap();
        assert!(passes(&kernel, entry, "2001:db8:1::7") && passes(&kernel, entry, "198.51.100.7"));
        assert!(said("judges nobody"));
        kernel.reconfigure(&plan()).unwrap();
        assert!(!passes(&kernel, entry, "2001:db8:1::7") && !passes(&kernel, entry, "198.51.100.7"));
        assert!(!said("judges"));
    });
}

#[test]
fn more_proxies_than_there_is_room_for_change_nothing() {
    alone(|| {
        let few = Plan { proxies: vec!["198.51.100.7/32".parse().unwrap()], ..plan() };
        let kernel = Started::new(&few).unwrap();
        deny(&kernel, "198.51.100.7/32");
        let many = (0..4_096u32).map(|host| IpNet::from(IpAddr::from((0x0a00_0000 + host).to_be_bytes()))).collect();
        let refused = kernel.reconfigure(&Plan { proxies: many, ..plan() });
        assert!(matches!(refused, Err(KernelError::Full { table: "proxies", .. })));
        assert!(passes(&kernel, Entry::Xdp, "198.51.100.7"), "still a proxy");
    });
}

#[test]
fn a_long_list_goes_in_and_out_whole() {
    alone(|| {
        let plan = plan();
        let kernel = Started::new(&plan).unwrap();
        // Addresses of both families and longer prefixes, more than one system call takes of each.
        let net = |kind: u32, number: u32| match kind {
            0 => format!("10.{}.{}.7/32", number >> 8, number & 0xff),
            1 => format!("2001:db8:1:{number:x}::7/128"),
            _ => format!("11.{}.{}.0/28", number >> 8, number & 0xff),
        };
        let list = |numbers: std::ops::Range<u32>| -> Vec<(IpNet, Expiry)> {
            let nets = numbers.flat_map(|number| (0..3).map(move |kind| net(kind, number)));
            nets.map(|net| (net.parse().unwrap(), Expiry::NEVER)).collect()
        };
        let denied = |number: u32| {
            [0, 1, 2].map(|kind| !passes(&kernel, Entry::Xdp, net(kind, number).split('/').next().unwrap()))
        };
        kernel.replace_denied(ListId::IMPORTED, list(0..10_000)).unwrap();
        assert!((0..10_000).all(|number| denied(number) == [true; 3]));
        assert_eq!(denied(10_000), [false; 3]);
        // What somebody else took out of the map is no obstacle to taking out the rest.
        let hosts = plan.pin_path.join("maps/deny_host");
        let mut delete = vec!["map", "delete", "pinned", hosts.to_str().unwrap(), "key", "hex"];
        delete.extend("00 00 00 00 00 00 00 00 00 00 ff ff 0a 01 02 07".split(' '));
        super::place::run("bpftool", &delete);
        kernel.replace_denied(ListId::IMPORTED, list(9_000..12_000)).unwrap();
        assert!((0..9_000).all(|number| denied(number) == [false; 3]));
        assert!((9_000..12_000).all(|number| denied(number) == [true; 3]));
    });
}
