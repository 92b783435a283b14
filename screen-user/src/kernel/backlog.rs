//! Mail servers that hang: steering leaves a listener out whose accept queue stays full, until it accepts again.
//!
//! The kernel drops the SYNs to a full queue, and known-good clients would wait for nothing. Meanwhile the screener answers for the server.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use aya::maps::{HashMap, MapData, MapError};
use screen_common::abi::{HUNG_BESIDE, Hung, ServerKey, map};
use serde::{Deserialize, Serialize};

use super::{
    Expiry, KernelError,
    prefix::{address_of, key_of},
    sock_diag::Listener,
};

/// How long a queue has to be full, at every look.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the programs believe a look that no other one follows: the gate may have been killed, and the server may have recovered.
const BELIEVED: Duration = Duration::from_secs(30);

/// A listener of the mail server that takes nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HungServer {
    /// What it is bound to.
    pub listener: SocketAddr,
    /// Since when steering leaves it out.
    pub since: SystemTime,
}

/// What the programs are told of the mail server's accept queues.
pub(super) struct Backlog {
    table: HashMap<MapData, ServerKey, Hung>,
    queues: Queues,
    /// The addresses with an entry in the table.
    entered: BTreeSet<SocketAddr>,
}

impl Backlog {
    pub(super) fn new(table: HashMap<MapData, ServerKey, Hung>) -> Self {
        Self { table, queues: Queues::default(), entered: BTreeSet::new() }
    }

    /// Takes note of the queues of `servers`, the steered listeners and their cookies, among `listeners`. Returns what has changed, in words.
    pub(super) fn look(
        &mut self,
        servers: &[(ServerKey, u64)],
        listeners: &[Listener],
    ) -> Result<Vec<String>, KernelError> {
        let addresses: BTreeSet<SocketAddr> = servers.iter().map(|(key, _)| address_in(key)).collect();
        // Those beside the ones that have a place are among them: the kernel may choose each that shares the address.
        let own: Vec<Listener> =
            listeners.iter().copied().filter(|listener| addresses.contains(&listener.address)).collect();
        let said = self.queues.look(&own, Instant::now(), SystemTime::now());
        self.tell(servers)?;
        Ok(said)
    }

    /// Those that hang, in the order of their addresses.
    pub(super) fn hung(&self) -> Vec<HungServer> {
        let mut hung: Vec<HungServer> = self.queues.hung().map(|(_, server)| server).collect();
        hung.sort_unstable_by_key(|server| server.listener);
        hung
    }

    /// Writes which listeners hang.
    fn tell(&mut self, servers: &[(ServerKey, u64)]) -> Result<(), KernelError> {
        let mut which: BTreeMap<SocketAddr, u32> = BTreeMap::new();
        for (cookie, server) in self.queues.hung() {
            let place = servers.iter().find(|(_, other)| *other == cookie);
            *which.entry(server.listener).or_default() |= place.map_or(HUNG_BESIDE, |(key, _)| 1 << key.index);
        }
        for &address in self.entered.iter().filter(|address| !which.contains_key(address)) {
            match self.table.remove(&key_at(address)) {
                Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(KernelError::map(map::HUNG))?,
            }
        }
        self.entered = which.keys().copied().collect();
        let until_ns = Expiry::after(BELIEVED).nanos();
        for (address, which) in which {
            let value = Hung { until_ns, which, reserved: 0 };
            self.table.insert(key_at(address), value, 0).map_err(KernelError::map(map::HUNG))?;
        }
        Ok(())
    }
}

fn address_in(key: &ServerKey) -> SocketAddr {
    SocketAddr::new(address_of(&key.address), key.port as u16)
}

fn key_at(address: SocketAddr) -> ServerKey {
    ServerKey { address: key_of(address.ip()), port: u32::from(address.port()), index: 0 }
}

/// The mail server's accept queues that are full, by the cookies of their sockets.
#[derive(Debug, Default)]
struct Queues(BTreeMap<u64, Queue>);

#[derive(Debug)]
struct Queue {
    listener: SocketAddr,
    full_since: Instant,
    hung_since: Option<SystemTime>,
}

impl Queues {
    /// Takes note of how the queues are; returns what has changed, in words.
    fn look(&mut self, listeners: &[Listener], now: Instant, clock: SystemTime) -> Vec<String> {
        let mut said = Vec::new();
        self.0.retain(|cookie, queue| {
            let listener = listeners.iter().find(|listener| listener.cookie == *cookie);
            let stays = match (listener, queue.hung_since) {
                (Some(listener), None) => listener.is_full(),
                // One that accepts a connection now and then is as full again in the next moment.
                (Some(listener), Some(_)) => listener.waiting > listener.backlog / 2,
                (None, _) => false,
            };
            if !stays && queue.hung_since.is_some() {
                let what = if listener.is_some() { "accepts again" } else { "is closed" };
                said.push(format!("mail server listener {}, which hung, {what}", queue.listener));
            }
            stays
        });
        for listener in listeners.iter().filter(|listener| listener.is_full()) {
            let queue = self.0.entry(listener.cookie).or_insert_with(|| Queue {
                listener: listener.address,
                full_since: now,
                hung_since: None,
            });
            let full = now.saturating_duration_since(queue.full_since);
            if queue.hung_since.is_none() && full >= PATIENCE {
                queue.hung_since = Some(clock);
                said.push(format!(
                    "mail server listener {} hangs: {} connections wait to be accepted, which is all that it has room for; known-good \
                     clients meet the screener until it accepts again",
                    listener.address, listener.waiting
                ));
            }
        }
        said
    }

    fn hung(&self) -> impl Iterator<Item = (u64, HungServer)> {
        self.0.iter().filter_map(|(&cookie, queue)| {
            queue.hung_since.map(|since| (cookie, HungServer { listener: queue.listener, since }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKLOG: u32 = 4;

    fn listener(cookie: u64, waiting: u32) -> Listener {
        Listener { address: "192.0.2.1:25".parse().unwrap(), cookie, waiting, backlog: BACKLOG, uid: 0, inode: 0 }
    }

    /// Looks once a second, beginning now; returns what each look says.
    fn looks(queues: &mut Queues, start: &mut Instant, waiting: &[u32]) -> Vec<bool> {
        waiting
            .iter()
            .map(|&waiting| {
                *start += Duration::from_secs(1);
                !queues.look(&[listener(7, waiting)], *start, SystemTime::UNIX_EPOCH).is_empty()
            })
            .collect()
    }

    #[test]
    fn a_queue_that_stays_full_hangs_and_one_that_moves_does_not() {
        let (mut queues, mut now) = (Queues::default(), Instant::now());
        assert_eq!(looks(&mut queues, &mut now, &[5, 5, 5, 4, 5, 5, 5]), [false; 7], "it had room in between");
        assert_eq!(queues.hung().count(), 0);
        assert_eq!(looks(&mut queues, &mut now, &[5, 5]), [true, false], "told once");
        let hung: Vec<_> = queues.hung().collect();
        let expected = HungServer { listener: "192.0.2.1:25".parse().unwrap(), since: SystemTime::UNIX_EPOCH };
        assert_eq!(hung, [(7, expected)]);
    }

    #[test]
    fn it_accepts_again_when_half_of_it_is_free() {
        let (mut queues, mut now) = (Queues::default(), Instant::now());
        looks(&mut queues, &mut now, &[5; 4]);
        assert_eq!(looks(&mut queues, &mut now, &[4, 5, 3]), [false; 3]);
        assert_eq!(queues.hung().count(), 1);
        assert_eq!(looks(&mut queues, &mut now, &[2, 2]), [true, false]);
        assert_eq!(queues.hung().count(), 0);
    }

    #[test]
    fn one_that_closes_hangs_no_more_and_its_successor_begins_anew() {
        let (mut queues, mut now) = (Queues::default(), Instant::now());
        looks(&mut queues, &mut now, &[5; 4]);
        let said = queues.look(&[listener(8, 5)], now, SystemTime::UNIX_EPOCH);
        assert_eq!(said, ["mail server listener 192.0.2.1:25, which hung, is closed"]);
        assert_eq!(queues.hung().count(), 0);
    }

    #[test]
    fn a_look_now_and_then_is_enough() {
        let (mut queues, now) = (Queues::default(), Instant::now());
        for (seconds, hangs) in [(0, 0), (10, 1)] {
            queues.look(&[listener(7, 5)], now + Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
            assert_eq!(queues.hung().count(), hangs);
        }
    }
}
