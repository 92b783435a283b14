use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn parse(text: &str) -> Result<Record, RecordError> {
    Record::parse(text.as_bytes())
}

/// The only mechanism of a record.
fn mechanism(text: &str) -> Mechanism {
    let mut record = parse(&format!("v=spf1 {text}")).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(record.directives.len(), 1, "{text}");
    record.directives.remove(0).mechanism
}

#[test]
fn a_record_is_told_by_its_version() {
    for record in ["v=spf1", "V=SPF1 -all", "v=spf1 "] {
        assert!(is_record(record.as_bytes()), "{record}");
    }
    for other in ["", "v=spf", "v=spf10", "v=spf1\t-all", " v=spf1", "spf2.0/pra ?all", "v=DMARC1"] {
        assert!(!is_record(other.as_bytes()), "{other}");
        assert_eq!(parse(other), Err(RecordError::Version), "{other}");
    }
}

#[test]
fn every_mechanism_is_read() {
    let rows = [
        ("all", Mechanism::All),
        ("ALL", Mechanism::All),
        ("ip4:192.0.2.1", Mechanism::Network(net("192.0.2.1/32"))),
        ("ip4:192.0.2.77/24", Mechanism::Network(net("192.0.2.0/24"))),
        ("ip4:0.0.0.0/0", Mechanism::Network(net("0.0.0.0/0"))),
        ("IP6:2001:DB8::1/32", Mechanism::Network(net("2001:db8::/32"))),
        ("include:_spf.Example.ORG.", Mechanism::Include(domain("_spf.example.org"))),
        ("a", Mechanism::Addresses(None, Prefix { ipv4: 32, ipv6: 128 })),
        ("a/24", Mechanism::Addresses(None, Prefix { ipv4: 24, ipv6: 128 })),
        ("a//64", Mechanism::Addresses(None, Prefix { ipv4: 32, ipv6: 64 })),
        ("mx:example.org/24//64", Mechanism::Exchanges(Some(domain("example.org")), Prefix { ipv4: 24, ipv6: 64 })),
    ];
    for (text, expected) in rows {
        assert_eq!(mechanism(text), expected, "{text}");
    }
    for unknowable in [
        "ptr",
        "ptr:example.org",
        "exists:%{i}.list.example.org",
        "exists:example.org",
        "include:%{d}.example.org",
        "a:%{h}/24",
        "mx:%{o}",
    ] {
        assert!(matches!(mechanism(unknowable), Mechanism::Unknowable(_)), "{unknowable}");
    }
}

#[test]
fn qualifiers_and_modifiers() {
    let record = parse("v=spf1 +a  -mx ~ip4:192.0.2.1 ?all exp=why.%{d2} redirect=_spf.example.org x-y.z=1 ").unwrap();
    let allows: Vec<bool> = record.directives.iter().map(|directive| directive.allows).collect();
    assert_eq!(allows, [true, false, false, false]);
    assert_eq!(record.directives[2].text, "~ip4:192.0.2.1");
    assert_eq!(record.redirect, Some(Redirect::To(domain("_spf.example.org"))));
    let macros = parse("v=spf1 redirect=%{d}.example.org").unwrap();
    assert_eq!(macros.redirect, Some(Redirect::Unknowable("redirect=%{d}.example.org".into())));
    assert_eq!(parse("v=spf1 redirect=a.example redirect=b.example"), Err(RecordError::Twice("redirect")));
    assert_eq!(parse("v=spf1 exp=a.example exp=a.example"), Err(RecordError::Twice("exp")));
}

#[test]
fn one_wrong_term_spoils_the_record() {
    for wrong in [
        "ip4",
        "ip4:",
        "ip4:192.0.2",
        "ip4:192.0.2.1/33",
        "ip4:192.0.2.1/024",
        "ip4:192.0.2.1/",
        "ip4:192.0.2.1/+8",
        "ip4:2001:db8::1",
        "ip6:192.0.2.1",
        "ip6:2001:db8::/129",
        "all:example.org",
        "all/24",
        "include",
        "include:",
        "include:example",
        "include:192.0.2.1",
        "include:a..example.org",
        "a:",
        "a/33",
        "a/24/64",
        "a//129",
        "a//",
        "mx/",
        "exists",
        "exists:",
        "ptr:",
        "ptr/24",
        "ipv4:192.0.2.1",
        "--all",
        "+",
        "=x",
        "1=x",
        "-redirect=example.org",
        "redirect=",
        "a:ex\u{e4}mple.org",
        "a:tab\there.example",
    ] {
        let error = parse(&format!("v=spf1 ip4:192.0.2.1 {wrong} -all")).expect_err(wrong);
        assert!(matches!(error, RecordError::Term(_)), "{wrong}: {error}");
        assert!(error.to_string().is_ascii(), "{error}");
    }
}

#[test]
fn names_keep_within_dns() {
    let label = "a".repeat(63);
    assert!(Domain::parse(&format!("{label}.{label}.{label}.{}", "b".repeat(61))).is_some());
    assert!(Domain::parse(&format!("{label}.{label}.{label}.{}", "b".repeat(62))).is_none());
    assert!(Domain::parse(&format!("{label}a.example")).is_none());
}

#[test]
fn what_comes_first_decides_and_networks_are_joined() {
    let mut claims = Claims::default();
    claims.add([net("192.0.2.64/26")], false);
    claims.add([net("192.0.2.0/24"), net("192.0.3.0/24")], true);
    claims.add([net("2001:db8::/48")], true);
    claims.add(EVERYBODY, false);
    claims.add([net("198.51.100.0/24")], true);
    let (networks, left_out) = Networks::new(&claims.allowed(), 10);
    let shown: Vec<String> = networks.networks().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["192.0.2.0/26", "192.0.2.128/25", "192.0.3.0/24", "2001:db8::/48"]);
    assert_eq!(left_out, 0);
    assert_eq!(Networks::new(&networks.networks().to_vec(), 3).1, 1);
    let (joined, _) = Networks::new(&vec![net("192.0.2.128/25"), net("192.0.2.0/25")], 10);
    assert_eq!(joined.networks(), [net("192.0.2.0/24")]);
}

#[test]
fn the_widest_network_is_the_widest() {
    let widest = Widest { ipv4: 17, ipv6: 33 };
    for (text, takes) in
        [("192.0.0.0/16", false), ("192.0.0.0/17", true), ("2001:db8::/32", false), ("2001:db8::/33", true)]
    {
        assert_eq!(widest.takes(net(text)), takes, "{text}");
    }
}

/// Few addresses, so that mechanisms overlap.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u32..64).prop_map(|low| IpAddr::V4(Ipv4Addr::from_bits(0xc000_0200 | low))),
        (0_u128..64).prop_map(|low| IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) | low))),
    ]
}

fn directive() -> impl Strategy<Value = String> {
    let network = (address(), 0_u8..=8).prop_map(|(address, host)| match address {
        IpAddr::V4(_) => format!("ip4:{address}/{}", 32 - host),
        IpAddr::V6(_) => format!("ip6:{address}/{}", 128 - host),
    });
    let mechanism = prop_oneof![9 => network, 1 => Just("all".to_owned())];
    (prop_oneof!["[+?~-]", Just(String::new())], mechanism).prop_map(|(qualifier, mechanism)| qualifier + &mechanism)
}

proptest! {
    /// RFC 7208 section 4.6.2, mechanism by mechanism, beside the networks that are made of it.
    #[test]
    fn networks_say_what_the_record_says(terms in prop::collection::vec(directive(), 0..12), client in address()) {
        let record = parse(&format!("v=spf1 {}", terms.join(" "))).unwrap();
        let covers = |mechanism: &Mechanism| match mechanism {
            Mechanism::All => true,
            Mechanism::Network(net) => net.contains(&client),
            other => panic!("{other:?} is not among the terms"),
        };
        let first = record.directives.iter().find(|directive| covers(&directive.mechanism));
        let mut claims = Claims::default();
        for directive in &record.directives {
            match directive.mechanism {
                Mechanism::Network(net) => claims.add([net], directive.allows),
                _ => claims.add(EVERYBODY, directive.allows),
            }
        }
        let (networks, _) = Networks::new(&claims.allowed(), usize::MAX);
        prop_assert_eq!(networks.contains(client), first.is_some_and(|directive| directive.allows));
        prop_assert_eq!(networks.networks().iter().any(|net| net.contains(&client)), networks.contains(client));
    }

    #[test]
    fn no_text_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = [b"v=spf1 ".as_slice(), &bytes].concat();
        if let Err(error) = Record::parse(&text) {
            prop_assert!(error.to_string().bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
        }
    }

    #[test]
    fn nothing_that_looks_like_a_term_makes_it_panic(
        terms in prop::collection::vec("[+?~-]?(all|include|a|mx|ptr|ip4|ip6|exists|redirect|exp)[:=/]?[0-9a-f.:/%{}]{0,20}", 0..5),
    ) {
        if let Ok(record) = parse(&format!("v=spf1 {}", terms.join(" "))) {
            prop_assert!(record.directives.len() <= terms.len());
            for directive in &record.directives {
                prop_assert!(terms.contains(&directive.text));
            }
        }
    }
}
