use std::io::{BufReader, Cursor};

use proptest::prelude::*;

use super::{
    Addresses,
    read::{At, Format, Read, read},
};

fn reading(text: &str, format: Format) -> Read {
    read(Cursor::new(text), format, |_| ()).unwrap()
}

fn nets(read: &Read) -> Vec<String> {
    read.addresses.networks().map(|net| net.to_string()).collect()
}

/// The lines that were refused.
fn lines(read: &Read) -> Vec<usize> {
    let lines = read.refused.iter().filter_map(|refused| match refused.at {
        At::Line(number) => Some(number),
        At::Value(_) => None,
    });
    lines.collect()
}

/// The values that were refused, by their pointers.
fn pointers(read: &Read) -> Vec<&str> {
    let pointers = read.refused.iter().filter_map(|refused| match &refused.at {
        At::Value(pointer) => Some(pointer.as_str()),
        At::Line(_) => None,
    });
    pointers.collect()
}

#[test]
fn lines_hold_networks_addresses_and_ranges_with_comments_behind() {
    let text = "# a list\n192.0.2.0/25 ; SBL1\n\n192.0.2.128/25\tcomment\n198.51.100.1\n198.51.100.2 - 198.51.100.3\n2001:db8::/32#x\n::ffff:203.0.113.9\n";
    let read = reading(text, Format::Auto);
    assert_eq!(nets(&read), ["192.0.2.0/24", "198.51.100.1/32", "198.51.100.2/31", "203.0.113.9/32", "2001:db8::/32"]);
    assert_eq!((read.entries, read.refused_count), (6, 0));
    let commented = "192.0.2.0/24 - a network\n192.0.2.4 - 192.0.2.5 # a range\n198.51.100.1, a column\n";
    assert_eq!(nets(&reading(commented, Format::Cidr)), ["192.0.2.0/24", "198.51.100.1/32"]);
}

#[test]
fn what_is_no_address_is_refused_by_line() {
    let read = reading("192.0.2.1\nmx.example\n192.0.2.1/24\n192.0.2.9-192.0.2.1\n1.2.3\n", Format::Cidr);
    assert_eq!(nets(&read), ["192.0.2.1/32"]);
    assert_eq!(lines(&read), [2, 3, 4, 5]);
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
    assert_eq!(lines(&read), [4]);
}

#[test]
fn a_postfix_table_gives_what_it_turns_away_for_good_by_first_match() {
    let text = "192.0.2.128/25 OK\n192.0.2.0/24 REJECT spam\n198.51.100.7 550 no\n203.0.113.0/24 DUNNO\n\
        203.0.113.9 REJECT\n198.51.100.8 1000000\n198.51.100.300 REJECT\n";
    let read = reading(text, Format::Auto);
    assert_eq!(nets(&read), ["192.0.2.0/25", "198.51.100.7/32"]);
    assert_eq!(lines(&read), [7]);
}

#[test]
fn blocks_negation_and_continued_lines_are_read_as_postfix_does() {
    let text = "# exceptions\nif !198.51.100.0/24\n192.0.2.0/24\n  554 5.7.1 not\n  from here\nendif\n[2001:db8::]/32 REJECT\n\
        if 198.51.100.0/24\n!198.51.100.0/25 REJECT\nendif\n";
    let read = reading(text, Format::Auto);
    assert_eq!(nets(&read), ["192.0.2.0/24", "198.51.100.128/25", "2001:db8::/32"]);
    assert_eq!(read.refused_count, 0);
}

#[test]
fn actions_that_do_not_turn_away_for_good_deny_nobody_and_are_told() {
    let text = "192.0.2.1 450 later\n192.0.2.2 DEFER\n192.0.2.3 DISCARD\n192.0.2.4 reject\n192.0.2.5 FILTER smtp:[127.0.0.1]:10025\n\
        192.0.2.0/24 REJECT\n";
    let read = reading(text, Format::Auto);
    assert_eq!(lines(&read), [1, 2, 3, 5]);
    for (address, denied) in [("192.0.2.1", false), ("192.0.2.3", false), ("192.0.2.4", true), ("192.0.2.6", true)] {
        assert_eq!(read.addresses.contains(address.parse().unwrap()), denied, "{address}");
    }
}

#[test]
fn a_number_behind_an_address_does_not_make_a_table() {
    let read = reading("192.0.2.1\t9\n192.0.2.3\t450\n192.0.2.5 512\n", Format::Auto);
    assert_eq!((nets(&read).len(), read.entries, read.refused_count), (3, 3, 0));
}

/// As `cscli decisions list -o json` prints it: alerts, each with what it is about and what was decided.
const ALERTS: &str = r#"[{"capacity":0,"created_at":"2026-01-05T10:00:00Z","decisions":[
    {"duration":"3h59m12s","id":11,"origin":"crowdsec","scenario":"x/smtp-bf","scope":"Ip","simulated":false,"type":"ban","value":"192.0.2.1"},
    {"duration":"-1m2s","id":12,"origin":"crowdsec","scenario":"x/smtp-bf","scope":"Ip","simulated":false,"type":"ban","value":"192.0.2.2"},
    {"duration":"3h","id":13,"origin":"crowdsec","scenario":"x/smtp-bf","scope":"Ip","simulated":true,"type":"ban","value":"192.0.2.3"},
    {"duration":"3h","id":14,"origin":"cscli","scenario":"manual","scope":"Country","simulated":false,"type":"ban","value":"XX"}],
    "events":null,"id":7,"source":{"as_name":"x","cn":"XX","ip":"203.0.113.1","scope":"Ip","value":"203.0.113.1"}},
    {"decisions":[{"duration":"4h","scope":"Range","type":"ban","value":"198.51.100.0/24"},
    {"duration":"4h","scope":"Ip","type":"captcha","value":"192.0.2.4"}],"source":{"scope":"Range","value":"198.51.0.0/16"}}]"#;

#[test]
fn decisions_are_taken_by_scope_and_type_and_not_their_sources() {
    let read = reading(ALERTS, Format::Auto);
    assert_eq!(nets(&read), ["192.0.2.1/32", "198.51.100.0/24"]);
    let places = ["/0/decisions/1", "/0/decisions/2", "/0/decisions/3", "/1/decisions/1"];
    assert_eq!(pointers(&read), places);
}

#[test]
fn of_a_stream_the_new_decisions_count() {
    let stream = r#"{"deleted":[{"scope":"ip","type":"ban","value":"192.0.2.2"},{"scope":"ip","type":"ban","value":"192.0.2.1"}],
        "new":[{"duration":"4h","scope":"ip","type":"ban","value":"192.0.2.1"},{"scope":"ip","type":"ban","value":"2001:db8::1"},
        {"scope":"ip","type":"ban","value":"mx.example"}]}"#;
    let read = reading(stream, Format::Auto);
    assert_eq!(nets(&read), ["192.0.2.1/32", "2001:db8::1/128"]);
    assert_eq!(pointers(&read), ["/new/2"]);
    assert_eq!(reading(r#"{"deleted":null,"new":null}"#, Format::Auto), Read::default());
    assert_eq!(reading("null\n", Format::Auto), Read::default(), "no decisions, as the local API has it");
}

#[test]
fn a_document_that_is_cut_is_no_list() {
    for end in 1..ALERTS.len() {
        assert!(read(Cursor::new(&ALERTS[..end]), Format::Json, |_| ()).is_err(), "{end}");
    }
    let set = "table inet filter {\n set x {\n  elements = { 192.0.2.1,\n";
    assert!(read(Cursor::new(set), Format::Auto, |_| ()).is_err());
}

#[test]
fn sets_of_nftables_are_read_from_json() {
    let json = r#"{"nftables":[{"metainfo":{"version":"1.0.6","json_schema_version":1}},{"table":{"family":"inet","name":"filter","handle":1}},
        {"set":{"family":"inet","name":"x","table":"filter","type":"ipv4_addr","handle":2,"flags":["interval"],"elem":["192.0.2.1",
        {"prefix":{"addr":"198.51.100.0","len":24}},{"range":["203.0.113.1","203.0.113.2"]},
        {"elem":{"val":"192.0.2.9","timeout":60,"comment":"a, b"}},{"elem":{"val":{"prefix":{"addr":"192.0.2.64","len":26}},"expires":7}},
        {"concat":["192.0.2.77",25]},25]}}]}"#;
    let expected =
        ["192.0.2.1/32", "192.0.2.9/32", "192.0.2.64/26", "198.51.100.0/24", "203.0.113.1/32", "203.0.113.2/32"];
    let read = reading(json, Format::Auto);
    assert_eq!(nets(&read), expected);
    assert_eq!(pointers(&read), ["/nftables/2/set/elem/5", "/nftables/2/set/elem/6"]);
}

#[test]
fn sets_of_nftables_are_read_from_text() {
    let text = "table inet filter {\n set x {\n  type ipv4_addr\n  flags interval,timeout\n  elements = { 192.0.2.1, 192.0.2.9 timeout 1h expires 59m comment \"a, b } c\",\n   198.51.100.0/24 counter packets 1 bytes 60, 203.0.113.1-203.0.113.2 }\n }\n set y {\n  type ipv6_addr\n  elements = { 2001:db8::1 }\n }\n set z {\n  type ipv4_addr . inet_service\n  elements = { 192.0.2.77 . 25 }\n }\n}\n";
    let read = reading(text, Format::Auto);
    let expected =
        ["192.0.2.1/32", "192.0.2.9/32", "198.51.100.0/24", "203.0.113.1/32", "203.0.113.2/32", "2001:db8::1/128"];
    assert_eq!(nets(&read), expected);
    assert_eq!(lines(&read), [14]);
    let commands = "#!/usr/sbin/nft -f\nadd table inet filter\nadd set inet filter x { type ipv4_addr; }\nadd element inet filter x { 192.0.2.1,\n 192.0.2.2 }\ndelete element inet filter x { 192.0.2.1 }\n";
    let read = reading(commands, Format::Auto);
    assert_eq!(nets(&read), ["192.0.2.1/32", "192.0.2.2/32"]);
    assert_eq!(lines(&read), [6]);
}

#[test]
fn sets_of_ipset_are_read_in_all_that_it_prints() {
    let saved = "create x hash:net family inet hashsize 1024 maxelem 65536\nadd x 192.0.2.0/24 timeout 60 comment \"nomatch\"\nadd x 192.0.2.1 nomatch\nadd y 2001:db8::/32\nadd z 192.0.2.9,tcp:25\n";
    let read = reading(saved, Format::Auto);
    assert_eq!(nets(&read), ["192.0.2.0/24", "2001:db8::/32"]);
    assert_eq!(lines(&read), [3, 5]);
    let listed = "Name: x\nType: hash:ip\nRevision: 6\nHeader: family inet hashsize 1024\nSize in memory: 216\nReferences: 0\nNumber of entries: 1\nMembers:\n192.0.2.1 timeout 5\n\nName: y\nType: hash:ip\nMembers:\n2001:db8::1\n";
    let read = reading(listed, Format::Auto);
    assert_eq!((nets(&read), read.refused_count), (vec!["192.0.2.1/32".to_owned(), "2001:db8::1/128".to_owned()], 0));
    let json = r#"[{"name":"x","type":"hash:net","revision":7,"header":{"family":"inet"},"members":[{"elem":"192.0.2.1","timeout":5},
        {"elem":"198.51.100.0/24"},{"elem":"198.51.100.7","nomatch":"nomatch"}]}]"#;
    let read = reading(json, Format::Auto);
    assert_eq!(nets(&read), ["192.0.2.1/32", "198.51.100.0/24"]);
    assert_eq!(pointers(&read), ["/0/members/2"]);
}

#[test]
fn a_mark_of_the_byte_order_is_no_part_of_a_list() {
    assert_eq!(nets(&reading("\u{feff}192.0.2.1\r\n192.0.2.2\r\n", Format::Auto)), ["192.0.2.1/32", "192.0.2.2/32"]);
    assert_eq!(nets(&reading("\u{feff}{\"cidr\":\"192.0.2.0/24\"}\n", Format::Auto)), ["192.0.2.0/24"]);
}

#[test]
fn a_list_that_comes_byte_by_byte_is_known_as_well() {
    struct Slow<'a>(&'a [u8]);
    impl std::io::Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let end = buffer.len().min(1);
            std::io::Read::read(&mut self.0, &mut buffer[..end])
        }
    }
    let text = b"# one line\n192.0.2.128/25 OK\n192.0.2.0/24 REJECT\n";
    let read = read(BufReader::with_capacity(1, Slow(text)), Format::Auto, |_| ()).unwrap();
    assert_eq!(nets(&read), ["192.0.2.0/25"]);
}

#[test]
fn a_list_without_an_end_is_given_up() {
    let endless = BufReader::with_capacity(1 << 20, std::io::repeat(b'#'));
    let error = read(endless, Format::Cidr, |_| ()).unwrap_err();
    assert!(error.to_string().contains("longer than 256 MiB"), "{error}");
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
    fn overlapping_ranges_are_one_set_of_addresses(
        ranges in prop::collection::vec((0u32..2000, 0u32..60, any::<bool>()), 0..60),
    ) {
        let far = u128::MAX - 3000;
        let mut text = String::new();
        let mut expected = std::collections::BTreeSet::new();
        for (first, length, v6) in ranges {
            let ends: [std::net::IpAddr; 2] = [first, first + length].map(|end| match v6 {
                true => std::net::Ipv6Addr::from_bits(far + u128::from(end)).into(),
                false => std::net::Ipv4Addr::from_bits(0xffff_f000 + end).into(),
            });
            text.push_str(&format!("{}-{}\n", ends[0], ends[1]));
            expected.extend((first..=first + length).map(|offset| (v6, offset)));
        }
        let read = reading(&text, Format::Auto);
        prop_assert_eq!(read.refused_count, 0);
        for offset in 0..2100 {
            let v4 = std::net::Ipv4Addr::from_bits(0xffff_f000 + offset).into();
            let v6 = std::net::Ipv6Addr::from_bits(far + u128::from(offset)).into();
            prop_assert_eq!(read.addresses.contains(v4), expected.contains(&(false, offset)));
            prop_assert_eq!(read.addresses.contains(v6), expected.contains(&(true, offset)));
        }
        // The networks hold each address once: they add up.
        let sum: u128 = read.addresses.networks().map(|net| 1u128 << (net.max_prefix_len() - net.prefix_len())).sum();
        prop_assert_eq!(sum, expected.len() as u128);
    }

    #[test]
    fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for format in FORMATS {
            // A document that is none is an error, and no panic.
            let _ = read(Cursor::new(&bytes), format, |_| ());
        }
        let _ = Addresses::from_bytes(&bytes);
    }

    #[test]
    fn no_text_of_a_lists_words_is_too_much(words in prop::collection::vec(prop::sample::select(WORDS), 0..60)) {
        let text = words.concat();
        for format in FORMATS {
            if let Ok(read) = read(Cursor::new(&text), format, |_| ()) {
                prop_assert_eq!(read.addresses.is_empty(), read.entries == 0);
            }
        }
    }
}

const FORMATS: [Format; 7] =
    [Format::Auto, Format::Cidr, Format::Plain, Format::Drop, Format::PostfixCidr, Format::Json, Format::Dump];

/// What lists are made of.
const WORDS: &[&str] = &[
    "\n",
    " ",
    "192.0.2.1",
    "2001:db8::",
    "/24",
    "-",
    " - ",
    ",",
    ";",
    "#",
    "!",
    "if ",
    "endif",
    "REJECT",
    "OK",
    "[",
    "]",
    "{",
    "}",
    ":",
    "\"",
    "null",
    "\"new\":",
    "\"decisions\":",
    "\"value\":",
    "\"scope\":",
    "\"Ip\"",
    "\"cidr\":",
    "\"nftables\":",
    "\"set\":",
    "\"elem\":",
    "\"members\":",
    "\"192.0.2.1\"",
    "7",
    "add x ",
    "create x hash:net",
    "elements = {",
    "add element x ",
    "Members:",
    "nomatch",
    "Name: x",
    "\u{feff}",
];
