use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use super::*;
use crate::screen::{
    event::{DnsblAnswer, ZoneReply},
    policy::{Action, Dnsbl},
};

fn sites(entries: &[&str]) -> Sites {
    Sites::parse(entries, &BTreeMap::new()).unwrap()
}

fn listed(zone: usize, codes: &[&str], ttl: Option<u64>) -> DnsblAnswer {
    let codes = codes.iter().map(|code| code.parse().unwrap()).collect();
    DnsblAnswer { zone, reply: ZoneReply::Listed { codes, ttl: ttl.map(Duration::from_secs) } }
}

fn not_listed(zone: usize, ttl: Option<u64>) -> DnsblAnswer {
    DnsblAnswer { zone, reply: ZoneReply::NotListed { ttl: ttl.map(Duration::from_secs) } }
}

const fn failed(zone: usize) -> DnsblAnswer {
    DnsblAnswer { zone, reply: ZoneReply::Failed }
}

#[test]
fn filters() {
    // (pattern, matching, not matching)
    let rows = [
        ("127.0.0.2", "127.0.0.2", "127.0.0.3"),
        ("127.0.0.002", "127.0.0.2", "127.0.0.20"),
        ("127.0.0.[2;4;6..8]", "127.0.0.7", "127.0.0.5"),
        ("127.0.[0..255].[1..3]", "127.0.255.3", "127.0.0.4"),
        ("[[1;2].3.4.5]", "2.3.4.5", "3.3.4.5"),
        ("[1;2].3.4.5", "1.3.4.5", "4.3.4.5"),
        ("[127.0.0.1]", "127.0.0.1", "127.0.0.0"),
        ("[0..255].[63;64].[127..128].255", "9.64.128.255", "9.65.128.255"),
    ];
    for (pattern, matching, other) in rows {
        let filter = Filter::parse(pattern).unwrap();
        assert!(filter.matches(matching.parse().unwrap()), "{pattern}");
        assert!(!filter.matches(other.parse().unwrap()), "{pattern}");
    }
}

#[test]
fn filter_errors_in_postscreens_words() {
    let rows = [
        ("", "empty address pattern"),
        ("[]", "empty address pattern"),
        ("[1.2.3.4", "missing \"]\" character"),
        ("1.2.300.4", "need decimal number 0..255 or \"[\" at \"1.2.>300<.4\""),
        ("1.2.3.99999999999999999999", "need decimal number 0..255 or \"[\" at \"1.2.3.>99999999999999999999<\""),
        ("1.2.3", "need \".\" at \"1.2.3><\""),
        ("1.2.3.", "need decimal number 0..255 or \"[\" at \"1.2.3.><\""),
        ("1.2..4", "need \".\" at \"1.2>..<4\""),
        ("1.2.N.4", "need decimal number 0..255 or \"[\" at \"1.2.>N<.4\""),
        ("1.2.[3;x].4", "need decimal number 0..255 at \"1.2.[3;>x<].4\""),
        ("1.2.[].4", "need decimal number 0..255 at \"1.2.[>]<.4\""),
        ("1.2.[5..3].4", "numeric range error at \"1.2.[5..>3<].4\""),
        ("1.2.[5,3].4", "need \";\" or \"]\" at \"1.2.[5>,<3].4\""),
        ("1.2.3.4.5", "garbage after pattern at \"1.2.3.4>.<5\""),
        ("1.2.3.4 ", "garbage after pattern at \"1.2.3.4> <\""),
    ];
    for (pattern, error) in rows {
        assert_eq!(Filter::parse(pattern).unwrap_err().to_string(), error, "{pattern}");
    }
}

#[test]
fn site_errors_in_postscreens_words() {
    let rows = [
        ("a.test*x", "bad DNSBL weight factor \"x\" in \"a.test*x\""),
        ("a.test*", "bad DNSBL weight factor \"\" in \"a.test*\""),
        ("a.test*2 ", "bad DNSBL weight factor \"2 \" in \"a.test*2 \""),
        ("a.test*1*2", "bad DNSBL weight factor \"1*2\" in \"a.test*1*2\""),
        ("a.test=1.2.3*2", "bad DNSBL filter syntax: need \".\" at \"1.2.3><\""),
        ("a.test=", "bad DNSBL filter syntax: empty address pattern"),
        ("-a.test", "bad DNSBL domain name \"-a.test\" in \"-a.test\""),
        ("a..test*3", "bad DNSBL domain name \"a..test\" in \"a..test*3\""),
        ("1.2.3", "bad DNSBL domain name \"1.2.3\" in \"1.2.3\""),
        ("a.test.", "bad DNSBL domain name \"a.test.\" in \"a.test.\""),
        ("", "bad DNSBL domain name \"\" in \"\""),
    ];
    for (entry, error) in rows {
        assert_eq!(Sites::parse(&[entry], &BTreeMap::new()).unwrap_err().to_string(), error);
    }
    for good in ["a_b.test", "a.test*-3", "a.test*+3", "a.test*0", "a.test=127.0.0.[2..9]*2", "x"] {
        assert!(Sites::parse(&[good], &BTreeMap::new()).is_ok(), "{good}");
    }
}

#[test]
fn a_secret_name_is_shown_nowhere() {
    let names = BTreeMap::from([("s3cr3t.paid.test".to_owned(), "paid.test".to_owned())]);
    let parsed = Sites::parse(&["s3cr3t.paid.test=127.0.0.2*3"], &names).unwrap();
    assert_eq!(parsed.zones()[0].domain(), "s3cr3t.paid.test");
    assert_eq!(parsed.zones()[0].shown(), "paid.test");
    assert!(!format!("{parsed:?}").contains("s3cr3t"));
    for wrong in ["s3cr3t.paid.test*x", "s3cr3t.paid.test=1"] {
        assert!(!Sites::parse(&[wrong], &names).unwrap_err().to_string().contains("s3cr3t"));
    }
    let mut tally = Tally::new(&parsed);
    tally.add(&parsed, &listed(0, &["127.0.0.2"], None));
    assert_eq!(tally.name(&parsed), "paid.test");
}

#[test]
fn keys_are_recognised() {
    let rows = [
        ("abcdefghij1234567890abcdef.zen.dq.spamhaus.net", "zen.dq.spamhaus.net"),
        ("key.zen.dq.spamhaus.net", "zen.dq.spamhaus.net"),
        ("zen.dq.spamhaus.net", "zen.dq.spamhaus.net"),
        ("zen.spamhaus.org", "zen.spamhaus.org"),
        ("0123456789abcdef0123.combined.mail.abusix.zone", "combined.mail.abusix.zone"),
        ("0123456789abcdef0123456789abcdef.other.test", "other.test"),
        ("b.barracudacentral.org", "b.barracudacentral.org"),
        ("averyverylongpublicname.test", "averyverylongpublicname.test"),
    ];
    for (domain, shown) in rows {
        assert_eq!(sites(&[domain]).zones()[0].shown(), shown);
    }
}

#[test]
fn one_query_a_domain_and_one_weight_a_pair() {
    let sites = sites(&["a.test=127.0.0.2*2", "b.test", "a.test=127.0.0.[2..4]*3", "a.test=127.0.0.9*50"]);
    assert_eq!(sites.zones().len(), 2);
    let mut tally = Tally::new(&sites);
    tally.add(&sites, &listed(0, &["127.0.0.2", "127.0.0.3", "127.0.0.4"], None));
    assert_eq!(tally.score(), 5);
    assert!(!tally.is_complete());
    // A second answer of the same zone, or one of no zone, does not count.
    tally.add(&sites, &listed(0, &["127.0.0.9"], None));
    tally.add(&sites, &listed(7, &["127.0.0.9"], None));
    assert_eq!(tally.score(), 5);
    tally.add(&sites, &not_listed(1, None));
    assert!(tally.is_complete());
    assert_eq!(
        tally.hits(),
        [Hit { zone: 0, weight: 5, codes: [2, 3, 4].map(|last| Ipv4Addr::new(127, 0, 0, last)).to_vec() }]
    );
}

#[test]
fn the_greatest_weight_gives_the_name_and_the_first_of_equals() {
    let sites = sites(&["a.test*2", "b.test*2", "c.test*3"]);
    let mut tally = Tally::new(&sites);
    assert_eq!(tally.name(&sites), "");
    for (zone, name) in [(1, "b.test"), (0, "b.test"), (2, "c.test")] {
        tally.add(&sites, &listed(zone, &["127.0.0.2"], None));
        assert_eq!(tally.name(&sites), name);
    }
}

fn dnsbl_policy(threshold: i32, allowlist_threshold: i32) -> Dnsbl {
    Dnsbl {
        sites: std::sync::Arc::default(),
        threshold,
        allowlist_threshold,
        action: Action::Drop,
        min_ttl: Duration::from_secs(60),
        max_ttl: Duration::from_secs(3600),
    }
}

/// Spec 3.4's buckets and 3.5's clamps.
#[test]
fn lifetimes() {
    let sites = sites(&["bad.test*2", "good.test*-1", "worse.test"]);
    let rows: [(&[DnsblAnswer], i32, u64); 9] = [
        (&[listed(0, &["127.0.0.2"], Some(500))], 2, 500),
        (
            &[listed(0, &["127.0.0.2"], Some(500)), listed(1, &["127.0.0.2"], Some(100)), not_listed(2, Some(200))],
            1,
            500,
        ),
        (&[listed(0, &["127.0.0.2"], Some(500)), not_listed(1, Some(300))], 2, 300),
        (&[not_listed(0, Some(900)), not_listed(2, Some(800)), not_listed(1, Some(70))], 0, 800),
        (&[listed(1, &["127.0.0.2"], Some(400)), not_listed(0, Some(900))], -1, 400),
        // Unknown lifetimes say nothing, in any order.
        (&[not_listed(0, Some(900)), not_listed(2, None)], 0, 900),
        (&[not_listed(2, None), not_listed(0, Some(900))], 0, 900),
        (&[not_listed(2, None), failed(0)], 0, 60),
        (&[not_listed(0, Some(90_000))], 0, 3600),
    ];
    for (answers, score, ttl) in rows {
        let judgement = judge(&Tally::of(&sites, answers), &dnsbl_policy(1, 0));
        assert_eq!((judgement.score, judgement.ttl), (score, Duration::from_secs(ttl)), "{answers:?}");
    }
}

#[test]
fn thresholds() {
    let sites = sites(&["bad.test*2", "good.test*-3"]);
    let bad = [listed(0, &["127.0.0.2"], None)];
    let good = [listed(1, &["127.0.0.2"], None)];
    // (answers, threshold, allow-list threshold, blocked, exempt)
    let rows: [(&[DnsblAnswer], i32, i32, bool, bool); 6] = [
        (&bad, 2, 0, true, false),
        (&bad, 3, 0, false, false),
        (&good, 1, 0, false, false),
        (&good, 1, -3, false, true),
        (&good, 1, -4, false, false),
        (&[failed(0), failed(1)], 1, -1, false, false),
    ];
    for (answers, threshold, allowlist_threshold, blocked, exempt) in rows {
        let judgement = judge(&Tally::of(&sites, answers), &dnsbl_policy(threshold, allowlist_threshold));
        assert_eq!(
            (judgement.blocked, judgement.exempt),
            (blocked, exempt),
            "{answers:?} {threshold} {allowlist_threshold}"
        );
    }
}

#[test]
fn scores_do_not_overflow() {
    let sites = sites(&["a.test*2147483647", "a.test*2147483647", "b.test*2147483647"]);
    let tally = Tally::of(&sites, &[listed(0, &["127.0.0.2"], None), listed(1, &["127.0.0.2"], None)]);
    assert_eq!(tally.score(), i32::MAX);
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]0-9.;*=a-zN-]{0,40}|.{0,40}") {
        let _ = Filter::parse(&text);
        let _ = Sites::parse(&[text], &BTreeMap::new());
    }

    #[test]
    fn a_plain_address_matches_itself_only(a in proptest::prelude::any::<u32>(), b in proptest::prelude::any::<u32>()) {
        let (a, b) = (Ipv4Addr::from(a), Ipv4Addr::from(b));
        let filter = Filter::parse(&a.to_string()).unwrap();
        proptest::prop_assert!(filter.matches(a));
        proptest::prop_assert_eq!(filter.matches(b), a == b);
    }
}
