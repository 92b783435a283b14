//! The proxies: sources whose connections begin with a PROXY header, so that their address is no client's.

use std::collections::BTreeSet;

use aya::maps::{LpmTrie, MapData};
use ipnet::IpNet;
use screen_common::{
    abi::{PROXY_ENTRIES, Proxy, map},
    address::IpKey,
};

use super::{
    KernelError,
    lists::{gone, lpm_key},
    prefix::{ALL_IPV4, Prefix},
};

/// The set of proxies and its map.
pub(super) struct Proxies {
    known: BTreeSet<Prefix>,
    map: LpmTrie<MapData, IpKey, Proxy>,
}

impl Proxies {
    pub(super) fn new(map: LpmTrie<MapData, IpKey, Proxy>) -> Result<Self, KernelError> {
        let mut proxies = Self { known: BTreeSet::new(), map };
        proxies.write(ALL_IPV4, 0)?;
        Ok(proxies)
    }

    /// Makes `nets` all the proxies there are. New ones are in before old ones are out: a proxy that stays under another prefix
    /// is one all the time.
    pub(super) fn replace(&mut self, nets: &[IpNet]) -> Result<(), KernelError> {
        let wanted: BTreeSet<Prefix> = nets.iter().map(|net| Prefix::from(*net)).collect();
        // One is taken by the wall between the families, and for a moment the old ones and the new ones stand side by side.
        if self.known.union(&wanted).count() > PROXY_ENTRIES - 1 {
            return Err(KernelError::Full { table: map::PROXIES, capacity: PROXY_ENTRIES });
        }
        for prefix in &wanted {
            self.write(*prefix, 1)?;
            self.known.insert(*prefix);
        }
        let old: Vec<Prefix> = self.known.difference(&wanted).copied().collect();
        for prefix in old {
            if prefix == ALL_IPV4 {
                self.write(prefix, 0)?;
            } else {
                gone(self.map.remove(&lpm_key(prefix))).map_err(KernelError::map(map::PROXIES))?;
            }
            self.known.remove(&prefix);
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// What an operator should know: that whole families of clients are judged by nobody in the kernel.
    pub(super) fn note(&self) -> Option<String> {
        note(&self.known)
    }

    fn write(&mut self, prefix: Prefix, header: u32) -> Result<(), KernelError> {
        self.map.insert(&lpm_key(prefix), Proxy { header }, 0).map_err(KernelError::map(map::PROXIES))
    }
}

fn note(proxies: &BTreeSet<Prefix>) -> Option<String> {
    let nets = IpNet::aggregate(&proxies.iter().map(|prefix| IpNet::from(*prefix)).collect());
    let whole = |ipv4: bool| nets.iter().any(|net| net.prefix_len() == 0 && net.addr().is_ipv4() == ipv4);
    let (who, whom) = match (whole(true), whole(false)) {
        (true, true) => ("everybody", "nobody"),
        (true, false) => ("all of IPv4", "no IPv4 client"),
        (false, true) => ("all of IPv6", "no IPv6 client"),
        (false, false) => return None,
    };
    Some(format!("proxy_protocol.from covers {who}: the kernel judges {whom}, the screener decides"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note_of(nets: &[&str]) -> Option<String> {
        note(&nets.iter().map(|net| Prefix::from(net.parse::<IpNet>().unwrap())).collect())
    }

    #[test]
    fn whole_families_are_named_however_they_are_put_together() {
        assert_eq!(note_of(&[]), None);
        assert_eq!(note_of(&["192.0.2.7/32", "2001:db8::/32", "128.0.0.0/1"]), None);
        assert!(note_of(&["0.0.0.0/1", "128.0.0.0/1"]).unwrap().contains("no IPv4 client"));
        assert!(note_of(&["::/0", "192.0.2.7/32"]).unwrap().contains("no IPv6 client"));
        assert!(note_of(&["0.0.0.0/0", "::/0"]).unwrap().contains("judges nobody"));
    }
}
