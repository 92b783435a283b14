//! Whom DNSBL zones are asked through.

use std::net::IpAddr;

use super::finding::{Finding, Grade};
use crate::{config::Config, dns};

/// Recursors that everybody may use. DNSBL operators can't tell their users apart, and turn them away.
const PUBLIC: [(&str, &[&str]); 4] = [
    ("Google", &["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"]),
    ("Cloudflare", &["1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"]),
    ("Quad9", &["9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"]),
    ("OpenDNS", &["208.67.222.222", "208.67.220.220", "2620:119:35::35", "2620:119:53::53"]),
];
/// Where systemd-resolved listens; it asks others.
const STUBS: [&str; 2] = ["127.0.0.53", "127.0.0.54"];

/// Who is asked, if anybody.
#[derive(Debug)]
pub(super) enum Recursors {
    /// No zone is configured.
    Unneeded,
    /// Why there are none.
    Missing(String),
    /// These, in order.
    Asked(Vec<IpAddr>),
}

impl Recursors {
    pub(super) fn read(config: &Config) -> Self {
        if config.policy.dnsbl.sites.zones().is_empty() {
            return Self::Unneeded;
        }
        dns::recursors(&config.resolver).map_or_else(|error| Self::Missing(error.to_string()), Self::Asked)
    }
}

const fn finding(grade: Grade, what: String, mend: Option<String>) -> Finding {
    Finding { subject: "resolver", grade, what, mend }
}

pub(super) fn judge(recursors: &Recursors) -> Vec<Finding> {
    match recursors {
        Recursors::Unneeded => vec![finding(Grade::Fine, "no DNSBL zone is configured".to_owned(), None)],
        Recursors::Missing(why) => vec![finding(Grade::Wrong, why.clone(), Some(own()))],
        Recursors::Asked(addresses) => addresses.iter().map(|address| one(address.to_canonical())).collect(),
    }
}

/// The line that has zones asked through a recursor of this host.
pub(super) fn own() -> String {
    "apt-get install unbound, and in the configuration dnsbl.resolvers = [\"127.0.0.1:53\"]".to_owned()
}

fn one(address: IpAddr) -> Finding {
    let text = address.to_string();
    if let Some((operator, _)) = PUBLIC.iter().find(|(_, addresses)| addresses.contains(&text.as_str())) {
        let what = format!("{text} is a public resolver ({operator}): DNSBL zones don't answer those truly");
        return finding(Grade::Wrong, what, Some(own()));
    }
    if STUBS.contains(&text.as_str()) {
        let what = format!("{text} is systemd-resolved, which asks others: none of them may be a public resolver");
        return finding(Grade::Note, what, Some("resolvectl dns".to_owned()));
    }
    finding(Grade::Fine, format!("{text} is none of the known public resolvers"), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grade(address: &str) -> Grade {
        let [finding] = judge(&Recursors::Asked(vec![address.parse().unwrap()])).try_into().unwrap();
        assert_eq!(finding.mend.is_none(), finding.grade == Grade::Fine, "{finding:?}");
        finding.grade
    }

    #[test]
    fn public_resolvers_are_wrong_in_any_notation() {
        for address in PUBLIC.iter().flat_map(|(_, addresses)| *addresses) {
            // The table is compared as text: it has to be written as addresses are printed.
            assert_eq!(address.parse::<IpAddr>().unwrap().to_string(), *address);
            assert_eq!(grade(address), Grade::Wrong, "{address}");
        }
        assert_eq!(grade("::ffff:8.8.8.8"), Grade::Wrong);
        assert_eq!(grade("2001:4860:4860:0::8888"), Grade::Wrong);
    }

    #[test]
    fn others_are_fine_and_a_stub_is_a_note() {
        assert_eq!(grade("127.0.0.1"), Grade::Fine);
        assert_eq!(grade("192.0.2.53"), Grade::Fine);
        assert_eq!(grade("127.0.0.53"), Grade::Note);
    }

    #[test]
    fn a_resolver_is_needed_for_zones_only() {
        assert_eq!(judge(&Recursors::Unneeded)[0].grade, Grade::Fine);
        assert_eq!(judge(&Recursors::Missing("there is none".into()))[0].grade, Grade::Wrong);
    }
}
