use std::{fs, path::Path, time::Duration};

use super::{config, problems};
use crate::config::{CacheBackend, HostPort, Redis, RedisServers, RedisTls, Secret};

fn redis(text: &str) -> Box<Redis> {
    match config(&format!("cache.backend = \"redis\"\n{text}")).cache.backend {
        CacheBackend::Redis(redis) => redis,
        other => panic!("{other:?}"),
    }
}

#[test]
fn where_hosts_meet() {
    let one = redis("cache.redis.urls = [\"redis://192.0.2.5/2\"]");
    let server = |host: &str, port| HostPort { host: host.to_owned(), port };
    assert_eq!((one.servers, one.database, one.tls), (RedisServers::One(server("192.0.2.5", 6379)), 2, None));
    assert_eq!((one.prefix.as_str(), one.lookup_timeout), ("mxscreen", Duration::from_millis(20)));
    let cluster = redis("cache.redis.urls = [\"rediss://a:1\", \"rediss://b:2\"]");
    assert_eq!(cluster.servers, RedisServers::Cluster(vec![server("a", 1), server("b", 2)]));
    assert_eq!(cluster.tls, Some(RedisTls { authority: None, own: None }));
    let sentinels = redis("cache.redis.urls = [\"redis+sentinel://a,b:1/main\"]");
    let expected =
        RedisServers::Sentinel { sentinels: vec![server("a", 26_379), server("b", 1)], master: "main".into() };
    assert_eq!(sentinels.servers, expected);
    assert_eq!(config("hostname = \"mx.example.test\"").cache.host, "mx.example.test");
    assert_eq!(config("cache.redis.host = \"mx1\"").cache.host, "mx1");
}

#[test]
fn passwords_come_from_files_and_are_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (word, empty) = (folder.path().join("word"), folder.path().join("empty"));
    fs::write(&word, "s3cret\nmore\n").unwrap();
    fs::write(&empty, "\n").unwrap();
    let url = "cache.redis.urls = [\"redis://gate@192.0.2.5\"]\n";
    let with = |path: &Path| format!("{url}cache.redis.password_file = \"{}\"", path.display());
    let known = redis(&with(&word));
    assert_eq!((known.user.as_deref(), known.password.as_ref().map(Secret::expose)), (Some("gate"), Some("s3cret")));
    assert!(!format!("{known:?}").contains("s3cret"));

    let backend = "cache.backend = \"redis\"\n";
    let said = |text: &str| problems(&format!("{backend}{text}")).join("\n");
    assert!(said(&with(&empty)).contains("holds no password"));
    assert!(said(&with(&folder.path().join("none"))).contains("can't read"));
    assert!(said(&format!("{url}cache.redis.password_file = \"credential:redis\"")).contains("CREDENTIALS_DIRECTORY"));
}

#[test]
fn what_fits_no_redis_is_said() {
    for (text, expected) in [
        ("", "cache.redis.urls: names no server"),
        ("cache.redis.urls = [\"http://u:s3cret@x\"]", "is not redis://"),
        (
            "cache.redis.urls = [\"redis://u:s3cret@x\", \"redis://u:other@y\"]",
            "differ in TLS, user, password or database",
        ),
        ("cache.redis.urls = [\"redis://x/1\", \"redis://y/1\"]", "a cluster has database 0 only"),
        ("cache.redis.urls = [\"redis+sentinel://x/m\", \"redis+sentinel://y/m\"]", "all hosts in one URL"),
        ("cache.redis.urls = [\"redis://x\"]\ncache.redis.prefix = \"a{b\"", "must be 1 to 64 letters"),
        ("cache.redis.urls = [\"redis://x\"]\ncache.redis.ca_file = \"/etc/hosts\"", "is for encrypted connections"),
        ("cache.redis.urls = [\"rediss://x\"]\ncache.redis.key = \"/etc/hosts\"", "a key needs its certificate"),
    ] {
        let found = problems(&format!("cache.backend = \"redis\"\n{text}")).join("\n");
        assert!(found.contains(expected), "{text}: {found}");
        assert!(!found.contains("s3cret"), "{found}");
    }
}
