use std::io::Cursor;

use proptest::prelude::*;

use super::{
    Addresses,
    read::{Format, Read, read},
};

fn reading(text: &str, format: Format) -> Read {
    read(Cursor::new(text), format, |_| ()).unwrap()
}

fn nets(read: &Read) -> Vec<String> {
    read.addresses.networks().map(|net| net.to_string()).collect()
}

#[test]
fn lines_hold_networks_addresses_and_ranges_with_comments_behind() {
    let text = "# a list\n192.0.2.0/25 ; SBL1\n\n192.0.2.128/25\tcomment\n198.51.100.1\n198.51.100.2 - 198.51.100.3\n2001:db8::/32#x\n::ffff:203.0.113.9\n";
    let read = reading(text, Format::Auto);
    assert_eq!(nets(&read), ["192.0.2.0/24", "198.51.100.1/32", "198.51.100.2/31", "203.0.113.9/32", "2001:db8::/32"]);
    assert_eq!((read.entries, read.refused_count), (6, 0));
}

#[test]
fn what_is_no_address_is_refused_by_line() {
    let read = reading("192.0.2.1\nmx.example\n192.0.2.1/24\n192.0.2.9-192.0.2.1\n1.2.3\n", Format::Cidr);
    assert_eq!(nets(&read), ["192.0.2.1/32"]);
    let lines: Vec<usize> = read.refused.iter().map(|refused| refused.line).collect();
    assert_eq!(lines, [2, 3, 4, 5]);
    assert!(read.refused[1].why.contains("192.0.2.0/24"), "{:?}", read.refused[1]);
    assert_eq!(reading("192.0.2.0/24\n", Format::Plain).refused_count, 1, "a network is no plain address");
}

#[test]
fn drop_lists_come_as_text_and_as_lines_of_json() {
    let text = "; Spamhaus DROP List\n192.0.2.0/24 ; SBL123\n";
    assert_eq!(nets(&reading(text, Format::Drop)), ["192.0.2.0/24"]);
    let json = "{\"cidr\":\"192.0.2.0/24\",\"sblid\":\"SBL1\",\"rir\":\"arin\"}\n{\"cidr\":\"2001:db8::/32\"}\n{\"type\":\"metadata\",\"size\":2}\n{\"x\":1}\n";
    let read = reading(json, Format::Auto);
    assert_eq!(nets(&read), ["192.0.2.0/24", "2001:db8::/32"]);
    assert_eq!(read.refused.iter().map(|refused| refused.line).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_postfix_table_gives_what_it_rejects_by_first_match() {
    let text = "192.0.2.128/25 OK\n192.0.2.0/24 REJECT spam\n198.51.100.7 550 no\n203.0.113.0/24 DUNNO\n198.51.100.300 REJECT\n";
    let read = reading(text, Format::Auto);
    assert_eq!(nets(&read), ["192.0.2.0/25", "198.51.100.7/32"]);
    assert_eq!(read.refused.iter().map(|refused| refused.line).collect::<Vec<_>>(), [5]);
}

#[test]
fn decisions_are_taken_by_scope() {
    let text = r#"[{"source":{"value":"9.9.9.9"},"decisions":[{"scope":"Ip","value":"192.0.2.1","type":"ban"},
        {"scope":"Range","value":"198.51.100.0/24"},{"scope":"Country","value":"XX"}]}]"#;
    assert_eq!(nets(&reading(text, Format::Auto)), ["192.0.2.1/32", "198.51.100.0/24"]);
    let stream = r#"{"new":[{"scope":"ip","value":"192.0.2.1"}],"deleted":[{"scope":"ip","value":"192.0.2.2"}]}"#;
    assert_eq!(nets(&reading(stream, Format::Auto)), ["192.0.2.1/32"]);
    assert_eq!(reading("{\"new\": [", Format::Json).refused_count, 1);
}

#[test]
fn sets_of_nftables_and_ipset_are_read_from_their_dumps() {
    let json = r#"{"nftables":[{"set":{"name":"x","elem":["192.0.2.1",{"prefix":{"addr":"198.51.100.0","len":24}},
        {"range":["203.0.113.1","203.0.113.2"]},{"elem":{"val":"192.0.2.9","timeout":60}}]}}]}"#;
    let expected = ["192.0.2.1/32", "192.0.2.9/32", "198.51.100.0/24", "203.0.113.1/32", "203.0.113.2/32"];
    assert_eq!(nets(&reading(json, Format::Auto)), expected);
    let text = "table inet filter {\n set x {\n  type ipv4_addr\n  flags interval\n  elements = { 192.0.2.1, 192.0.2.9 timeout 1h,\n   198.51.100.0/24, 203.0.113.1-203.0.113.2 }\n }\n}\n";
    assert_eq!(nets(&reading(text, Format::Auto)), expected);
    let ipset = "create x hash:net family inet\nadd x 192.0.2.0/24 timeout 60\nadd x 192.0.2.1 nomatch\n";
    let read = reading(ipset, Format::Auto);
    assert_eq!(nets(&read), ["192.0.2.0/24"]);
    assert_eq!(read.refused.iter().map(|refused| refused.line).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_line_that_never_ends_is_refused_once() {
    let text = format!("{}\n192.0.2.1\n", "1".repeat(1 << 20));
    let read = reading(&text, Format::Cidr);
    assert_eq!((nets(&read), read.refused_count), (vec!["192.0.2.1/32".to_owned()], 1));
}

#[test]
fn the_share_of_the_address_space_is_that_of_the_family_hit_harder() {
    let half: Addresses = ["128.0.0.0/1".parse::<ipnet::IpNet>().unwrap()].into_iter().collect();
    assert!((half.share() - 0.5).abs() < 1e-9);
    let eighth: Addresses = ["2000::/6".parse::<ipnet::IpNet>().unwrap()].into_iter().collect();
    assert!((eighth.share() - 0.125).abs() < 1e-9);
}

proptest! {
    #[test]
    fn ranges_say_what_the_networks_say(
        nets in prop::collection::vec((any::<[u8; 2]>(), 16u8..=32), 0..40),
        probes in prop::collection::vec(any::<[u8; 4]>(), 20),
    ) {
        let nets: Vec<ipnet::IpNet> = nets
            .iter()
            .map(|([a, b], length)| ipnet::IpNet::new(std::net::Ipv4Addr::new(10, 0, *a, *b).into(), *length).unwrap().trunc())
            .collect();
        let addresses: Addresses = nets.iter().copied().collect();
        let near = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
        for probe in probes.iter().map(|octets| std::net::IpAddr::from(*octets)).chain(near) {
            prop_assert_eq!(addresses.contains(probe), nets.iter().any(|net| net.contains(&probe)));
            prop_assert_eq!(addresses.contains(probe), addresses.networks().any(|net| net.contains(&probe)));
        }
        prop_assert_eq!(Addresses::from_bytes(&addresses.to_bytes()), Some(addresses));
    }

    #[test]
    fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for format in [Format::Auto, Format::Cidr, Format::Drop, Format::PostfixCidr, Format::Json, Format::Dump] {
            read(Cursor::new(&bytes), format, |_| ()).unwrap();
        }
        let _ = Addresses::from_bytes(&bytes);
    }
}
