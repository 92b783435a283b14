//! A client's way to the mail server, from the opening to the end of the relay.

use std::{sync::Arc, time::Duration};

use crate::{
    config::ClientAddress,
    forward::{
        backend::{self, Caller, OpenError, Opened},
        relay::{Side, Unsent, relay},
        replay::replay,
    },
    gate::Gate,
    screen::{
        event::{Endpoints, Envelope},
        log::Peer,
    },
};

use super::{
    io::{Connection, Transport},
    tls_facts::TlsFacts,
};

/// A relayed session in which nothing moves for so long has been forgotten by both sides (RFC 5321 section 4.5.3.2 asks for 10 minutes at most).
const RELAY_IDLE: Duration = Duration::from_secs(3600);

/// A mail server has taken the client.
pub(super) struct Taken {
    opened: Opened,
    /// What each of the two has said that the other has not heard.
    unsent: Unsent,
}

impl Taken {
    /// Relays what client and mail server say until both have ended.
    pub(super) async fn relay(self, gate: &Arc<Gate>, mut connection: Connection) {
        let Self { opened, mut unsent } = self;
        unsent.to_client.splice(..0, connection.take_unsent());
        match connection.transport {
            Transport::Plain(client) => carry(gate, client, opened, unsent).await,
            Transport::Tls(client) => carry(gate, *client, opened, unsent).await,
            Transport::Gone => {}
        }
    }
}

/// Relays until both sides have ended. Until then the mail server may ask for the client's address.
async fn carry(gate: &Arc<Gate>, client: impl Side, opened: Opened, unsent: Unsent) {
    let _relayed = gate.count_relay();
    relay(client, opened.stream, unsent, gate.traffic(), RELAY_IDLE).await;
    drop((opened.entry, opened.place));
}

/// Opens the mail server, and tells it what the client has said, if it has said anything.
///
/// # Errors
/// No mail server has taken the client.
pub(super) async fn take(
    gate: &Gate,
    envelope: Option<Box<Envelope>>,
    endpoints: &Endpoints,
    tls: Option<TlsFacts>,
) -> Result<Taken, OpenError> {
    let caller = Caller { kernel: gate.relay_kernel(), keeper: gate.keeper(), endpoints, tls: tls.as_ref() };
    let opened = backend::open(gate.pool(), &caller).await?;
    match envelope {
        Some(envelope) => say_again(gate, opened, *envelope, endpoints).await,
        None => Ok(Taken { opened, unsent: Unsent::default() }),
    }
}

/// Tells the mail server what the client has said.
async fn say_again(
    gate: &Gate,
    mut opened: Opened,
    envelope: Envelope,
    endpoints: &Endpoints,
) -> Result<Taken, OpenError> {
    // Who knows the client's address by other means is not told again.
    let introduce = (opened.place.client_address() == ClientAddress::None).then_some(endpoints);
    match replay(&mut opened.stream, &envelope, introduce).await {
        Ok(answer) => {
            if let Some(refusal) = answer.refusal {
                gate.log().info(format!("backend {} {refusal} for {}", opened.target, Peer(endpoints.client)));
            }
            Ok(Taken { opened, unsent: Unsent { to_client: answer.bytes, to_server: envelope.behind.into_vec() } })
        }
        Err(what) => Err(OpenError::NoAnswer { target: opened.target, what }),
    }
}
