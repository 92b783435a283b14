//! `cache.*`.

use std::path::Path;

use super::{INSTANT, SECOND};
use crate::config::{
    Cache, CacheBackend, Redis, RedisServers, RedisTls, Secret,
    document::Value,
    redis::Url,
    values::{Fault, Values, mismatch},
};

/// Where names of servers may stand.
const HOSTS: &str = "/etc/hosts";

/// The kinds of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    Embedded,
    Memory,
    /// Results are not even remembered.
    None,
    Redis,
}

/// The kind of store that is wanted.
pub(super) fn backend(values: &mut Values<'_>) -> Backend {
    let words = [
        ("embedded", Backend::Embedded),
        ("memory", Backend::Memory),
        ("none", Backend::None),
        ("redis", Backend::Redis),
    ];
    values.word("cache.backend", &words, Backend::Embedded)
}

/// Where results are kept.
pub(super) fn cache(values: &mut Values<'_>, backend: Backend, hostname: &str) -> Cache {
    let host = values.filled_text("cache.redis.host").unwrap_or_else(|| hostname.to_owned());
    let backend = match backend {
        Backend::Embedded => CacheBackend::Embedded,
        Backend::Memory | Backend::None => CacheBackend::Memory,
        // After a problem that was noted there is no configuration.
        Backend::Redis => redis(values).map_or(CacheBackend::Memory, |redis| CacheBackend::Redis(Box::new(redis))),
    };
    Cache { backend, retention: values.duration("cache.retention", SECOND), host }
}

fn redis(values: &mut Values<'_>) -> Option<Redis> {
    let urls = values.list("cache.redis.urls", |value| match value {
        // The value itself may hold a password, and is not repeated.
        Value::Text(text) => Url::parse(text).map_err(Fault::new),
        _ => Err(mismatch("a list of URLs", value)),
    });
    if urls.is_empty() {
        values.fault("cache.redis.urls", Fault::new("names no server").hint("write [\"redis://192.0.2.5:6379\"]"));
        return None;
    }
    let first = urls.first()?;
    let alike = |url: &Url| {
        (url.encrypted, &url.user, &url.password, url.database)
            == (first.encrypted, &first.user, &first.password, first.database)
    };
    if !urls.iter().all(alike) {
        let fault = Fault::new("URLs of one cluster differ in TLS, user, password or database");
        values.fault("cache.redis.urls", fault);
    }
    let (encrypted, database) = (first.encrypted, first.database.unwrap_or(0));
    let (url_user, url_password) = (first.user.clone(), first.password.clone());
    let servers = match (urls.iter().find_map(|url| url.master.clone()), urls.len()) {
        (Some(master), 1) => {
            RedisServers::Sentinel { sentinels: urls.into_iter().flat_map(|url| url.hosts).collect(), master }
        }
        (Some(_), _) => {
            let fault = Fault::new("several URLs with sentinels");
            values
                .fault("cache.redis.urls", fault.hint("write redis+sentinel://HOST,HOST/MASTER, all hosts in one URL"));
            return None;
        }
        (None, 1) => RedisServers::One(urls.into_iter().flat_map(|url| url.hosts).next()?),
        (None, _) => {
            if database != 0 {
                values.fault("cache.redis.urls", Fault::new("a cluster has database 0 only"));
            }
            RedisServers::Cluster(urls.into_iter().flat_map(|url| url.hosts).collect())
        }
    };
    let user = values.is_given("cache.redis.user").then(|| values.filled_text("cache.redis.user")).flatten();
    let password = file(values, "cache.redis.password_file").and_then(|bytes| one_line(values, &bytes));
    Some(Redis {
        servers,
        database,
        tls: tls(values, encrypted),
        user: user.or(url_user),
        password: password.or(url_password),
        prefix: prefix(values),
        lookup_timeout: values.duration("cache.redis.lookup_timeout", INSTANT),
        hosts_file: values.host.read(Path::new(HOSTS)).unwrap_or_default(),
    })
}

fn tls(values: &mut Values<'_>, encrypted: bool) -> Option<RedisTls> {
    let authority = file(values, "cache.redis.ca_file");
    let certificate = file(values, "cache.redis.certificate");
    let key = file(values, "cache.redis.key");
    let own = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, Secret::new(String::from_utf8_lossy(&key).into_owned()))),
        (None, None) => None,
        (Some(_), None) => {
            values.fault(
                "cache.redis.certificate",
                Fault::new("a certificate needs its key").hint("set \"cache.redis.key\""),
            );
            None
        }
        (None, Some(_)) => {
            values.fault(
                "cache.redis.key",
                Fault::new("a key needs its certificate").hint("set \"cache.redis.certificate\""),
            );
            None
        }
    };
    if !encrypted {
        for key in ["cache.redis.ca_file", "cache.redis.certificate", "cache.redis.key"] {
            if values.is_given(key) {
                values.fault(
                    key,
                    Fault::new("is for encrypted connections").hint("write rediss:// in \"cache.redis.urls\""),
                );
            }
        }
    }
    encrypted.then_some(RedisTls { authority, own })
}

/// The contents of a file, or of a credential.
fn file(values: &mut Values<'_>, key: &str) -> Option<Vec<u8>> {
    if !values.is_given(key) {
        return None;
    }
    let path = values.filled_text(key)?;
    let read = values.host.read(Path::new(&path));
    read.map_err(|error| values.fault(key, Fault::new(format!("can't read {path}: {error}")))).ok()
}

/// A password is what stands on the first line.
fn one_line(values: &mut Values<'_>, bytes: &[u8]) -> Option<Secret> {
    let text = str::from_utf8(bytes).ok().map(|text| text.lines().next().unwrap_or_default());
    match text {
        Some(line) if !line.is_empty() => Some(Secret::new(line.to_owned())),
        _ => {
            values.fault("cache.redis.password_file", Fault::new("holds no password: one line of text"));
            None
        }
    }
}

/// Keys are searched by patterns and spread by hash tags: the prefix must not look like either.
fn prefix(values: &mut Values<'_>) -> String {
    values
        .read("cache.redis.prefix", |value| match value {
            Value::Text(text)
                if (1..=64).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte)) =>
            {
                Ok(text.clone())
            }
            Value::Text(_) => Err(Fault::new("must be 1 to 64 letters, digits, \".\", \"_\", \":\" and \"-\"")),
            _ => Err(mismatch("a text", value)),
        })
        .unwrap_or_default()
}
