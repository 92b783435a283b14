//! The counts of connections, held against the kernel's own table of sockets.
//!
//! A count is wrong when it differs from the sockets that carry the client's mark, in two looks between which none of its connections
//! was made or closed. What merely changes while one looks is never touched, and a correction is added, so that connections that come
//! and go meanwhile are counted all the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Mutex,
    thread,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData},
};
use screen_common::{
    abi::{CORRECTION_ENTRIES, Client, Correction, Counted, map},
    address::IpKey,
};

use super::{KernelError, lock, maps::Maps, object, prefix::address_of};

/// From the first look to the second: much longer than a processor may take from a connection's mark to its count.
const SECOND_LOOK: Duration = Duration::from_millis(250);

/// No correction.
const NOTHING: Correction = Correction { client: IpKey { address: [0; 16] }, change: 0 };

/// What a recount found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recount {
    /// Counted connections in the table of sockets.
    pub connections: u64,
    /// The clients that they belong to.
    pub clients: usize,
    /// Clients whose count was wrong.
    pub corrected: Vec<Corrected>,
    /// Clients whose connections came or went while they were counted: nothing can be said of them.
    pub unsettled: usize,
}

/// A count that was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrected {
    /// The first address of the client's prefix.
    pub client: IpAddr,
    /// What was counted; below zero where more was taken away than there was.
    pub counted: i64,
    /// How many connections there are.
    pub connections: u64,
}

/// What was there at one time.
struct Look {
    sockets: BTreeMap<IpKey, u64>,
    counts: BTreeMap<IpKey, Client>,
}

/// Counts anew, and corrects.
pub(super) fn recount(programs: &Mutex<Ebpf>) -> Result<Recount, KernelError> {
    let mut maps = Maps::of(&lock(programs), &[map::CLIENTS, map::CORRECTIONS])?;
    let clients: HashMap<MapData, IpKey, Client> = maps.take(map::CLIENTS)?;
    let mut corrections: Array<MapData, Correction> = maps.take(map::CORRECTIONS)?;
    // An entry that could not be read would pass for a count of zero.
    let counts = || clients.iter().collect::<Result<_, _>>().map_err(KernelError::map(map::CLIENTS));
    // Sockets between the two readings of the counts: what is the same in both was so all the time.
    let first = Look { counts: counts()?, sockets: sockets(programs)? };
    thread::sleep(SECOND_LOOK);
    let second = Look { sockets: sockets(programs)?, counts: counts()? };
    let (wrong, unsettled) = compare(&first, &second);
    for wrong in wrong.chunks(CORRECTION_ENTRIES) {
        correct(programs, &mut corrections, wrong)?;
    }
    Ok(Recount {
        connections: second.sockets.values().sum(),
        clients: second.sockets.len(),
        corrected: wrong
            .into_iter()
            .map(|(client, counted, connections)| Corrected {
                client: address_of(&client),
                counted: counted.cast_signed(),
                connections,
            })
            .collect(),
        unsettled,
    })
}

/// Clients whose counts are wrong, with what was counted and what there is; and how many can't be told.
fn compare(first: &Look, second: &Look) -> (Vec<(IpKey, u64, u64)>, usize) {
    let count = |look: &Look, client: &IpKey| look.counts.get(client).map_or((0, 0), |it| (it.active, it.accepted));
    let (mut wrong, mut unsettled) = (Vec::new(), 0);
    let clients: BTreeSet<&IpKey> = second.counts.keys().chain(second.sockets.keys()).collect();
    for client in clients {
        let (counted, connections) = (count(second, client).0, second.sockets.get(client).copied().unwrap_or_default());
        if counted == connections {
            continue;
        }
        let settled = count(first, client) == count(second, client)
            && first.sockets.get(client).copied().unwrap_or_default() == connections;
        if settled {
            wrong.push((*client, counted, connections));
        } else {
            unsettled += 1;
        }
    }
    (wrong, unsettled)
}

/// The marked sockets of each client.
fn sockets(programs: &Mutex<Ebpf>) -> Result<BTreeMap<IpKey, u64>, KernelError> {
    let written = object::walk(&mut lock(programs))?;
    let mut sockets = BTreeMap::new();
    let (marks, _) = written.as_chunks::<{ size_of::<IpKey>() }>();
    for &address in marks.iter().filter(|&&address| address != Counted::RELAY.client.address) {
        *sockets.entry(IpKey { address }).or_default() += 1;
    }
    Ok(sockets)
}

/// Has the walk add what is missing; of at most as many clients as there are entries.
fn correct(
    programs: &Mutex<Ebpf>,
    corrections: &mut Array<MapData, Correction>,
    wrong: &[(IpKey, u64, u64)],
) -> Result<(), KernelError> {
    // No other walk may find them.
    let mut programs = lock(programs);
    let mut put = |index: usize, correction: Correction| {
        corrections.set(index as u32, correction, 0).map_err(KernelError::map(map::CORRECTIONS))
    };
    let written = wrong.iter().enumerate().try_for_each(|(index, &(client, counted, connections))| {
        put(index, Correction { client, change: connections.wrapping_sub(counted).cast_signed() })
    });
    let walked = written.and_then(|()| object::walk(&mut programs).map(drop));
    let cleared = (0..wrong.len()).try_for_each(|index| put(index, NOTHING));
    walked.and(cleared)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpKey = IpKey::from_ipv4([192, 0, 2, 1]);

    fn look(sockets: u64, active: u64, accepted: u64) -> Look {
        let client = Client { active, accepted, ..Client::default() };
        Look {
            sockets: (sockets > 0).then_some((CLIENT, sockets)).into_iter().collect(),
            counts: [(CLIENT, client)].into(),
        }
    }

    #[test]
    fn what_stays_wrong_is_wrong() {
        assert_eq!(compare(&look(2, 5, 9), &look(2, 5, 9)), (vec![(CLIENT, 5, 2)], 0), "too many");
        assert_eq!(compare(&look(0, 1, 9), &look(0, 1, 9)), (vec![(CLIENT, 1, 0)], 0), "none left");
        assert_eq!(compare(&look(3, 0, 9), &look(3, 0, 9)), (vec![(CLIENT, 0, 3)], 0), "too few");
        let forgotten = || Look { counts: BTreeMap::new(), ..look(2, 0, 0) };
        assert_eq!(compare(&forgotten(), &forgotten()), (vec![(CLIENT, 0, 2)], 0), "no entry at all");
    }

    #[test]
    fn what_changed_in_between_is_left_alone() {
        assert_eq!(compare(&look(1, 1, 1), &look(2, 2, 2)), (vec![], 0), "one came, and is counted");
        assert_eq!(compare(&look(1, 1, 1), &look(1, 2, 2)), (vec![], 1), "one is just being made");
        assert_eq!(compare(&look(1, 2, 2), &look(1, 2, 3)), (vec![], 1), "one came and one went");
        assert_eq!(compare(&look(2, 3, 3), &look(1, 3, 3)), (vec![], 1), "the sockets changed");
        assert_eq!(compare(&look(1, 0, 1), &look(1, 1, 1)), (vec![], 0), "it is right by now");
    }
}
