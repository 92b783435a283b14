//! What the kernel counts, read.

use std::{io, net::IpAddr, os::fd::AsFd as _, time::Duration};

use aya::maps::{HashMap, MapData, MapError};
use screen_common::{
    abi::{CLIENT_ENTRIES, Client, Refused, Total, TotalKey, map},
    address::IpKey,
    reason::Reason,
};

use super::{
    KernelError,
    clock::now_ns,
    prefix::address_of,
    syscall::{self, Processors},
};

/// How long a client without a connection is shown.
const IDLE: Duration = Duration::from_secs(2 * 3_600);
/// How long it is shown when `clients` is more than half full.
const IDLE_CROWDED: Duration = Duration::from_secs(60);

/// The maps of counters.
pub(super) struct Counts {
    pub(super) clients: HashMap<MapData, IpKey, Client>,
    pub(super) refused: HashMap<MapData, IpKey, Refused>,
    /// [`Total`] by [`TotalKey`], for each processor.
    pub(super) totals: MapData,
    pub(super) processors: Processors,
}

/// The kernel rounds each value up to eight bytes.
const _: () = assert!(size_of::<Total>().is_multiple_of(8));

impl Counts {
    /// Makes an entry for every reason; the kernel counts only those that are there.
    pub(super) fn open_totals(&self) -> Result<(), KernelError> {
        let totals = self.totals.fd().as_fd();
        for reason in Reason::ALL {
            match syscall::insert_zeroes::<_, Total>(totals, &TotalKey { reason }, self.processors) {
                // A former gate's, which goes on.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                done => done.map_err(|error| KernelError::system("write totals", error))?,
            }
        }
        Ok(())
    }

    pub(super) fn total(&self, reason: Reason) -> Result<Total, KernelError> {
        let totals = self.totals.fd().as_fd();
        let values = syscall::lookup_each::<_, Total>(totals, &TotalKey { reason }, self.processors)
            .map_err(|error| KernelError::system("read totals", error))?;
        Ok(values.iter().fold(Total::default(), |sum, value| Total {
            packets: sum.packets.wrapping_add(value.packets),
            events: sum.events.wrapping_add(value.events),
            suppressed: sum.suppressed.wrapping_add(value.suppressed),
        }))
    }

    pub(super) fn client(&self, key: &IpKey) -> Result<Option<Client>, KernelError> {
        found(self.clients.get(key, 0)).map_err(KernelError::map(map::CLIENTS))
    }

    pub(super) fn refused(&self, address: &IpKey) -> Result<Option<Refused>, KernelError> {
        found(self.refused.get(address, 0)).map_err(KernelError::map(map::REFUSED))
    }

    pub(super) fn clients(&self) -> Vec<(IpAddr, Client)> {
        // An entry that goes while it is read ends the walk or is left out; the next reading has the rest.
        self.clients.iter().filter_map(Result::ok).map(|(key, client)| (address_of(&key), client)).collect()
    }

    /// Removes clients that have no connection and have not been seen for long; returns how many. A connection made between the
    /// look and the removal would go uncounted, which is why only clients idle for a minute at least are looked at.
    pub(super) fn sweep(&mut self) -> Result<usize, KernelError> {
        let all: Vec<(IpKey, Client)> = self.clients.iter().filter_map(Result::ok).collect();
        let idle = if all.len() > CLIENT_ENTRIES / 2 { IDLE_CROWDED } else { IDLE };
        let oldest = now_ns().saturating_sub(u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX));
        let mut removed = 0;
        for (key, client) in all {
            if client.active == 0
                && client.last_seen_ns < oldest
                && self.client(&key)? == Some(client)
                && found(self.clients.remove(&key)).map_err(KernelError::map(map::CLIENTS))?.is_some()
            {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// What is not there is nothing, not an error.
fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(None),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
