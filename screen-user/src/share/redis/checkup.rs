//! Whether Redis is as the gates need it, by what it answers to harmless questions: none of them makes or changes a key.

use std::{collections::BTreeMap, time::Duration};

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, Script, Value, aio::MultiplexedConnection, cmd};

use super::{
    super::Shard,
    ANNOUNCEMENTS, LONGEST_ANNOUNCED, MERGE,
    refusal::{Refusal, first},
    server::{Address, Servers},
};
use crate::{
    config::{HostPort, RedisServers},
    unix_time::unix_millis,
};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// How often it is tried to connect: a server that is busy for a moment is not gone.
const TRIES: usize = 3;

/// What was found out about the servers of a configuration.
#[derive(Debug, Default)]
pub struct Checkup {
    /// Sentinels, or nodes of a cluster that are to name the others, which did not, and why.
    pub silent: Vec<(HostPort, String)>,
    /// The servers that have the gates' keys.
    pub servers: Vec<(HostPort, Result<State, Trouble>)>,
    /// The parts of a cluster that no node serves, by their numbers, and why.
    pub unserved: Vec<(String, String)>,
}

/// Why a server could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It can't be reached, or does not answer.
    Unreachable(String),
    /// It does not take the user or the password.
    Refused(String),
}

/// How a server is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// What it is, where it says so (Redis 6.0).
    pub version: Option<String>,
    /// Whether it only follows another one.
    pub is_replica: bool,
    /// Whom it follows, if this user may ask.
    pub master: Option<String>,
    /// The commands that this user may not use.
    pub denied: Vec<&'static str>,
    /// The commands that it does not know.
    pub missing: Vec<&'static str>,
    /// Why the script does not run.
    pub script: Option<String>,
    /// What else it says no with: Redis's word for it, and the rest.
    pub refusals: BTreeMap<String, String>,
    /// How far its clock is ahead of this host's, at least, in milliseconds.
    pub ahead_millis: i64,
    /// Its memory, if this user may ask.
    pub memory: Option<Memory>,
}

/// The memory of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Bytes in use.
    pub used: u64,
    /// Most bytes; zero: as many as there are.
    pub most: u64,
    /// `maxmemory-policy`.
    pub policy: String,
}

/// Looks at all servers. Must be called in a tokio runtime.
pub async fn checkup(servers: &Servers) -> Checkup {
    let mut found = Checkup::default();
    let mut places: Vec<(Address, Option<Shard>)> = Vec::new();
    match &servers.config().servers {
        RedisServers::One(server) => places.push((Address(server.clone()), None)),
        RedisServers::Sentinel { sentinels, master } => {
            for sentinel in sentinels {
                match servers.ask_sentinel(sentinel, master).await {
                    Ok(place) if places.iter().any(|(known, _)| *known == place) => {}
                    Ok(place) => places.push((place, None)),
                    Err(fault) => found.silent.push((sentinel.clone(), fault.0)),
                }
            }
        }
        RedisServers::Cluster(seeds) => {
            let mut guide = None;
            for seed in seeds {
                match connect(servers, &Address(seed.clone())).await {
                    Ok(connection) => guide = guide.or(Some((Address(seed.clone()), connection))),
                    // Who is refused would be so by all of them.
                    Err(trouble @ Trouble::Refused(_)) => found.servers.push((seed.clone(), Err(trouble))),
                    Err(Trouble::Unreachable(why)) => found.silent.push((seed.clone(), why)),
                }
            }
            if let Some((seed, mut connection)) = guide {
                places = nodes(servers, &seed, &mut connection, &mut found).await;
            }
        }
    }
    for (place, shard) in places {
        let state = match connect(servers, &place).await {
            Ok(mut connection) => look(servers, &mut connection, shard.or_else(|| Shard::all().next())).await,
            Err(trouble) => Err(trouble),
        };
        found.servers.push((place.0, state));
    }
    found
}

async fn connect(servers: &Servers, to: &Address) -> Result<MultiplexedConnection, Trouble> {
    let mut tries = TRIES;
    loop {
        tries = tries.saturating_sub(1);
        match servers.dial(to, LIMIT).await {
            Ok(connection) => return Ok(connection),
            Err(error) if error.is_io_error() && tries > 0 => {}
            Err(error) => return Err(trouble(&error)),
        }
    }
}

fn trouble(error: &RedisError) -> Trouble {
    match first(error) {
        Some(said) => Trouble::Refused(format!("{} {}", said.code(), said.details().unwrap_or_default())),
        None if error.kind() == ErrorKind::AuthenticationFailed => Trouble::Refused(error.to_string()),
        None => Trouble::Unreachable(error.to_string()),
    }
}

/// The nodes that have the shards, each with one that it has.
async fn nodes(
    servers: &Servers,
    seed: &Address,
    connection: &mut MultiplexedConnection,
    found: &mut Checkup,
) -> Vec<(Address, Option<Shard>)> {
    let mut places: Vec<(Address, Option<Shard>)> = Vec::new();
    for shard in Shard::all() {
        let asked: Result<Value, RedisError> =
            cmd("XRANGE").arg(name(servers, shard)).arg("-").arg("+").arg("COUNT").arg(1).query_async(connection).await;
        let place = match asked.as_ref().map_err(|error| (first(error), Refusal::of(error, seed))) {
            Err((Some(said), refusal)) if said.code() == "CLUSTERDOWN" => {
                found.unserved.push((shard.to_string(), refusal.text));
                continue;
            }
            Err((None, refusal)) => {
                found.unserved.push((shard.to_string(), refusal.text));
                continue;
            }
            Err((_, Refusal { elsewhere: Some(place), .. })) => place,
            Ok(_) | Err(_) => seed.clone(),
        };
        if places.iter().all(|(known, _)| *known != place) {
            places.push((place, Some(shard)));
        }
    }
    places
}

/// The name of a key that is never there.
fn name(servers: &Servers, shard: Shard) -> String {
    format!("{}:{{{shard}}}:doctor", servers.config().prefix)
}

/// What a gate asks for, put so that nothing comes of it.
fn questions(servers: &Servers, shard: Shard) -> Vec<(&'static str, Cmd)> {
    let key = name(servers, shard);
    let ask = |words: &[&str]| {
        let mut command = Cmd::new();
        command.arg(words);
        command
    };
    let database = servers.config().database.to_string();
    vec![
        ("PING", ask(&["PING"])),
        ("SELECT", ask(&["SELECT", &database])),
        ("GET", ask(&["GET", &key])),
        ("MGET", ask(&["MGET", &key])),
        // Of a key that is there.
        ("SET", ask(&["SET", &key, "", "XX"])),
        ("EXPIREAT", ask(&["EXPIREAT", &key, "1"])),
        ("SCAN", ask(&["SCAN", "0", "COUNT", "1"])),
        // To a stream that is there. Redis 6.0 takes the word for a bad place, and adds nothing either.
        ("XADD", ask(&["XADD", &key, "NOMKSTREAM", "*", "k", ""])),
        ("XREAD", ask(&["XREAD", "COUNT", "1", "STREAMS", &key, "0"])),
        ("XRANGE", ask(&["XRANGE", &key, "-", "+", "COUNT", "1"])),
        ("XREVRANGE", ask(&["XREVRANGE", &key, "+", "-", "COUNT", "1"])),
        ("TIME", ask(&["TIME"])),
        ("SCRIPT LOAD", ask(&["SCRIPT", "LOAD", MERGE])),
        // No states to be merged.
        (
            "EVALSHA",
            ask(&[
                "EVALSHA",
                Script::new(MERGE).get_hash(),
                "1",
                &key,
                &ANNOUNCEMENTS.to_string(),
                &LONGEST_ANNOUNCED.to_string(),
            ]),
        ),
    ]
}

async fn look(
    servers: &Servers,
    connection: &mut MultiplexedConnection,
    shard: Option<Shard>,
) -> Result<State, Trouble> {
    let mut state = State::default();
    for (name, question) in shard.into_iter().flat_map(|shard| questions(servers, shard)) {
        let Err(error) = question.query_async::<Value>(connection).await else { continue };
        let Some(said) = first(&error) else { return Err(trouble(&error)) };
        let details = said.details().unwrap_or_default();
        match said.code() {
            "NOAUTH" => return Err(trouble(&error)),
            "NOPERM" => state.denied.push(name),
            "ERR" if details.starts_with("unknown command") => state.missing.push(name),
            // A script may not do what its user may not do, which is told by then.
            "ERR" | "NOSCRIPT" if name == "EVALSHA" && state.denied.is_empty() => {
                state.script = Some(details.to_owned());
            }
            // Slots that move just now are no trouble.
            "ERR" | "NOSCRIPT" | "MOVED" | "ASK" | "TRYAGAIN" => {}
            code => drop(state.refusals.insert(code.to_owned(), details.to_owned())),
        }
    }
    let hello: BTreeMap<String, Value> = optional(cmd("HELLO"), connection).await.unwrap_or_default();
    let text = |key: &str| String::from_redis_value_ref(hello.get(key)?).ok();
    state.version = text("version");
    state.is_replica = text("role").is_some_and(|role| role != "master") | state.refusals.remove("READONLY").is_some();
    if !state.denied.contains(&"TIME") {
        state.ahead_millis = ahead(connection).await;
    }
    let mut info = cmd("INFO");
    let info: String = optional(info.arg("everything").to_owned(), connection).await.unwrap_or_default();
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let number = |name: &str| field(name)?.parse().ok();
    if let (Some(used), Some(most), Some(policy)) =
        (number("used_memory"), number("maxmemory"), field("maxmemory_policy"))
    {
        state.memory = Some(Memory { used, most, policy: policy.to_owned() });
    }
    if let (Some(host), Some(port)) =
        (field("master_host"), number("master_port").and_then(|port| port.try_into().ok()))
    {
        state.master = Some(HostPort { host: host.to_owned(), port }.to_string());
    }
    Ok(state)
}

/// An answer that there need not be.
async fn optional<T: FromRedisValue>(question: Cmd, connection: &mut MultiplexedConnection) -> Option<T> {
    question.query_async(connection).await.ok()
}

/// How far the server's clock is ahead, beyond what the way there and back may account for.
async fn ahead(connection: &mut MultiplexedConnection) -> i64 {
    let now = || i64::try_from(unix_millis()).unwrap_or(i64::MAX);
    let before = now();
    let Some((seconds, micros)) = optional::<(i64, i64)>(cmd("TIME"), connection).await else { return 0 };
    let after = now();
    let theirs = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    // Its milliseconds are rounded as this host's.
    theirs.saturating_sub(theirs.clamp(before.min(after), after.max(before)))
}
