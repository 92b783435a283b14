//! CIDR tables: the list that is asked and the networks that the kernel gets say the same.

#![no_main]

use std::net::IpAddr;

use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;
use screen_user::{
    access::{AccessList, Element, Verdict, cidr::Table},
    config::AddressList,
};

/// Addresses worth asking for: the ends of a network, and their neighbours. A client's address is canonical.
fn around(net: IpNet) -> Vec<IpAddr> {
    let addresses = match net {
        IpNet::V4(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(|bits| IpAddr::V4(bits.into())).to_vec()
        }
        IpNet::V6(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(|bits| IpAddr::V6(bits.into())).to_vec()
        }
    };
    addresses.iter().map(IpAddr::to_canonical).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().count();
    let (table, warnings) = Table::parse(&text);
    for warning in &warnings {
        assert!((1..=lines).contains(&(warning.line as usize)), "{warning:?}");
    }
    let found = |address| table.find(address).map(|(result, line)| (result.to_owned(), line));
    let mut addresses: Vec<IpAddr> = ["0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "2001:db8::1"]
        .into_iter()
        .map(|address| address.parse().expect("an address"))
        .collect();
    for word in text.split(|letter: char| letter.is_whitespace() || letter == '!') {
        if let Ok(net) = word.parse::<IpNet>() {
            addresses.extend(around(net));
        }
    }
    for &address in &addresses {
        if let Some((_, line)) = found(address) {
            assert!((1..=lines).contains(&(line as usize)), "a rule on line {line} of {lines}");
        }
    }

    let (element, _) = Element::table("fuzz", table, None);
    let list = AccessList::new(vec![element], AddressList::new(Vec::new()));
    let compiled = list.compile();
    assert!(compiled.exact);
    addresses.extend(compiled.permits.iter().copied().flat_map(around));
    addresses.extend(compiled.rejects.iter().flat_map(|(net, _)| around(*net)));
    for address in addresses {
        let permitted = compiled.permits.iter().any(|net| net.contains(&address));
        let rejected = compiled.rejects.iter().any(|(net, _)| net.contains(&address));
        assert!(!(permitted && rejected), "{address} in both");
        let verdict = list.decide(address).verdict;
        assert_eq!((permitted, rejected), (verdict == Verdict::Permit, verdict == Verdict::Reject), "{address}");
    }
});
