//! The bytes of the file: keys of fixed size, values that begin with a version.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    screen::record::{Client, Finding, Grounds, Record, Stamp, Test},
    share::{Hosts, Version},
};

/// The length of a client's key.
pub(super) const KEY: usize = 17;

/// The version of a record's value.
const RECORD_VERSION: u8 = 2;
/// The version of a value that has stamps and nothing else, little-endian.
const STAMPS_ALONE: u8 = 1;

/// The length of a finding: stamp, version, grounds.
const FINDING: usize = 8 + 8 + 1;
/// The length of all findings of a record.
const FINDINGS: usize = FINDING * Test::ALL.len();

/// Added to the prefix length of an IPv4 client, whose address is stored as an IPv4-mapped one.
const MAPPED: u8 = 96;

/// A client as a key: its address as 16 bytes in network order, then the prefix length among 128 bits.
pub(super) fn key(client: Client) -> [u8; KEY] {
    let (address, prefix_len) = match client.address {
        IpAddr::V4(address) => (address.to_ipv6_mapped(), client.prefix_len.saturating_add(MAPPED)),
        IpAddr::V6(address) => (address, client.prefix_len),
    };
    let mut key = [0; KEY];
    let (head, tail) = key.split_at_mut(16);
    head.copy_from_slice(&address.octets());
    tail.fill(prefix_len);
    key
}

/// The client of a key; `None` if no client has it.
pub(super) fn client(key: &[u8; KEY]) -> Option<Client> {
    let (octets, tail) = key.split_first_chunk::<16>()?;
    let prefix_len = *tail.first()?;
    let address = Ipv6Addr::from(*octets);
    // Of the addresses that clients have, those within ::ffff:0:0/96 are all IPv4.
    let (address, prefix_len) = match (address.to_ipv4_mapped(), prefix_len.checked_sub(MAPPED)) {
        (Some(address), Some(prefix_len)) => (IpAddr::from(address), prefix_len),
        _ => (IpAddr::from(address), prefix_len),
    };
    let longest = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
    (u32::from(prefix_len) <= longest).then_some(Client { address, prefix_len })
}

/// A record as a value: the version, of each test of [`Test::ALL`] stamp, version (both little-endian) and grounds, then the name of the
/// host that learnt it.
pub(super) fn value(record: &Record, hosts: &Hosts) -> Vec<u8> {
    let host = hosts.name(record.host());
    let mut value = Vec::with_capacity(1 + FINDINGS + host.len());
    value.push(RECORD_VERSION);
    for finding in Test::ALL.map(|test| record.finding(test)) {
        value.extend_from_slice(&finding.stamp.0.to_le_bytes());
        value.extend_from_slice(&finding.version.0.to_le_bytes());
        value.push(finding.grounds as u8);
    }
    value.extend_from_slice(host.as_bytes());
    value
}

/// The record of a value; `None` if this version does not know its form.
pub(super) fn record(value: &[u8], hosts: &Hosts) -> Option<Record> {
    match value.split_first()? {
        (&RECORD_VERSION, rest) => {
            let (findings, host) = rest.split_at_checked(FINDINGS)?;
            let host = hosts.id(str::from_utf8(host).ok()?);
            let mut record = Record::default();
            for (test, bytes) in Test::ALL.into_iter().zip(findings.as_chunks::<FINDING>().0) {
                let (stamp, rest) = bytes.split_first_chunk::<8>()?;
                let (version, grounds) = rest.split_first_chunk::<8>()?;
                let finding = Finding {
                    version: Version(u64::from_le_bytes(*version)),
                    stamp: Stamp(u64::from_le_bytes(*stamp)),
                    grounds: grounds.first().and_then(|&number| Grounds::ALL.get(usize::from(number))).copied()?,
                };
                record.set(test, finding, host);
            }
            Some(record)
        }
        (&STAMPS_ALONE, stamps) if stamps.len() == Test::ALL.len() * 8 => {
            let mut record = [Stamp::NEVER; 5];
            for (stamp, bytes) in record.iter_mut().zip(stamps.as_chunks::<8>().0) {
                *stamp = Stamp(u64::from_le_bytes(*bytes));
            }
            Some(Record::of_stamps(record))
        }
        _ => None,
    }
}

/// Whether any of a record's passes ended at `oldest` or later, in Unix time.
pub(super) fn fresh(record: &Record, oldest: u64) -> bool {
    Test::ALL.into_iter().map(|test| record.stamp(test)).any(|stamp| stamp.is_pass() && stamp.0 >= oldest)
}
