//! The mail servers as the sessions share them: a place with one of them, waited for and given back.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde::Serialize;
use tokio::sync::oneshot;

use super::{
    servers::{Change, Given, Servers, Ticket},
    visit::Visit,
};
use crate::{
    config::{Backend, ClientAddress, Forward},
    operate::log::Log,
    unix_time::unix_now,
};

pub use super::servers::Shown;

/// The mail servers. They outlive a reload: who has connections, and who is left out.
#[derive(Debug)]
pub struct Pool {
    state: Mutex<State>,
    log: Log,
}

#[derive(Debug)]
struct State {
    servers: Servers,
    waiting: HashMap<Ticket, oneshot::Sender<Given>>,
}

/// What `status` shows of the mail servers.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Clients that wait until a mail server has room for them.
    pub waiting_for_a_place: usize,
    /// The mail servers, in the order of the configuration.
    pub servers: Vec<Shown>,
}

/// A place with a mail server, which counts as a connection to it until it is dropped.
#[derive(Debug)]
pub struct Place {
    pool: Arc<Pool>,
    given: Given,
    settled: bool,
}

impl Pool {
    /// The mail servers of a configuration. What becomes of them is logged.
    #[must_use]
    pub fn new(forward: &Forward, log: Log) -> Self {
        let servers = Servers::new(forward, Instant::now());
        Self { state: Mutex::new(State { servers, waiting: HashMap::new() }), log }
    }

    /// Goes by this configuration from now on. Connections to servers that are no longer in it go on.
    pub fn configure(&self, forward: &Forward) {
        let mut state = self.state();
        state.servers.configure(forward, Instant::now());
        state.hand_out();
    }

    /// Lets clients that wait try the servers that it is time to try again; to be called about once a second.
    pub fn tick(&self) {
        self.state().hand_out();
    }

    /// What `status` shows.
    pub fn report(&self) -> Report {
        let state = self.state();
        let servers = state.servers.show(Instant::now(), unix_now());
        Report { waiting_for_a_place: state.servers.waiting(), servers }
    }

    /// A place for the client, which waits for its turn while all servers are full; `None` if none is left that it could try.
    pub(super) async fn place(self: &Arc<Self>, visit: &Visit) -> Option<Place> {
        let mut waiting = {
            let mut state = self.state();
            let ticket = state.servers.ask(visit.clone());
            let (sender, answer) = oneshot::channel();
            state.waiting.insert(ticket, sender);
            state.hand_out();
            Waiting { pool: self, ticket, answer }
        };
        let given = (&mut waiting.answer).await.ok()?;
        Some(Place { pool: Arc::clone(self), given, settled: false })
    }

    /// Whether there is another server that the client could try: one that takes clients, if `well`.
    pub(super) fn another(&self, visit: &Visit, well: bool) -> bool {
        self.state().servers.another(visit, well, Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn hand_out(&mut self) {
        for (ticket, given) in self.servers.hand_out(Instant::now()) {
            // Without a place the channel ends, which is the answer.
            if let (Some(waiting), Some(given)) = (self.waiting.remove(&ticket), given) {
                // It can't fail: whoever stops waiting takes its ticket back first.
                let _ = waiting.send(given);
            }
        }
    }
}

/// A client in the queue; whether it gets a place or leaves, nothing of it stays there.
struct Waiting<'a> {
    pool: &'a Pool,
    ticket: Ticket,
    answer: oneshot::Receiver<Given>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        if state.waiting.remove(&self.ticket).is_some() {
            state.servers.give_up(self.ticket);
        } else if let Ok(given) = self.answer.try_recv() {
            // It left in the moment in which its turn came.
            state.servers.release(&given, false);
            state.hand_out();
        }
    }
}

impl Place {
    /// With which server.
    pub(super) fn backend(&self) -> &Backend {
        &self.given.backend
    }

    /// How the server expects to learn who the client is.
    #[must_use]
    pub const fn client_address(&self) -> ClientAddress {
        self.given.client_address
    }

    /// The server has greeted the client.
    pub(super) fn served(&mut self, target: &impl fmt::Display) {
        self.settle(Ok(()), target);
    }

    /// The server has not served the client, and why.
    pub(super) fn failed(&mut self, trouble: &str, target: &impl fmt::Display) {
        self.settle(Err(trouble), target);
    }

    fn settle(&mut self, served: Result<(), &str>, target: &impl fmt::Display) {
        self.settled = true;
        let change = {
            let mut state = self.pool.state();
            let change = state.servers.settle(&self.given, served, Instant::now());
            state.hand_out();
            change
        };
        match (change, served) {
            (Some(Change::LeftOut(pause)), Err(trouble)) => {
                let seconds = pause.as_secs();
                self.pool.log.warn(format!("mail server {target}: {trouble}; left out for {seconds} s"));
            }
            (Some(Change::Again), _) => self.pool.log.info(format!("mail server {target} takes clients again")),
            (Some(Change::LeftOut(_)) | None, _) => {}
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.servers.release(&self.given, self.settled);
        state.hand_out();
    }
}
