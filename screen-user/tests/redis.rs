//! Registers in a real Redis: the script does what `Item` does, announcements are heard in order, and what was missed is noticed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, with a message that says what went wrong"
)]

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use proptest::prelude::*;
use screen_user::{
    config::{self, HostPort, RedisServers},
    dns::Names,
    share::{
        Announced, Cell, Fault, Item, Key, Merged, News, Places, Registers as _, Version,
        redis::{RedisRegisters, Servers},
    },
};
use tempfile::TempDir;

/// A server of this test alone.
struct Redis {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Redis {
    fn start(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Somebody else may take the port before the server does; it ends then, and another one is tried.
        for _ in 0..10 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let mut process = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
                .args(["--dir", directory.path().to_str().unwrap()])
                .args(options)
                .stdout(fs::File::create(directory.path().join("log")).unwrap())
                .stderr(Stdio::inherit())
                .spawn()
                .expect("redis-server, which `cargo xtask setup` installs");
            let deadline = Instant::now() + Duration::from_secs(20);
            while process.try_wait().unwrap().is_none() {
                assert!(Instant::now() < deadline, "redis-server does not answer");
                if std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                    return Self { process, port, _directory: directory };
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        panic!("redis-server does not start");
    }

    fn registers(&self) -> RedisRegisters {
        let config = config::Redis {
            servers: RedisServers::One(HostPort { host: "127.0.0.1".to_owned(), port: self.port }),
            database: 0,
            tls: None,
            user: None,
            password: None,
            prefix: "test:it".to_owned(),
            lookup_timeout: Duration::from_millis(20),
            hosts_file: Vec::new(),
        };
        let nobody = config::Resolver { servers: Vec::new(), system: Vec::new(), timeout: Duration::from_secs(1) };
        let servers = Arc::new(Servers::new(config.clone(), Names::new(b"", &nobody)));
        RedisRegisters::lanes(&config, &servers).pop().unwrap()
    }

    /// Says something to the server by hand.
    fn cli(&self, words: &[&str]) -> String {
        let said = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(words).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn key(number: u8) -> Key {
    Key::Forget(std::net::IpAddr::from([192, 0, 2, number]).into())
}

fn item(host: &str, version: u64, payload: &[u8]) -> Item {
    Item::of_one(host, Version(version), 0, payload.to_vec())
}

/// Everything that was announced since `places`, and where the next news start.
async fn all_news(registers: &RedisRegisters, mut places: Places) -> (Vec<Announced>, Places) {
    let mut all = Vec::new();
    loop {
        match registers.news(&places).await.unwrap() {
            News::Heard(heard, _) if heard.is_empty() => return (all, places),
            News::Heard(heard, next) => {
                all.extend(heard);
                places = next;
            }
            News::Gap => panic!("a gap"),
        }
    }
}

/// Tries once more what failed.
async fn twice<T>(work: impl AsyncFn() -> Result<T, Fault>) -> T {
    match work().await {
        Ok(done) => done,
        Err(_) => work().await.unwrap(),
    }
}

fn cell() -> impl Strategy<Value = Cell> {
    // Versions that differ in the upper half, in the lower, and beyond what a float holds; none of them is from the future.
    let version = prop::sample::select(vec![0, 1, u64::from(u32::MAX), 1 << 32, 1 << 56, (1 << 56) + 1]);
    let expires = prop::sample::select(vec![0, 4_000_000_000_u64, 4_000_000_001]);
    let payload = prop::sample::select(vec![&b""[..], b"\0", b"a", b"\xff", b"\xff\0", b"a\r\n"]);
    (0..4_u8, version, expires, payload).prop_map(|(index, version, expires, payload)| Cell {
        index,
        version: Version(version),
        expires,
        payload: payload.to_vec(),
    })
}

fn state() -> impl Strategy<Value = Item> {
    ("[ab]{0,3}", prop::collection::vec(cell(), 1..4)).prop_map(|(host, mut cells)| {
        cells.sort_by_key(|cell| cell.index);
        cells.dedup_by_key(|cell| cell.index);
        Item { host: host.into(), cells }
    })
}

#[test]
fn the_script_merges_as_an_item_does() {
    let redis = Redis::start(&[]);
    let registers = redis.registers();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let number = std::cell::Cell::new(0_u32);
    proptest!(ProptestConfig::with_cases(200), |(states in prop::collection::vec(state(), 1..6))| {
        number.set(number.get() + 1);
        let key = Key::Forget(std::net::IpAddr::from(number.get().to_be_bytes()).into());
        let mut expected = Item::default();
        for (place, state) in states.iter().enumerate() {
            // A register that is not there takes the first state whole, whatever its versions.
            let changes = if place == 0 { expected = state.clone(); true } else { expected.merge(state) };
            let merged = runtime.block_on(registers.merge(&[(key.clone(), state.clone())])).unwrap();
            prop_assert_eq!(merged, [if changes { Merged::Changed } else { Merged::Known }]);
        }
        let kept = runtime.block_on(registers.fetch(std::slice::from_ref(&key))).unwrap();
        prop_assert_eq!(kept, [Some(expected.clone())]);
        let ttl = redis.cli(&["EXPIRETIME", &format!("test:it:{{{}}}:{key}", key.shard())]);
        let expires = if expected.expires() == 0 { -1 } else { i64::try_from(expected.expires()).unwrap() };
        prop_assert_eq!(ttl, expires.to_string());
    });
}

#[tokio::test]
async fn changes_are_announced_in_order_and_nothing_else_is() {
    let redis = Redis::start(&[]);
    let (teller, hearer) = (redis.registers(), redis.registers());
    let begin = hearer.ends().await.unwrap();
    assert_eq!(begin.len(), 16);
    assert_eq!(hearer.ends().await.unwrap(), begin, "the marks are made once");

    let long = item("a", 9, &[7; 5000]);
    let told: Vec<(Key, Item)> = (0..40).map(|number| (key(number), item("a", 3, &[number]))).collect();
    assert_eq!(teller.merge(&told).await.unwrap(), [Merged::Changed; 40]);
    assert_eq!(teller.merge(&told).await.unwrap(), [Merged::Known; 40]);
    assert_eq!(
        teller.merge(&[(key(0), item("b", 4, b"x")), (key(1), item("b", 2, b"x"))]).await.unwrap(),
        [Merged::Changed, Merged::Known]
    );
    assert_eq!(teller.merge(&[(key(0), long.clone())]).await.unwrap(), [Merged::Changed]);

    let (mut heard, places) = all_news(&hearer, begin).await;
    let of_first: Vec<_> = heard.iter().filter(|one| one.key == key(0)).map(|one| one.item.clone()).collect();
    assert_eq!(of_first, [Some(item("a", 3, &[0])), Some(item("b", 4, b"x")), None], "the last one is too long");
    assert_eq!(hearer.fetch(&[key(0), key(200)]).await.unwrap(), [Some(long), None]);
    heard.retain(|one| one.key != key(0));
    heard.sort_by_key(|one| one.key.clone());
    let rest: Vec<Announced> =
        told.into_iter().skip(1).map(|(key, item)| Announced { key, item: Some(item) }).collect();
    assert_eq!(heard, rest);
    assert_eq!(hearer.ends().await.unwrap(), places);

    let mut found = Vec::new();
    let mut from = None;
    loop {
        let page = hearer.keys(from.as_deref()).await.unwrap();
        found.extend(page.keys);
        match page.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    found.sort();
    found.dedup();
    assert_eq!(found, (0..40).map(key).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_comes_from_a_clock_far_ahead_is_not_taken() {
    let redis = Redis::start(&[]);
    let registers = redis.registers();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let from = |ahead: Duration| item("a", Version::at(u64::try_from(now + ahead.as_millis()).unwrap()).0, b"");
    registers.ends().await.unwrap();
    let (hour, two_days) = (from(Duration::from_hours(1)), from(Duration::from_hours(48)));
    let told = [(key(1), hour.clone()), (key(1), two_days.clone()), (key(2), two_days)];
    assert_eq!(registers.merge(&told).await.unwrap(), [Merged::Changed, Merged::Unbelieved, Merged::Unbelieved]);
    assert_eq!(registers.fetch(&[key(1), key(2)]).await.unwrap(), [Some(hour), None]);
}

#[tokio::test]
async fn news_are_heard_by_those_who_wait() {
    let redis = Redis::start(&[]);
    let (teller, hearer) = (redis.registers(), redis.registers());
    let begin = hearer.ends().await.unwrap();
    let waiting = tokio::spawn(async move { (hearer.news(&begin).await, hearer) });
    teller.merge(&[(key(1), item("a", 1, b""))]).await.unwrap();
    let (news, _) = waiting.await.unwrap();
    assert!(matches!(news.unwrap(), News::Heard(heard, _) if heard.len() == 1));
}

#[tokio::test]
async fn whoever_missed_something_is_told_so() {
    let redis = Redis::start(&[]);
    let registers = redis.registers();
    registers.ends().await.unwrap();
    registers.merge(&[(key(1), item("a", 1, b""))]).await.unwrap();
    let places = registers.ends().await.unwrap();
    assert!(matches!(registers.news(&places).await.unwrap(), News::Heard(heard, _) if heard.is_empty()));
    let stream = format!("test:it:{{{}}}:changes", key(1).shard());
    redis.cli(&["XTRIM", &stream, "MAXLEN", "0"]);
    assert_eq!(registers.news(&places).await.unwrap(), News::Gap);
    // The same after it has lost everything; the marks of another history are not taken for the former ones.
    let places = registers.ends().await.unwrap();
    redis.cli(&["FLUSHALL"]);
    assert_eq!(registers.news(&places).await.unwrap(), News::Gap);
    registers.ends().await.unwrap();
    assert_eq!(registers.news(&places).await.unwrap(), News::Gap);
}

#[tokio::test]
async fn a_full_server_refuses_and_goes_on() {
    let redis = Redis::start(&["--maxmemory-policy", "noeviction"]);
    let registers = redis.registers();
    let begin = registers.ends().await.unwrap();
    registers.merge(&[(key(1), item("a", 1, b""))]).await.unwrap();
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let fault = registers.merge(&[(key(2), item("a", 1, b"")), (key(1), item("a", 2, b""))]).await.unwrap_err();
    assert!(fault.0.contains("OOM") && fault.0.contains(&redis.port.to_string()), "{fault}");
    assert_eq!(all_news(&registers, begin).await.0.len(), 1, "it can be heard all the same");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(registers.merge(&[(key(2), item("a", 1, b""))]).await.unwrap(), [Merged::Changed]);
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let redis = Redis::start(&[]);
    let registers = redis.registers();
    registers.merge(&[(key(1), item("a", 1, b""))]).await.unwrap();
    registers.news(&registers.ends().await.unwrap()).await.unwrap();
    assert_eq!(registers.look_up(&key(1)).await.unwrap(), Some(item("a", 1, b"")));
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    redis.cli(&["SCRIPT", "FLUSH"]);
    // A connection that was cut is noticed by the one who uses it, and the next one finds a new one.
    twice(async || registers.merge(&[(key(1), item("a", 2, b""))]).await).await;
    let places = twice(async || registers.ends().await).await;
    let _ = registers.look_up(&key(1)).await;
    twice(async || registers.news(&places).await).await;
    assert_eq!(registers.look_up(&key(1)).await.unwrap(), Some(item("a", 2, b"")));
}

#[tokio::test]
async fn what_a_later_version_wrote_is_left_alone() {
    let redis = Redis::start(&[]);
    let registers = redis.registers();
    let begin = registers.ends().await.unwrap();
    let name = format!("test:it:{{{}}}:{}", key(1).shard(), key(1));
    redis.cli(&["SET", &name, "later"]);
    redis.cli(&[
        "XADD",
        &format!("test:it:{{{}}}:changes", key(1).shard()),
        "*",
        "k",
        &key(1).to_string(),
        "v",
        "later",
    ]);
    assert_eq!(registers.merge(&[(key(1), item("a", 1, b""))]).await.unwrap(), [Merged::Known]);
    assert_eq!(registers.fetch(&[key(1)]).await.unwrap(), [None]);
    assert_eq!(redis.cli(&["GET", &name]), "later");
    assert_eq!(all_news(&registers, begin).await.0, []);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let redis = Redis::start(&[]);
    let registers = redis.registers();
    let port = redis.port;
    drop(redis);
    let fault = registers.ends().await.unwrap_err();
    assert!(fault.0.starts_with(&format!("redis 127.0.0.1:{port}: ")), "{fault}");
    let fault = registers.look_up(&key(1)).await.unwrap_err();
    assert!(fault.0.contains("not connected"), "{fault}");
}
