//! Whether Redis is what the gates that share need: seen from this host, as this host's user, without a gate.

use std::time::Duration;

use tokio::time::timeout;

use super::finding::{Finding, Grade};
use crate::{
    config::{CacheBackend, Config, HostPort, RedisServers},
    dns::Names,
    share::redis::{Checkup, Memory, Servers, State, Trouble, checkup},
};

/// How long all questions may take.
const LIMIT: Duration = Duration::from_secs(40);

/// What docs/cluster.md has a gate's user be given, besides its keys.
const RIGHTS: &str = "resetchannels -@all +ping +select +get +mget +set +expireat +scan +xadd +xread +xrange +xrevrange +evalsha +script|load +time +info";

/// From here on clocks differ, in milliseconds.
const SAME: u64 = 1000;
/// Further ahead or behind nobody is believed (docs/cluster.md).
const BELIEVED: u64 = 24 * 60 * 60 * 1000;

/// The least that memory is set to where it is full: what two million clients take, and lists.
const ROOM: u64 = 1 << 30;

/// Redis, if hosts share by it.
#[derive(Debug)]
pub(super) struct Redis {
    user: String,
    has_password: bool,
    prefix: String,
    encrypted: bool,
    /// Of a cluster or of sentinels some may be away.
    many: bool,
    checkup: Result<Checkup, String>,
}

impl Redis {
    pub(super) fn read(config: &Config) -> Option<Self> {
        let CacheBackend::Redis(redis) = &config.cache.backend else { return None };
        Some(Self {
            user: redis.user.clone().unwrap_or_else(|| "default".to_owned()),
            has_password: redis.password.is_some(),
            prefix: redis.prefix.clone(),
            encrypted: redis.tls.is_some(),
            many: !matches!(redis.servers, RedisServers::One(_)),
            checkup: look(config, redis),
        })
    }
}

fn look(config: &Config, redis: &crate::config::Redis) -> Result<Checkup, String> {
    super::wait(async {
        let servers = Servers::new(redis.clone(), Names::new(&redis.hosts_file, &config.resolver));
        let looking = timeout(LIMIT, checkup(&servers)).await;
        looking.map_err(|_| format!("no end of answers within {} s", LIMIT.as_secs()))
    })?
}

const fn finding(grade: Grade, what: String, mend: Option<String>) -> Finding {
    Finding { subject: "redis", grade, what, mend }
}

pub(super) fn judge(redis: Option<&Redis>) -> Vec<Finding> {
    let Some(redis) = redis else { return Vec::new() };
    let checkup = match &redis.checkup {
        Ok(checkup) => checkup,
        Err(why) => {
            return vec![finding(
                Grade::Wrong,
                format!("Redis can't be looked at: {why}"),
                Some("redis-cli ping".to_owned()),
            )];
        }
    };
    let mut findings = Vec::new();
    let found = !checkup.servers.is_empty();
    for (server, why) in &checkup.silent {
        let grade = if found { Grade::Note } else { Grade::Wrong };
        let what = format!("{server} does not say where the keys are: {why}");
        findings.push(finding(grade, what, Some(redis.cli(server, "ping"))));
    }
    if let (Some((first, _)), Some((_, why))) = (checkup.servers.first(), checkup.unserved.first()) {
        let shards: Vec<&str> = checkup.unserved.iter().map(|(shard, _)| shard.as_str()).collect();
        let what = format!("no node serves the shards {}: {why}", shards.join(", "));
        findings.push(finding(Grade::Wrong, what, Some(redis.cli(first, "cluster info"))));
    }
    findings.extend(checkup.servers.iter().flat_map(|(server, state)| redis.one(server, state)));
    findings
}

impl Redis {
    /// A command of Redis, for whoever may give it.
    fn cli(&self, server: &HostPort, command: &str) -> String {
        let tls = if self.encrypted { " --tls" } else { "" };
        format!("redis-cli -h {} -p {}{tls} {command}", server.host, server.port)
    }

    fn rights(&self) -> String {
        format!("'~{}:*' {}", self.prefix, RIGHTS.replace("+script|load", "'+script|load'"))
    }

    fn one(&self, server: &HostPort, state: &Result<State, Trouble>) -> Vec<Finding> {
        let state = match state {
            Ok(state) => state,
            Err(Trouble::Unreachable(why)) => {
                let what = format!("{server} can't be reached: {why}");
                return vec![finding(Grade::Wrong, what, Some(self.cli(server, "ping")))];
            }
            Err(Trouble::Refused(why)) => {
                let what = format!("{server} does not let in the user {}: {why}", self.user);
                return vec![finding(Grade::Wrong, what, Some(self.let_in(server)))];
            }
        };
        let mut findings = Vec::new();
        let mut add = |grade, what: String, mend: String| {
            findings.push(finding(grade, format!("{server} {what}"), Some(mend)));
        };
        if !state.denied.is_empty() {
            let what = format!("does not let the user {} use {}", self.user, state.denied.join(", "));
            add(Grade::Wrong, what, self.cli(server, &format!("ACL SETUSER {} {}", self.user, self.rights())));
        }
        if !state.missing.is_empty() {
            let what = format!("is too old: it does not know {}", state.missing.join(", "));
            add(Grade::Wrong, what, "on its host, apt-get install redis-server".to_owned());
        }
        if let Some(why) = &state.script {
            let what = format!("can't run the script that puts together what hosts know: {why}");
            add(Grade::Wrong, what, "on its host, apt-get install redis-server".to_owned());
        }
        if state.is_replica {
            let of = state.master.as_ref().map_or_else(String::new, |master| format!(" of {master}"));
            add(Grade::Wrong, format!("is a replica{of}, and takes nothing"), self.to_the_master(state));
        }
        for (code, details) in &state.refusals {
            let (grade, what, command) = refusal(code, details, state.memory.as_ref());
            add(grade, what, self.cli(server, &command));
        }
        if let Some((grade, what)) = state.memory.as_ref().and_then(evicts) {
            add(grade, what, self.cli(server, "CONFIG SET maxmemory-policy noeviction"));
        }
        if state.memory.is_none() && !state.is_replica {
            let what =
                format!("does not let the user {} see whether it throws keys away that it has no room for", self.user);
            add(Grade::Note, what, self.cli(server, &format!("ACL SETUSER {} +info", self.user)));
        }
        if let Some((grade, what)) = clock(state.ahead_millis) {
            add(grade, what, "on its host and on this one, timedatectl set-ntp true".to_owned());
        }
        if findings.iter().all(|finding| finding.grade == Grade::Note) {
            let version = state.version.as_ref().map_or_else(String::new, |version| format!(" (Redis {version})"));
            let fine = finding(Grade::Fine, format!("{server}{version} takes and gives what the gates know"), None);
            findings.insert(0, fine);
        }
        findings
    }

    fn let_in(&self, server: &HostPort) -> String {
        if self.has_password {
            // Whoever sets it knows what it is; it is never shown.
            let rights = self.rights();
            self.cli(server, &format!("ACL SETUSER {} on resetpass '>PASSWORD' {rights}", self.user))
        } else {
            "in the configuration, cache.redis.user and cache.redis.password_file".to_owned()
        }
    }

    fn to_the_master(&self, state: &State) -> String {
        match &state.master {
            Some(master) if !self.many => {
                let scheme = if self.encrypted { "rediss" } else { "redis" };
                format!("in the configuration, cache.redis.urls = [\"{scheme}://{master}\"]")
            }
            _ => "in the configuration, cache.redis.urls with the master, or with sentinels that know it".to_owned(),
        }
    }
}

/// What a refusal means, and the command that mends it.
fn refusal(code: &str, details: &str, memory: Option<&Memory>) -> (Grade, String, String) {
    match code {
        "OOM" => {
            let what = "is full, and takes nothing new".to_owned();
            let command = memory.map_or_else(
                || "INFO memory".to_owned(),
                |memory| format!("CONFIG SET maxmemory {}", memory.used.saturating_mul(2).max(ROOM)),
            );
            (Grade::Wrong, what, command)
        }
        "MISCONF" => (
            Grade::Wrong,
            "takes nothing, as it can't write to its disk; the gates need no copy there".to_owned(),
            "CONFIG SET stop-writes-on-bgsave-error no".to_owned(),
        ),
        "NOREPLICAS" => (
            Grade::Wrong,
            "takes nothing, as it has fewer replicas than min-replicas-to-write".to_owned(),
            "INFO replication".to_owned(),
        ),
        "LOADING" => {
            (Grade::Note, "is still reading what it has on its disk".to_owned(), "INFO persistence".to_owned())
        }
        _ => (Grade::Wrong, format!("says {code} {details}"), "INFO".to_owned()),
    }
}

/// Whether keys vanish, and which.
fn evicts(memory: &Memory) -> Option<(Grade, String)> {
    match (memory.most, memory.policy.as_str()) {
        (0, _) | (_, "noeviction") => None,
        (_, policy) if policy.starts_with("volatile-") => {
            Some((Grade::Note, format!("throws records away when it is full ({policy})")))
        }
        (_, policy) => Some((
            Grade::Wrong,
            format!("throws away what has no end when it is full, as entries and lists ({policy})"),
        )),
    }
}

fn clock(ahead_millis: i64) -> Option<(Grade, String)> {
    let off = ahead_millis.unsigned_abs();
    let way = if ahead_millis > 0 { "ahead of" } else { "behind" };
    let what = format!("has a clock that is {} s {way} this host's", off / 1000);
    if off <= SAME {
        None
    } else if off <= BELIEVED {
        Some((Grade::Note, what))
    } else {
        Some((Grade::Wrong, format!("{what}: more than a day, so that nothing is believed")))
    }
}

#[cfg(test)]
mod tests;
