//! The addresses of a host by its name, without a file: the screener has none.

use std::net::IpAddr;

use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::{Failure, query::Resolver};
use crate::config;

/// Most addresses of a name.
const MOST: usize = 32;

/// Finds the addresses of names.
#[derive(Debug)]
pub struct Names {
    /// What the hosts file says: addresses with their names.
    hosts: Vec<(IpAddr, Vec<String>)>,
    /// `None` if there is no resolver: the hosts file has to do.
    resolver: Option<Resolver>,
}

impl Names {
    /// By the bytes of a hosts file (hosts(5)) first, then by the recursors of `resolver`. Must be called in a tokio runtime.
    #[must_use]
    pub fn new(hosts: &[u8], resolver: &config::Resolver) -> Self {
        let text = String::from_utf8_lossy(hosts);
        let hosts = text.lines().filter_map(|line| {
            let mut words = line.split('#').next()?.split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            Some((address, words.map(str::to_owned).collect()))
        });
        Self { hosts: hosts.collect(), resolver: Resolver::new(resolver, true).ok() }
    }

    /// The addresses of `name`, which may be an address itself.
    ///
    /// # Errors
    /// There is none, or nobody could say.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, NameError> {
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        let named = |names: &Vec<String>| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        let mut found: Vec<IpAddr> =
            self.hosts.iter().filter(|(_, names)| named(names)).map(|(address, _)| *address).collect();
        if found.is_empty() {
            found = self.ask(name).await?;
        }
        found.truncate(MOST);
        if found.is_empty() { Err(NameError::None(name.to_owned())) } else { Ok(found) }
    }

    async fn ask(&self, name: &str) -> Result<Vec<IpAddr>, NameError> {
        let resolver = self.resolver.as_ref().ok_or_else(|| NameError::NoResolver(name.to_owned()))?;
        let full = Name::from_ascii(format!("{}.", name.trim_end_matches('.')));
        let full = full.map_err(|_| NameError::None(name.to_owned()))?;
        let failed = |failure| NameError::Failed(name.to_owned(), failure);
        let (v4, v6) =
            tokio::join!(resolver.records(full.clone(), RecordType::A), resolver.records(full, RecordType::AAAA));
        // One family is enough, but not if the other may be the one that counts.
        let (v4, v6) = (v4.map_err(failed)?, v6.map_err(failed)?);
        let address = |data: &RData| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        Ok(v4.data.iter().chain(&v6.data).filter_map(address).collect())
    }
}

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has none.
    #[error("{0} has no address")]
    None(String),
    /// Nobody can be asked.
    #[error("{0} is not in the hosts file, and there is no resolver")]
    NoResolver(String),
    /// Nobody answered.
    #[error("{0}: {1}")]
    Failed(String, Failure),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn names(hosts: &str) -> Names {
        let nobody = config::Resolver { servers: Vec::new(), system: Vec::new(), timeout: Duration::from_secs(1) };
        Names::new(hosts.as_bytes(), &nobody)
    }

    #[tokio::test]
    async fn addresses_and_the_hosts_file_need_no_resolver() {
        let names = names("# comment\n192.0.2.5 Redis.example.test redis # more\n2001:db8::5 redis\nnonsense\n");
        let found = async |name: &str| names.addresses(name).await.unwrap();
        assert_eq!(found("192.0.2.9").await, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(found("[2001:db8::9]").await, ["2001:db8::9".parse::<IpAddr>().unwrap()]);
        assert_eq!(found("redis").await, ["192.0.2.5", "2001:db8::5"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!(found("redis.EXAMPLE.test").await.len(), 1);
        assert_eq!(names.addresses("other").await, Err(NameError::NoResolver("other".to_owned())));
    }
}
