//! Where the keys of a lane are, as far as this host knows. All its connections lead there: what is told in one place and heard in
//! another would not be heard.

use std::{sync::Arc, time::Duration};

use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;

use super::{
    super::Fault,
    server::{Address, Servers},
};

/// The place, once one was found.
#[derive(Debug)]
pub(super) struct Home {
    servers: Arc<Servers>,
    at: Mutex<Option<Address>>,
}

impl Home {
    /// Not known yet.
    pub(super) fn new(servers: Arc<Servers>) -> Self {
        Self { servers, at: Mutex::new(None) }
    }

    /// Where it is; none if that has to be found out.
    pub(super) async fn at(&self) -> Option<Address> {
        self.at.lock().await.clone()
    }

    /// Connects to it, after finding out where it is. An answer over the connection takes no longer than `limit`.
    pub(super) async fn connect(&self, limit: Duration) -> Result<(Address, MultiplexedConnection), Fault> {
        let known = self.at().await;
        let connected = self.servers.connect(known.clone(), limit).await;
        let mut at = self.at.lock().await;
        match &connected {
            Ok((found, _)) if at.is_none() => *at = Some(found.clone()),
            Err(_) if *at == known => *at = None,
            _ => {}
        }
        connected
    }

    /// It moved.
    pub(super) async fn moved(&self, to: Address) {
        *self.at.lock().await = Some(to);
    }

    /// Something is wrong at this place: it may be elsewhere by now.
    pub(super) async fn doubt(&self, place: &Address) {
        let mut at = self.at.lock().await;
        if at.as_ref() == Some(place) {
            *at = None;
        }
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        self.servers.shown()
    }
}
