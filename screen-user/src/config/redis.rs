//! `cache.redis`: where hosts share what they know.

use std::{fmt, time::Duration};

/// Where hosts share what they know (`cache.redis`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// Which servers.
    pub servers: RedisServers,
    /// The number of the database; a cluster has only 0.
    pub database: i64,
    /// Whether connections are encrypted, and how.
    pub tls: Option<RedisTls>,
    /// The user by whose ACL commands are permitted; without it, Redis's default user.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// What names of keys begin with.
    pub prefix: String,
    /// The longest that a new client waits for what others know of it.
    pub lookup_timeout: Duration,
    /// The system's hosts file, for names of servers.
    pub hosts_file: Vec<u8>,
}

/// How the servers are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisServers {
    /// One.
    One(HostPort),
    /// Some nodes of a cluster.
    Cluster(Vec<HostPort>),
    /// Those that sentinels name.
    Sentinel {
        /// The sentinels, in the order in which they are asked.
        sentinels: Vec<HostPort>,
        /// What they call the master.
        master: String,
    },
}

/// How connections to Redis are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisTls {
    /// Who signs the servers' certificates, PEM; without it, the usual authorities of the web.
    pub authority: Option<Vec<u8>>,
    /// Certificate chain and key of this host, PEM, where servers ask for one.
    pub own: Option<(Vec<u8>, Secret)>,
}

/// A host's name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// The name or the address; IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for those who need it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The port of a server, and of a sentinel.
const PORTS: [u16; 2] = [6379, 26_379];

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// The servers, or the sentinels.
    pub(super) hosts: Vec<HostPort>,
    /// What sentinels call the master, if these are sentinels.
    pub(super) master: Option<String>,
    /// The number of the database.
    pub(super) database: Option<i64>,
    pub(super) encrypted: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
}

impl Url {
    /// Reads `redis://USER:PASSWORD@HOST:PORT/DATABASE` and `redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DATABASE`, with `rediss` for TLS.
    ///
    /// # Errors
    /// It is neither. What is said of it never holds the password.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("is no URL, such as redis://192.0.2.5:6379/0")?;
        let (encrypted, sentinel) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis+sentinel" => (false, true),
            "rediss+sentinel" => (true, true),
            _ => {
                return Err(format!("{scheme}:// is not redis://, rediss://, redis+sentinel:// or rediss+sentinel://"));
            }
        };
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match place.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, place),
        };
        let (user, password) = match credentials.map(|both| both.split_once(':').unwrap_or((both, ""))) {
            Some((user, password)) => (
                Some(user.to_owned()).filter(|user| !user.is_empty()),
                Some(Secret::new(password.to_owned())).filter(|password| !password.expose().is_empty()),
            ),
            None => (None, None),
        };
        let [server, sentinels] = PORTS;
        let port = if sentinel { sentinels } else { server };
        let hosts = hosts.split(',').map(|host| host_port(host, port)).collect::<Result<Vec<_>, _>>()?;
        let (master, database) = match (sentinel, path.split_once('/').unwrap_or((path, ""))) {
            (true, ("", _)) => return Err("names no master: redis+sentinel://HOST/MASTER".to_owned()),
            (true, (master, database)) => (Some(master.to_owned()), database),
            (false, (_, rest)) if !rest.is_empty() => return Err("has more than a database after the host".to_owned()),
            (false, (database, _)) if hosts.len() == 1 => (None, database),
            (false, _) => return Err("has several hosts: give one URL each".to_owned()),
        };
        let database = match database {
            "" => None,
            number => Some(number.parse().ok().filter(|number| *number >= 0).ok_or("names no database by its number")?),
        };
        Ok(Self { hosts, master, database, encrypted, user, password })
    }
}

fn host_port(text: &str, default: u16) -> Result<HostPort, String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or("has something after a host that is no port")?)),
        None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(default), str::parse);
    match port {
        Ok(port) if !host.is_empty() && port > 0 => Ok(HostPort { host: host.to_owned(), port }),
        _ => Err("has a host or a port that is none".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn hosts(text: &str) -> Vec<String> {
        parse(text).hosts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn urls_of_servers_and_of_sentinels() {
        assert_eq!(hosts("redis://192.0.2.5"), ["192.0.2.5:6379"]);
        assert_eq!(hosts("redis://[2001:db8::5]:7000/3"), ["[2001:db8::5]:7000"]);
        assert_eq!(parse("redis://redis.example.test/3").database, Some(3));
        let secret = parse("rediss://gate:a:b@c@redis");
        assert_eq!((secret.encrypted, secret.user.as_deref()), (true, Some("gate")));
        assert_eq!(secret.password, Some(Secret::new("a:b@c".to_owned())));
        assert!(!format!("{secret:?}").contains("a:b"), "it is never shown");
        assert_eq!(parse("redis://:word@redis").user, None);
        let sentinels = parse("redis+sentinel://a,b:1,[::1]/mymaster/2");
        assert_eq!(
            sentinels.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["a:26379", "b:1", "[::1]:26379"]
        );
        assert_eq!((sentinels.master.as_deref(), sentinels.database), (Some("mymaster"), Some(2)));
    }

    #[test]
    fn what_is_no_url_is_refused_without_its_password() {
        for bad in [
            "192.0.2.5",
            "http://secret@x",
            "redis://",
            "redis://:secret@",
            "redis://u:secret@x:0",
            "redis://u:secret@x:y",
            "redis://u:secret@[::1]7",
            "redis://u:secret@x/one",
            "redis://u:secret@x/-1",
            "redis://u:secret@x/1/2",
            "redis://u:secret@x,y",
            "redis+sentinel://u:secret@x",
        ] {
            let error = Url::parse(bad).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
