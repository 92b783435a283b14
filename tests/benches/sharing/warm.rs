//! A start with a million records, from the file and from Redis, and what they weigh.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use screen_tests::{
    fleet::{Edge, Fleet},
    gate::{Gate, Settings},
    redis::{PORT, Redis},
    wait::wait_for,
};

use super::{URLS, records, table::Table};

const RECORDS: u32 = 1_000_000;

/// How long Redis, a gate or its file may take to be told of all records.
const TELLING_LIMIT: Duration = Duration::from_secs(180);

pub(crate) fn measure(rounds: u16, table: &mut Table) {
    let Some(fleet) = Fleet::new(2, URLS) else { return };
    let redis = Redis::start(&fleet.backplane, PORT, &[]);
    let [teller, new] = [&fleet.edges[0], &fleet.edges[1]];
    records::fill(teller.settings(), "mx0.example.test", RECORDS);
    for _ in 0..rounds {
        let (start, memory) = ("a million records, until ready", "resident memory of the screener");
        let (own, of_redis) = ("CPU of the screener until then", "CPU of Redis until then");
        let empty = begin(new, alone(new)).weigh(table, memory, "without records", 0);
        let warm = begin(teller, alone(teller));
        table.add(start, "from the file", warm.seconds, "s");
        table.add(own, "from the file", warm.cpu(), "s");
        warm.weigh(table, memory, "added by a million records", empty);

        redis.ask(&["FLUSHALL"]);
        let before = used(&redis);
        let told = begin(teller, teller.settings().clone());
        wait_for("Redis knows everything", TELLING_LIMIT, || {
            (redis.ask(&["DBSIZE"]).number() >= i64::from(RECORDS)).then_some(())
        });
        table.add(start, "from the file, Redis is empty and is told", told.seconds, "s");
        table.add(
            "a million records, until Redis knows them",
            "from the file",
            told.begun.elapsed().as_secs_f64(),
            "s",
        );
        let each = (used(&redis) - before) / f64::from(RECORDS);
        table.add("used memory of Redis", "a record, with announcements", each, "B");
        // So many announcements are more than a stream keeps: it looks at everything once more.
        told.come_to_rest();

        forget(new);
        let before = cpu_of(&redis);
        let heard = begin(new, new.settings().clone());
        // A slow machine is ready before it has heard everything.
        wait_for("everything is heard", TELLING_LIMIT, || {
            (heard.gate.ask(&["status"])["screening"]["records"] == RECORDS).then_some(())
        });
        table.add(start, "from Redis", heard.begun.elapsed().as_secs_f64(), "s");
        table.add(own, "from Redis", heard.cpu(), "s");
        table.add(of_redis, "from Redis", cpu_of(&redis) - before, "s");
        wait_for("the cache is written", TELLING_LIMIT, || {
            (heard.gate.ask(&["status"])["cache"]["store"]["pending"] == 0).then_some(())
        });
        assert_eq!(heard.gate.ask(&["status"])["cache"]["store"]["lost"], 0);
        heard.gate.stop();
        let both = begin(new, new.settings().clone());
        table.add(start, "from the file, and Redis knows the same", both.seconds, "s");
        both.weigh(table, memory, "added by a million records, with Redis", empty);
        told.gate.stop();
        forget(new);
    }
}

/// A gate that is ready.
struct Started {
    gate: Gate,
    begun: Instant,
    seconds: f64,
}

fn begin(edge: &Edge, settings: Settings) -> Started {
    let begun = Instant::now();
    let gate = Gate::start(edge.net(), settings);
    Started { gate, begun, seconds: begun.elapsed().as_secs_f64() }
}

impl Started {
    /// What its screener's threads have used, those that have ended included, in seconds.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.gate.screener())).unwrap();
        // Behind the name, which may hold anything: the state is the third field (proc_pid_stat(5)), utime and stime are the 14th and the 15th.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks: u32 = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u32>().unwrap()).sum();
        f64::from(ticks) / 100.0
    }

    /// Waits until it has done nothing for a while.
    fn come_to_rest(&self) {
        let mut before = self.cpu();
        wait_for("the gate has no more to do", TELLING_LIMIT, || {
            thread::sleep(Duration::from_secs(1));
            let spent = self.cpu() - std::mem::replace(&mut before, self.cpu());
            (spent < 0.05).then_some(())
        });
    }

    /// Notes what its screener weighs beyond `empty`, in kilobytes, and stops it; returns its whole weight.
    fn weigh(self, table: &mut Table, case: &str, who: &str, empty: u64) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.gate.screener())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
        table.add(case, who, (resident - empty) as f64 / 1024.0, "MiB");
        self.gate.stop();
        resident
    }
}

/// Its settings without Redis.
fn alone(edge: &Edge) -> Settings {
    edge.settings().clone().text("cache.backend", "embedded")
}

/// The host has never run a gate.
fn forget(edge: &Edge) {
    fs::remove_dir_all(edge.settings().state()).unwrap();
}

fn used(redis: &Redis) -> f64 {
    redis.info("used_memory").parse().unwrap()
}

fn cpu_of(redis: &Redis) -> f64 {
    ["used_cpu_user", "used_cpu_sys"].map(|field| redis.info(field).parse::<f64>().unwrap()).iter().sum()
}
