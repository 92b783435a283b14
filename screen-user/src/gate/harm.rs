//! Lists that are a mistake more often than a wish: they would deny this host, its mail servers, or a good part of the world.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::{
    access::blocklist::Addresses,
    config::{Backend, Config},
};

/// What harm a list of these addresses would do, if any: what follows "it".
pub(super) fn of(config: &Config, addresses: &Addresses) -> Option<String> {
    if addresses.is_empty() {
        return Some("is empty".to_owned());
    }
    let interfaces = interfaces();
    let own = interfaces.iter().flat_map(|(address, net)| own_networks(*address, *net));
    let mut protected = mail_servers(config).chain(own);
    if let Some((net, whose)) = protected.find(|(net, _)| addresses.touches(*net)) {
        return Some(format!("would deny {net}, {whose}"));
    }
    let percent = addresses.share() * 100.0;
    let most = config.blocklists.max_share;
    (percent > f64::from(most))
        .then(|| format!("would deny {percent:.1} % of an address space (more than blocklists.max_share, {most} %)"))
}

/// Every mail server that the configuration names.
fn mail_servers(config: &Config) -> impl Iterator<Item = (IpNet, &'static str)> + '_ {
    let forward = &config.forward;
    let named = forward.to.iter().filter_map(|backend| match backend {
        Backend::At(address) => Some(address.ip()),
        Backend::Local | Backend::Socket(_) => None,
    });
    let others = [forward.replay_to, forward.steer_to].into_iter().flatten().map(|address| address.ip());
    named
        .chain(others)
        .map(|address| address.to_canonical())
        .filter(|address| !address.is_unspecified())
        .map(|address| (address.into(), "a mail server of this gate"))
}

/// The addresses of this host's interfaces, each with the network around it where that is known.
fn interfaces() -> Vec<(IpAddr, Option<IpNet>)> {
    let ip = |address: &nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|own| IpAddr::V4(own.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|own| IpAddr::V6(own.ip())))
    };
    let found = nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = ip(interface.address.as_ref()?)?;
        let mask = interface.netmask.as_ref().and_then(ip);
        Some((address, mask.and_then(|mask| IpNet::with_netmask(address, mask).ok())))
    });
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].map(|address| (address, None));
    loopback.into_iter().chain(found).collect()
}

/// What of an interface is this host's own: its address, and the network around it where that is private. The neighbours in a public one
/// are strangers, who may well be listed.
fn own_networks(address: IpAddr, net: Option<IpNet>) -> impl Iterator<Item = (IpNet, &'static str)> {
    let private = match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    };
    let around = net.filter(|_| private).map(|net| (net.trunc(), "a private network that this host is in"));
    let own = (!address.is_unspecified()).then(|| (IpNet::from(address), "this host's own address"));
    own.into_iter().chain(around)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(address: &str, net: &str) -> Vec<String> {
        own_networks(address.parse().unwrap(), net.parse().ok()).map(|(net, _)| net.to_string()).collect()
    }

    #[test]
    fn neighbours_are_ours_in_private_networks_alone() {
        assert_eq!(networks("10.1.2.3", "10.1.2.3/24"), ["10.1.2.3/32", "10.1.2.0/24"]);
        assert_eq!(networks("fd00::3", "fd00::3/64"), ["fd00::3/128", "fd00::/64"]);
        assert_eq!(networks("192.0.2.3", "192.0.2.3/24"), ["192.0.2.3/32"]);
        assert_eq!(networks("2001:db8::3", "2001:db8::3/64"), ["2001:db8::3/128"]);
        assert_eq!(networks("10.1.2.3", ""), ["10.1.2.3/32"], "a point-to-point interface");
    }

    #[test]
    fn this_host_is_found_and_so_is_the_share() {
        let config = |most: u8| {
            let text = format!("blocklists.max_share = {most}\nlayout = \"front\"\nforward.to = [\"192.0.2.25:25\"]");
            crate::config::load_text(&text, std::path::Path::new("x.toml"), &[]).unwrap().config
        };
        let list = |net: &str| [net.parse::<IpNet>().unwrap()].into_iter().collect::<Addresses>();
        let harm = |most, net: &str| of(&config(most), &list(net)).unwrap_or_default();
        assert!(harm(5, "127.0.0.0/8").contains("127.0.0.1/32, this host's own"), "{}", harm(5, "127.0.0.0/8"));
        assert!(harm(5, "192.0.2.0/24").contains("192.0.2.25/32, a mail server"));
        assert!(harm(5, "224.0.0.0/4").contains("6.2 % of an address space (more than blocklists.max_share, 5 %)"));
        assert_eq!(harm(7, "224.0.0.0/4"), "");
        assert!(of(&config(5), &Addresses::default()).unwrap().contains("is empty"));
    }
}
