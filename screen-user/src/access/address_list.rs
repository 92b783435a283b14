//! Address match lists as in `access.mynetworks` and `access.allowlist_addresses` (spec D.2).

use std::path::Path;

use ipnet::IpNet;

use crate::config::{AddressList, Host};

use super::cidr::{logical_lines, parse_network};

/// How deep files may name files.
const NESTING_LIMIT: u32 = 8;

/// Reads a list: addresses, networks, `[IPv6]` with or without brackets, `all` (also as `static:all`), `/file/name` (its
/// contents, from `host`), each with `!` for the opposite. The first that matches counts.
///
/// A list of exclusions only means everything but those.
///
/// # Errors
/// For each wrong entry its position in `entries` and what is wrong with it.
pub fn parse<S: AsRef<str>>(entries: &[S], host: &Host) -> Result<AddressList, Vec<(usize, String)>> {
    let mut list = Vec::new();
    let mut problems = Vec::new();
    for (position, entry) in entries.iter().enumerate() {
        for word in entry.as_ref().split([',', ' ', '\t', '\r', '\n']).filter(|word| !word.is_empty()) {
            if let Err(problem) = add(word, true, host, 0, &mut list) {
                problems.push((position, problem));
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if !list.is_empty() && list.iter().all(|(listed, _)| !listed) {
        list.extend(everything().map(|net| (true, net)));
    }
    Ok(AddressList::new(list))
}

/// The networks that hold every address.
pub(crate) fn everything() -> impl Iterator<Item = IpNet> {
    [IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())].into_iter()
}

fn add(word: &str, mut listed: bool, host: &Host, depth: u32, list: &mut Vec<(bool, IpNet)>) -> Result<(), String> {
    let mut rest = word;
    while let Some(after) = rest.strip_prefix('!') {
        listed = !listed;
        rest = after;
    }
    if matches!(rest.to_ascii_lowercase().as_str(), "all" | "static:all") {
        list.extend(everything().map(|net| (listed, net)));
        return Ok(());
    }
    if rest.starts_with('/') {
        if depth >= NESTING_LIMIT {
            return Err(format!("{rest}: files name each other more than {NESTING_LIMIT} deep"));
        }
        let bytes = host.read(Path::new(rest)).map_err(|error| format!("can't read {rest}: {error}"))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("can't read {rest}: it is not UTF-8"))?;
        for (line, text) in logical_lines(&text) {
            for word in text.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
                add(word, listed, host, depth + 1, list).map_err(|problem| format!("{rest}:{line}: {problem}"))?;
            }
        }
        return Ok(());
    }
    list.push((listed, parse_network(rest)?));
    Ok(())
}
