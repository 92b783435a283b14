use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use proptest::prelude::*;

use super::{
    AccessList, Element, Verdict, address_list,
    cidr::{Table, logical_lines, parse_network},
    spf::{Domain, Networks},
};
use crate::config::{AddressList, Host};

fn table(text: &str) -> Table {
    let (table, warnings) = Table::parse(text);
    assert_eq!(warnings, []);
    table
}

fn found(table: &Table, address: &str) -> Option<(String, u32)> {
    table.find(address.parse().unwrap()).map(|(text, line)| (text.to_owned(), line))
}

fn list(elements: Vec<Element>) -> AccessList {
    AccessList::new(
        elements,
        address_list::parse(&["127.0.0.0/8", "!192.0.2.77", "192.0.2.0/24", "[::1]"], &Host::here()).unwrap(),
    )
}

fn element(text: &str) -> Element {
    let (element, warnings) = Element::table("/etc/list.cidr", table(text), None);
    assert_eq!(warnings, []);
    element
}

fn verdict(list: &AccessList, address: &str) -> Verdict {
    list.decide(address.parse().unwrap()).verdict
}

#[test]
fn the_first_rule_that_matches_counts() {
    let table = table("192.0.2.7 permit\n192.0.2.0/24 reject\n0.0.0.0/0 dunno\n2001:db8::/32 permit\n");
    assert_eq!(found(&table, "192.0.2.7"), Some(("permit".into(), 1)));
    assert_eq!(found(&table, "192.0.2.8"), Some(("reject".into(), 2)));
    assert_eq!(found(&table, "198.51.100.1"), Some(("dunno".into(), 3)));
    assert_eq!(found(&table, "2001:DB8:0::1"), Some(("permit".into(), 4)));
    assert_eq!(found(&table, "2001:db9::1"), None);
}

#[test]
fn lines_continue_and_comments_do_not_count() {
    let text = "# a list\n192.0.2.1\n   reject\n# in between\n\n\tand more\n[2001:db8::]/32 permit\n";
    assert_eq!(
        logical_lines(text),
        [(2, "192.0.2.1 reject and more".to_owned()), (7, "[2001:db8::]/32 permit".to_owned())]
    );
    assert_eq!(found(&table(text), "192.0.2.1"), Some(("reject and more".into(), 2)));
}

#[test]
fn brackets_may_stand_around_the_address_or_the_network() {
    for pattern in ["[2001:db8::]/32", "[2001:db8::/32]", "2001:db8::/32"] {
        assert_eq!(parse_network(pattern), Ok("2001:db8::/32".parse().unwrap()));
    }
    assert_eq!(parse_network("[192.0.2.1]"), Ok("192.0.2.1/32".parse().unwrap()));
    for wrong in [
        "[192.0.2.0/24]/24",
        "[192.0.2.1",
        "192.0.2.1]",
        "192.0.2",
        "192.0.2.0/",
        "192.0.2.0/+8",
        "::/129",
        "0.0.0.0/33",
        "",
    ] {
        assert!(parse_network(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_negated_rule_keeps_to_its_family() {
    let table = table("!192.0.2.0/24 outside\n");
    assert_eq!(found(&table, "192.0.3.0"), Some(("outside".into(), 1)));
    assert_eq!(found(&table, "192.0.1.255"), Some(("outside".into(), 1)));
    assert_eq!(found(&table, "192.0.2.255"), None);
    assert_eq!(found(&table, "2001:db8::1"), None);
}

#[test]
fn if_blocks_nest() {
    let table = table(
        "IF 192.0.0.0/16\nif !192.0.2.0/24\n0.0.0.0/0 not-two\nendif\n192.0.2.0/25 low\nENDIF\nif 2001:db8::/32\n::/0 six\nendif\n0.0.0.0/0 rest\n",
    );
    assert_eq!(found(&table, "192.0.3.1"), Some(("not-two".into(), 3)));
    assert_eq!(found(&table, "192.0.2.1"), Some(("low".into(), 5)));
    assert_eq!(found(&table, "192.0.2.200"), Some(("rest".into(), 10)));
    assert_eq!(found(&table, "198.51.100.1"), Some(("rest".into(), 10)));
    assert_eq!(found(&table, "2001:db8::1"), Some(("six".into(), 8)));
    assert_eq!(found(&table, "2001:db9::1"), None);
}

#[test]
fn a_wrong_rule_is_skipped_with_its_line() {
    let (table, warnings) = Table::parse(
        "192.0.2.1/24 reject\n192.0.2.0/24\nmx.example.test permit\nendif\nif 192.0.2.300\n0.0.0.0/0 reject\nendif\nif 10.0.0.0/8\n10.0.0.1 permit\n",
    );
    let texts: Vec<_> = warnings.iter().map(|warning| (warning.line, warning.message.as_str())).collect();
    assert_eq!(
        texts,
        [
            (
                1,
                "non-null host address bits in \"192.0.2.1/24\", perhaps you should use \"192.0.2.0/24\" instead: skipping this rule"
            ),
            (2, "no result after the pattern: skipping this rule"),
            (3, "bad address pattern \"mx.example.test\": skipping this rule"),
            (4, "endif without an if: skipping this rule"),
            (5, "bad address pattern \"192.0.2.300\": skipping this rule and all up to its endif"),
            (8, "if without an endif"),
        ]
    );
    assert_eq!(found(&table, "192.0.2.1"), None);
    assert_eq!(found(&table, "10.0.0.1"), Some(("permit".into(), 9)));
}

#[test]
fn a_table_says_nothing_by_dunno_and_the_list_goes_on() {
    let list = list(vec![
        element("192.0.2.9 dunno\n192.0.2.0/28 reject\n203.0.113.0/24 permit_mynetworks, reject\n"),
        Element::PermitMynetworks,
        element("192.0.2.77 reject\n198.51.100.0/24 PERMIT\n"),
        Element::Dunno,
        Element::Reject,
    ]);
    assert_eq!(verdict(&list, "192.0.2.9"), Verdict::Permit);
    assert_eq!(verdict(&list, "192.0.2.1"), Verdict::Reject);
    assert_eq!(verdict(&list, "192.0.2.77"), Verdict::Reject);
    assert_eq!(verdict(&list, "203.0.113.5"), Verdict::Reject);
    assert_eq!(verdict(&list, "198.51.100.5"), Verdict::Permit);
    assert_eq!(verdict(&list, "::ffff:198.51.100.5"), Verdict::Permit);
    assert_eq!(verdict(&list, "::1"), Verdict::Permit);
    assert_eq!(verdict(&list, "100.64.0.1"), Verdict::Undecided);
    let place = list.decide("192.0.2.1".parse().unwrap()).rule.unwrap();
    assert_eq!(place.to_string(), "/etc/list.cidr:2");
    assert_eq!(list.decide("127.0.0.1".parse().unwrap()).rule.unwrap().to_string(), "permit_mynetworks");
}

#[test]
fn words_that_are_not_known_end_the_list_undecided() {
    let parsed = table("192.0.2.1 discard\n192.0.2.2 cidr:/x\n192.0.2.3 permit nonsense\n");
    let (element, warnings) = Element::table("/t", parsed, None);
    assert_eq!(warnings.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2]);
    let list = AccessList::new(vec![element, Element::Reject], AddressList::default());
    assert_eq!(verdict(&list, "192.0.2.1"), Verdict::Undecided);
    assert_eq!(verdict(&list, "192.0.2.2"), Verdict::Reject);
    assert_eq!(verdict(&list, "192.0.2.3"), Verdict::Permit);
}

#[test]
fn exclusions_alone_mean_all_but_those() {
    let list = address_list::parse(&["!192.0.2.25"], &Host::here()).unwrap();
    assert!(!list.contains("192.0.2.25".parse().unwrap()));
    assert!(list.contains("192.0.2.26".parse().unwrap()));
    assert!(list.contains("2001:db8::1".parse().unwrap()));
    assert!(!address_list::parse::<&str>(&[], &Host::here()).unwrap().contains("192.0.2.26".parse().unwrap()));
    let wrong = address_list::parse(&["192.0.2.1", "192.0.2.1/24", "/nonexistent/file"], &Host::here()).unwrap_err();
    assert_eq!(wrong.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn files_are_inserted_and_exclusion_distributes_over_them() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nets");
    std::fs::write(&file, "192.0.2.0/24, !198.51.100.0/24\n# no\n").unwrap();
    let list = address_list::parse(&[format!("!{}", file.display()), "all".to_owned()], &Host::here()).unwrap();
    assert!(!list.contains("192.0.2.1".parse().unwrap()));
    assert!(list.contains("198.51.100.1".parse().unwrap()));
}

#[test]
fn compiling_stops_at_the_limit_and_says_so() {
    let text: String = (0..=255).map(|third| format!("10.0.{third}.1 reject\n")).collect();
    let list = AccessList::new(vec![element(&text)], AddressList::default());
    assert!(list.compile().exact);
    assert_eq!(list.compile().rejects.len(), 256);
    let cut = list.compile_up_to(100);
    assert!(!cut.exact);
    assert_eq!(cut.rejects.len(), 100);
}

#[test]
fn a_list_with_a_hole_is_compiled_around_it() {
    let list = AccessList::new(vec![element("192.0.2.128 dunno\n192.0.2.0/24 reject\n")], AddressList::default());
    let nets: Vec<_> = list.compile().rejects.iter().map(|(net, _)| net.to_string()).collect();
    assert_eq!(
        nets,
        [
            "192.0.2.0/25",
            "192.0.2.129/32",
            "192.0.2.130/31",
            "192.0.2.132/30",
            "192.0.2.136/29",
            "192.0.2.144/28",
            "192.0.2.160/27",
            "192.0.2.192/26"
        ]
    );
}

/// Few distinct bits, so that networks meet.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = prop_oneof![(0u32..8).prop_map(|low| 0xC000_0200 | low << 5 | low), any::<u32>()];
    let v6 = prop_oneof![(0u128..8).prop_map(|low| 0x2001_0db8 << 96 | low << 60 | low), any::<u128>()];
    prop_oneof![
        v4.prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        v6.prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
    ]
}

fn network() -> impl Strategy<Value = IpNet> {
    (address(), 0u8..=128).prop_map(|(address, length)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length % (most + 1)).unwrap().trunc()
    })
}

#[derive(Debug, Clone)]
struct Line {
    net: IpNet,
    negated: bool,
    result: &'static str,
    condition: Option<(bool, IpNet)>,
}

fn line() -> impl Strategy<Value = Line> {
    let results = prop::sample::select(vec![
        "permit",
        "reject",
        "dunno",
        "permit_mynetworks",
        "nonsense",
        "permit_mynetworks reject",
    ]);
    (network(), prop::bool::weighted(0.2), results, prop::option::weighted(0.3, (any::<bool>(), network())))
        .prop_map(|(net, negated, result, condition)| Line { net, negated, result, condition })
}

fn text_of(lines: &[Line]) -> String {
    let mark = |negated: bool| if negated { "!" } else { "" };
    lines
        .iter()
        .map(|line| {
            let rule = format!("{}{} {}\n", mark(line.negated), line.net, line.result);
            match line.condition {
                Some((negated, net)) => format!("if {}{net}\n{rule}endif\n", mark(negated)),
                None => rule,
            }
        })
        .collect()
}

#[test]
fn a_domain_permits_at_its_place_what_it_publishes() {
    let domain = Domain::parse("Spf.Example.org").unwrap();
    let spf = || Element::Spf(domain.clone(), Arc::default());
    let mut list = list(vec![element("192.0.2.99 reject\n"), spf(), element("198.51.100.0/24 reject\n"), spf()]);
    let before = list.clone();
    assert_eq!(verdict(&list, "198.51.100.1"), Verdict::Reject);
    let networks = ["198.51.100.0/25", "192.0.2.0/24", "2001:db8::/48"].map(|net| net.parse().unwrap());
    list.publish(&domain, &Arc::new(Networks::new(&networks.to_vec(), 10).0));
    for (address, expected) in [
        ("192.0.2.99", Verdict::Reject),
        ("192.0.2.98", Verdict::Permit),
        ("198.51.100.127", Verdict::Permit),
        ("198.51.100.128", Verdict::Reject),
        ("2001:db8::1", Verdict::Permit),
        ("2001:db8:1::1", Verdict::Undecided),
    ] {
        assert_eq!(verdict(&list, address), expected, "{address}");
    }
    let decision = list.decide("2001:db8::1".parse().unwrap());
    assert_eq!(decision.rule.unwrap().to_string(), "spf:spf.example.org");
    assert_eq!(verdict(&before, "2001:db8::1"), Verdict::Undecided, "a copy stays as it was");
    let compiled = list.compile();
    assert_eq!(compiled.rejects.len(), 2);
    assert!(compiled.permits.contains(&"198.51.100.0/25".parse().unwrap()));
    assert!(!compiled.permits.iter().any(|net| net.contains(&IpAddr::from([192, 0, 2, 99]))));
}

#[test]
fn the_ipv6_form_of_ipv4_is_not_compiled() {
    let rules = "::fffe:0:0/96 dunno\n::fffe:0:0/95 permit\n::ffff:192.0.2.0/120 reject\n192.0.2.7 reject\n";
    let list = list(vec![element(rules)]);
    let compiled = list.compile();
    assert_eq!(compiled.permits, []);
    assert_eq!(compiled.rejects.iter().map(|(net, _)| net.to_string()).collect::<Vec<_>>(), ["192.0.2.7/32"]);
    assert_eq!(verdict(&list, "::ffff:198.51.100.1"), Verdict::Undecided);
}

/// The specification read literally: line by line.
fn model(lines: &[Line], mynetworks: &AddressList, address: IpAddr) -> Verdict {
    let matches =
        |negated: bool, net: IpNet| net.addr().is_ipv4() == address.is_ipv4() && net.contains(&address) != negated;
    let first = lines.iter().find(|line| {
        line.condition.is_none_or(|(negated, net)| matches(negated, net)) && matches(line.negated, line.net)
    });
    let inside = mynetworks.contains(address);
    match first.map(|line| line.result) {
        Some("permit") => Verdict::Permit,
        Some("reject") => Verdict::Reject,
        Some("nonsense") => Verdict::Undecided,
        Some("permit_mynetworks" | "permit_mynetworks reject") if inside => Verdict::Permit,
        Some("permit_mynetworks reject") => Verdict::Reject,
        // The element behind the table.
        _ => {
            if inside {
                Verdict::Permit
            } else {
                Verdict::Undecided
            }
        }
    }
}

proptest! {
    #[test]
    fn the_index_says_what_the_ordered_list_says(
        lines in prop::collection::vec(line(), 0..24),
        mynetworks in prop::collection::vec((any::<bool>(), network()), 0..4),
        addresses in prop::collection::vec(address(), 1..32),
    ) {
        let mynetworks = AddressList::new(mynetworks);
        let (element, _) = Element::table("t", table(&text_of(&lines)), None);
        let list = AccessList::new(vec![element, Element::PermitMynetworks], mynetworks.clone());
        let compiled = list.compile();
        prop_assert!(compiled.exact);
        let edges = lines.iter().flat_map(|line| [line.net.network(), line.net.broadcast()]);
        for address in addresses.into_iter().chain(edges).filter(|address| address.to_canonical() == *address) {
            let expected = model(&lines, &mynetworks, address);
            prop_assert_eq!(list.decide(address).verdict, expected, "{}", address);
            let permits = compiled.permits.iter().filter(|net| net.contains(&address)).count();
            let rejects: Vec<_> = compiled.rejects.iter().filter(|(net, _)| net.contains(&address)).collect();
            prop_assert_eq!((permits, rejects.len()), (usize::from(expected == Verdict::Permit), usize::from(expected == Verdict::Reject)));
            if let [(_, rule)] = rejects.as_slice() {
                prop_assert_eq!(list.place(*rule), list.decide(address).rule);
            }
        }
    }

    #[test]
    fn any_bytes_are_a_table(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (table, _) = Table::parse(&String::from_utf8_lossy(&bytes));
        prop_assert!(table.find(IpAddr::V4(Ipv4Addr::LOCALHOST)).is_none_or(|(_, line)| line > 0));
    }

    #[test]
    fn any_words_in_the_shape_of_rules_are_a_table(text in "((if|endif|!| |\\[|\\]|/|::|[0-9]{1,3}|\\.|reject|permit|#|\t|\n){0,12}\n){0,12}") {
        let (table, warnings) = Table::parse(&text);
        let lines = text.lines().count();
        prop_assert!(warnings.iter().all(|warning| (1..=lines).contains(&(warning.line as usize))));
        let (_, more) = Element::table("t", table, None);
        prop_assert!(more.iter().all(|(line, _)| (1..=lines).contains(&(*line as usize))));
    }
}
