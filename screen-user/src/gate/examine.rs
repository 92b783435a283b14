//! How the mail servers take a client that they do not know, as `mxscreen doctor` asks: only the gate can have the kernel show them one.

use std::sync::Arc;

use super::Gate;
use crate::{
    config::{Backend, ClientAddress},
    forward::{
        backend::{self, Caller, OpenError},
        examine::{self, Door, Examined},
        stream::Stream,
    },
    kernel::RelayGuard,
    screen::event::Endpoints,
};

/// Connects as for a client that has passed.
struct Relayed {
    gate: Arc<Gate>,
    client_address: ClientAddress,
}

impl Door for Relayed {
    async fn open(&self, server: &Backend, endpoints: &Endpoints) -> Result<(Stream, Option<RelayGuard>), String> {
        let caller = Caller { kernel: self.gate.relay_kernel(), keeper: &self.gate.keeper, endpoints, tls: None };
        backend::connect_this(server, self.client_address, &caller).await.map_err(|error| match error {
            OpenError::Unreachable { source, .. } => source.to_string(),
            other => other.to_string(),
        })
    }
}

impl Gate {
    /// Visits each mail server a few times.
    pub(super) async fn examine_mail_servers(self: &Arc<Self>) -> Vec<Examined> {
        let config = self.config.load_full();
        let door = Relayed { gate: Arc::clone(self), client_address: config.forward.client_address };
        examine::all(&config, &Arc::new(door)).await
    }
}
