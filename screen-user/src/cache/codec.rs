//! The bytes of the file: keys of fixed size, values that begin with a version.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::screen::record::{Client, Record, Stamp, Test};

/// The length of a client's key.
pub(super) const KEY: usize = 17;

/// The version of a record's value.
const RECORD_VERSION: u8 = 1;

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

/// A record as a value: the version, then the stamps in the order of [`Test::ALL`], little-endian.
pub(super) fn value(record: &Record) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + Test::ALL.len() * 8);
    value.push(RECORD_VERSION);
    for stamp in &record.stamps {
        value.extend_from_slice(&stamp.0.to_le_bytes());
    }
    value
}

/// The record of a value; `None` if this version does not know its form.
pub(super) fn record(value: &[u8]) -> Option<Record> {
    let (version, stamps) = value.split_first()?;
    if *version != RECORD_VERSION || stamps.len() != Test::ALL.len() * 8 {
        return None;
    }
    let mut record = Record::default();
    for (stamp, bytes) in record.stamps.iter_mut().zip(stamps.as_chunks::<8>().0) {
        *stamp = Stamp(u64::from_le_bytes(*bytes));
    }
    Some(record)
}

/// Whether any of a record's passes ended at `oldest` or later, in Unix time.
pub(super) fn fresh(record: &Record, oldest: u64) -> bool {
    record.stamps.iter().any(|stamp| *stamp > Stamp::DISABLED && stamp.0 >= oldest)
}
