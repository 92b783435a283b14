//! The relay's connections, by which the kernel knows whom they speak for.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use aya::maps::{HashMap, MapData};
use screen_common::abi::{RelayClient, RelayKey, map};

use super::{
    KernelError,
    prefix::{address_of, key_of},
    sock_diag,
};

type Table = Arc<Mutex<HashMap<MapData, RelayKey, RelayClient>>>;

/// The table of the relay's connections.
#[derive(Debug)]
pub(super) struct Relays(Table);

/// An entry for one connection of the relay. Drop it after the connection is closed.
#[derive(Debug)]
pub struct RelayGuard {
    table: Table,
    key: RelayKey,
}

impl Relays {
    pub(super) fn new(table: HashMap<MapData, RelayKey, RelayClient>) -> Self {
        Self(Arc::new(Mutex::new(table)))
    }

    pub(super) fn begin(
        &self,
        relay: SocketAddr,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Result<RelayGuard, KernelError> {
        let key = RelayKey { address: key_of(relay.ip()), port: u32::from(relay.port()) };
        let value = RelayClient {
            client: key_of(client.ip()),
            server: key_of(server.ip()),
            client_port: u32::from(client.port()),
            server_port: u32::from(server.port()),
        };
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.insert(key, value, 0).map_err(KernelError::map(map::RELAY_CLIENTS))?;
        Ok(RelayGuard { table: Arc::clone(&self.0), key })
    }
}

/// Entries of relays that were there before this gate: of one that was killed, or of one that still brings its sessions to their ends.
#[derive(Debug)]
pub(super) struct FormerRelays {
    table: HashMap<MapData, RelayKey, RelayClient>,
    keys: Vec<RelayKey>,
}

impl FormerRelays {
    /// Those that are in the table now.
    pub(super) fn of(table: HashMap<MapData, RelayKey, RelayClient>) -> Self {
        let keys = table.keys().filter_map(Result::ok).collect();
        Self { table, keys }
    }

    /// Removes those whose connections are no more, in the calling thread's network namespace. An entry comes before its connection, by less
    /// than it takes to load a program: whatever has no socket by now has ended.
    pub(super) fn forget_ended(&mut self) -> Result<(), KernelError> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let sockets: HashSet<SocketAddr> = sock_diag::connections()
            .map_err(|error| KernelError::system("list the connections of this host", error))?
            .into_iter()
            .collect();
        for key in std::mem::take(&mut self.keys) {
            let relay = u16::try_from(key.port).ok().map(|port| SocketAddr::new(address_of(&key.address), port));
            if !relay.is_some_and(|relay| sockets.contains(&relay)) {
                // Its own relay may just have removed it.
                let _ = self.table.remove(&key);
            }
        }
        Ok(())
    }
}

impl Drop for RelayGuard {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = table.remove(&self.key) {
            tracing::warn!("cannot take back the relay's entry: {error}");
        }
    }
}
