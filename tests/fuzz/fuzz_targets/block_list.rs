//! Block lists in every form: what is read is a set of addresses, and it is the same after the store.

#![no_main]

use std::{io::Cursor, net::IpAddr};

use libfuzzer_sys::fuzz_target;
use screen_user::access::blocklist::{
    Addresses,
    read::{At, Format, read},
};

const FORMATS: [Format; 7] =
    [Format::Auto, Format::Cidr, Format::Plain, Format::Drop, Format::PostfixCidr, Format::Json, Format::Dump];

fuzz_target!(|bytes: &[u8]| {
    let Some((&format, bytes)) = bytes.split_first() else { return };
    let format = FORMATS[usize::from(format) % FORMATS.len()];
    let lines = bytes.split(|byte| *byte == b'\n').count();
    // A document that breaks off is an error.
    let Ok(list) = read(Cursor::new(bytes), format, |_| ()) else { return };
    assert_eq!(list.addresses.is_empty(), list.entries == 0);
    assert!(list.refused.len() <= list.refused_count);
    for refused in &list.refused {
        if let At::Line(line) = refused.at {
            assert!((1..=lines).contains(&line), "{refused:?} of {lines}");
        }
    }
    let mut before: Option<IpAddr> = None;
    for net in list.addresses.networks() {
        assert!(list.addresses.contains(net.network()) && list.addresses.contains(net.broadcast()), "{net}");
        // In order and disjoint: IPv4 addresses are lower than those of IPv6.
        assert!(before.is_none_or(|last| last < net.network()), "{net} is not behind {before:?}");
        before = Some(net.broadcast());
    }
    assert_eq!(Addresses::from_bytes(&list.addresses.to_bytes()), Some(list.addresses));
});
