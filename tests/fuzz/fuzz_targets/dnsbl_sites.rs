//! DNSBL sites: filters match what they say, and a secret zone's name is in no error.

#![no_main]

use std::{collections::BTreeMap, net::Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use screen_user::screen::dnsbl::{Filter, Sites};

/// The octets of a pattern: the dots outside brackets part them.
fn octets(pattern: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, letter) in pattern.char_indices() {
        match letter {
            '[' => depth += 1,
            ']' => depth -= 1,
            '.' if depth == 0 => {
                parts.push(&pattern[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&pattern[start..]);
    parts
}

/// Whether `pattern`, which was accepted, matches `address`: the pattern's meaning once more, octet by octet.
fn matches(pattern: &str, address: Ipv4Addr) -> bool {
    let mut parts = octets(pattern);
    // The whole pattern may stand in brackets, too.
    if let ([whole], Some(inner)) =
        (parts.as_slice(), pattern.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')))
    {
        assert_eq!(*whole, pattern);
        parts = octets(inner);
    }
    assert_eq!(parts.len(), 4, "{pattern} was accepted");
    parts.iter().zip(address.octets()).all(|(part, octet)| {
        part.trim_matches(['[', ']']).split(';').any(|range| {
            let (low, high) = range.split_once("..").unwrap_or((range, range));
            let number = |text: &str| text.parse::<u8>().unwrap_or_else(|_| panic!("{pattern} was accepted"));
            (number(low)..=number(high)).contains(&octet)
        })
    })
}

fuzz_target!(|text: &str| {
    for pattern in text.lines() {
        if let Ok(filter) = Filter::parse(pattern) {
            for third in [0, 1, 2, 10, 127, 255] {
                for last in [0, 1, 2, 3, 4, 10, 11, 99, 127, 254, 255] {
                    for address in [Ipv4Addr::new(127, 0, third, last), Ipv4Addr::new(third, 0, 0, last)] {
                        assert_eq!(filter.matches(address), matches(pattern, address), "{pattern} and {address}");
                    }
                }
            }
        }
    }
    if let Ok(sites) = Sites::parse(&text.lines().collect::<Vec<_>>(), &BTreeMap::new()) {
        assert!(sites.zones().len() <= text.lines().count());
        assert_eq!(sites.zones().is_empty(), text.lines().next().is_none());
    }
    for entry in text.lines() {
        let rest = entry.split_once('*').map_or(entry, |(rest, _)| rest);
        let domain = rest.split_once('=').map_or(rest, |(domain, _)| domain);
        // A name that could be part of a message by chance proves nothing.
        let name = |letter: char| letter.is_ascii_alphanumeric() || letter == '.' || letter == '-';
        if domain.len() < 8 || !domain.contains('.') || !domain.chars().all(name) || entry.matches(domain).count() > 1 {
            continue;
        }
        let names = BTreeMap::from([(domain.to_owned(), "shown".to_owned())]);
        match Sites::parse(&[entry], &names) {
            Err(error) => assert!(!error.to_string().contains(domain), "{error}"),
            Ok(sites) => assert!(!format!("{sites:?}").contains(domain), "{sites:?}"),
        }
    }
});
