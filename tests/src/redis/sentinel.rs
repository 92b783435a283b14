//! A master with replicas, and those who watch over them.

use super::{PORT, Redis, Reply};
use crate::{
    backplane::{ADDRESSES, Backplane},
    wait::{SOON, wait_for},
};

/// What the sentinels call the master.
const MASTER: &str = "gates";

/// Where the first sentinel is; the others follow.
const FIRST_SENTINEL: u16 = 26379;

/// Three servers, the first one the master at the beginning, and three sentinels, of whom two decide.
#[derive(Debug)]
pub struct Sentinels {
    /// The servers.
    pub servers: Vec<Redis>,
    sentinels: Vec<Redis>,
}

impl Sentinels {
    /// Starts all of them, and waits until the sentinels know each other and all servers.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    #[must_use]
    #[track_caller]
    pub fn start(backplane: &Backplane) -> Self {
        let leader = format!("replicaof {} {PORT}", ADDRESSES[0]);
        let servers = (0..3)
            .map(|number| {
                let more: &[&str] = if number == 0 { &[] } else { &[&leader] };
                Redis::start(backplane, PORT + number, more)
            })
            .collect();
        let watch = format!(
            "sentinel monitor {MASTER} {} {PORT} 2\n\
             sentinel down-after-milliseconds {MASTER} 1000\n\
             sentinel failover-timeout {MASTER} 5000\n",
            ADDRESSES[0]
        );
        let sentinels: Vec<Redis> = (0..3)
            .map(|number| {
                let port = FIRST_SENTINEL + number;
                Redis::launch(backplane, port, &format!("port {port}\n{watch}"), &["--sentinel"])
            })
            .collect();
        let trio = Self { servers, sentinels };
        trio.wait_known();
        trio.servers[1..].iter().for_each(Redis::wait_follows);
        trio
    }

    #[track_caller]
    fn wait_known(&self) {
        for sentinel in &self.sentinels {
            sentinel.wait_answers();
            for (what, count) in [("replicas", 2), ("sentinels", 2)] {
                wait_for(&format!("a sentinel knows the {what}"), SOON, || {
                    let known = sentinel.ask(&["SENTINEL", what, MASTER]);
                    (known.list().len() == count).then_some(())
                });
            }
        }
    }

    /// Where gates find the sentinels: what stands between `redis+sentinel://` and the number of the database.
    #[must_use]
    pub fn place(&self) -> String {
        let places: Vec<String> = self.sentinels.iter().map(Redis::place).collect();
        format!("{}/{MASTER}", places.join(","))
    }

    /// Which server the first sentinel says is the master.
    ///
    /// # Panics
    ///
    /// When it is none of them.
    #[must_use]
    #[track_caller]
    pub fn master(&self) -> usize {
        let place = self.sentinels[0].ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        let port: u16 = place.list()[1].text().parse().expect("a port");
        self.servers.iter().position(|server| server.port() == port).expect("one of the servers")
    }

    /// Has the sentinels make another server the master, and waits until it is.
    ///
    /// # Panics
    ///
    /// When they do not.
    #[track_caller]
    pub fn fail_over(&self) {
        let before = self.master();
        // They do not know at once that a replica is good enough.
        wait_for("the sentinels agree to a change", SOON, || {
            let said = self.sentinels[0].try_ask(&["SENTINEL", "FAILOVER", MASTER]).ok()?;
            (said == Reply::Text("OK".to_owned())).then_some(())
        });
        self.wait_master_other_than(before);
    }

    /// Waits until another server is the master, and says which.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    #[track_caller]
    pub fn wait_master_other_than(&self, before: usize) -> usize {
        wait_for("another server is the master", SOON, || {
            let now = self.master();
            (now != before && self.servers[now].info("role") == "master").then_some(now)
        })
    }
}
