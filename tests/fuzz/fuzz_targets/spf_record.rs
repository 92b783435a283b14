//! SPF records: whatever is published, the networks that are made of it say what the first mechanism says that covers an address.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use screen_user::access::spf::{Claims, EVERYBODY, Mechanism, Networks, Record};

fuzz_target!(|bytes: &[u8]| {
    let record = match Record::parse(&[b"v=spf1 ", bytes].concat()) {
        Ok(record) => record,
        Err(error) => {
            assert!(error.to_string().bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{error:?}");
            return;
        }
    };
    let mut claims = Claims::default();
    let mut covered = Vec::new();
    for directive in &record.directives {
        let networks = match &directive.mechanism {
            Mechanism::All => EVERYBODY.to_vec(),
            Mechanism::Network(net) => vec![*net],
            Mechanism::Include(_) | Mechanism::Addresses(..) | Mechanism::Exchanges(..) | Mechanism::Unknowable(_) => {
                continue;
            }
        };
        claims.add(networks.iter().copied(), directive.allows);
        covered.push((networks, directive.allows));
    }
    let (networks, _) = Networks::new(&claims.allowed(), usize::MAX);
    let ends = covered.iter().flat_map(|(nets, _)| nets).flat_map(|net| [net.network(), net.broadcast()]);
    for address in ends.collect::<Vec<IpAddr>>() {
        let first = covered.iter().find(|(nets, _)| nets.iter().any(|net| net.contains(&address)));
        let expected = first.is_some_and(|(_, allows)| *allows);
        assert_eq!(networks.contains(address), expected, "{address}");
        assert_eq!(networks.networks().iter().any(|net| net.contains(&address)), expected, "{address}");
    }
});
