//! The relay's connections, by which the kernel knows whom they speak for.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use aya::maps::{HashMap, MapData};
use screen_common::abi::{RelayClient, RelayKey, map};

use super::{KernelError, prefix::key_of};

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

impl Drop for RelayGuard {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = table.remove(&self.key) {
            tracing::warn!("cannot take back the relay's entry: {error}");
        }
    }
}
