//! Which mail server takes the next client, and who waits for a place with one.
//!
//! It decides, and does no I/O: clocks come from outside, and whoever sends clients says how they were received.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    health::{Attempt, Health},
    visit::{Listener, Visit},
};
use crate::config::{Backend, ClientAddress, Forward};

/// Clients that may wait for one mail server's greeting at a time; further ones come after them, in order. Mail servers' listening sockets
/// have room for some 100, and what comes beyond that waits for the kernel to repeat its SYN, for seconds.
const OPENINGS: u32 = 64;

const TAKES_CLIENTS: &str = "takes clients";
const FULL: &str = "full";
/// Some of its listeners are left out.
const PARTLY_LEFT_OUT: &str = "partly left out";

/// The mail servers, and the clients that wait for a place.
#[derive(Debug)]
pub(super) struct Servers {
    list: List,
    /// In the order in which they came.
    queue: VecDeque<(Ticket, Visit)>,
    next: u64,
}

/// A client that asked for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ticket(u64);

/// A place with a mail server: it counts there until it is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) backend: Backend,
    /// How the server expects to learn who the client is.
    pub(super) client_address: ClientAddress,
    listener: Listener,
    attempt: Attempt,
}

/// What became of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The server is left out for so long.
    LeftOut(Duration),
    /// The server takes clients again.
    Again,
}

/// What `status` shows of a mail server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// As the configuration names it.
    pub server: String,
    /// Whether it takes clients, in words.
    pub state: &'static str,
    /// None where servers are taken in order.
    pub weight: Option<u16>,
    /// Connections, those included that wait for its greeting.
    pub open: u32,
    /// Connections that wait for its greeting.
    pub waiting_for_greeting: u32,
    /// Clients that it has greeted.
    pub served: u64,
    /// Clients that it did not serve.
    pub failures: u64,
    /// Unix time of the last time that it failed after it took clients, took them again, or was drained.
    pub since: u64,
    /// Why it is left out.
    pub trouble: Option<String>,
}

impl Shown {
    /// Whether it takes clients, or would if it were not full.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, TAKES_CLIENTS | FULL | PARTLY_LEFT_OUT)
    }
}

#[derive(Debug)]
struct List {
    servers: Vec<Server>,
    client_address: ClientAddress,
    weighted: bool,
    /// Most connections to one server; zero: no limit.
    most_open: u32,
}

#[derive(Debug)]
struct Server {
    backend: Backend,
    /// Zero: it takes nobody new.
    weight: u16,
    /// Whether it stands in the configuration.
    listed: bool,
    /// How far it is behind its share.
    credit: i64,
    open: u32,
    opening: u32,
    served: u64,
    failures: u64,
    since: Instant,
    listeners: BTreeMap<Listener, Health>,
}

enum Choice {
    /// The one with this place in the list.
    Server(usize, Listener),
    /// All that may take it are full.
    Wait,
    /// None is left that it could try.
    Nobody,
}

impl Servers {
    /// Those of this configuration.
    pub(super) fn new(forward: &Forward, now: Instant) -> Self {
        let client_address = forward.client_address;
        let mut list = List { servers: Vec::new(), client_address, weighted: false, most_open: 0 };
        list.configure(forward, now);
        Self { list, queue: VecDeque::new(), next: 0 }
    }

    /// Goes by this configuration from now on. A server that is no longer in it keeps the connections that it has.
    pub(super) fn configure(&mut self, forward: &Forward, now: Instant) {
        self.list.configure(forward, now);
    }

    /// Puts a client in the queue; [`Self::hand_out`] comes next.
    pub(super) fn ask(&mut self, visit: Visit) -> Ticket {
        let ticket = Ticket(self.next);
        self.next = self.next.wrapping_add(1);
        self.queue.push_back((ticket, visit));
        ticket
    }

    /// The client does not wait any more.
    pub(super) fn give_up(&mut self, ticket: Ticket) {
        self.queue.retain(|(other, _)| *other != ticket);
    }

    /// Gives what places there are to those that wait, first come, first served. `None`: no server is left that the client could try.
    pub(super) fn hand_out(&mut self, now: Instant) -> Vec<(Ticket, Option<Given>)> {
        let Self { list, queue, .. } = self;
        let mut answered = Vec::new();
        // Whoever could go to the same servers and came later waits as well.
        let mut stuck: Vec<Visit> = Vec::new();
        queue.retain(|(ticket, visit)| {
            if stuck.contains(visit) {
                return true;
            }
            match list.choose(visit, now) {
                Choice::Server(index, listener) => answered.push((*ticket, list.give(index, listener, now))),
                Choice::Nobody => answered.push((*ticket, None)),
                Choice::Wait => {
                    stuck.push(visit.clone());
                    return true;
                }
            }
            false
        });
        answered
    }

    /// Whether there is another server that the client could try: one that takes clients, if `well`.
    pub(super) fn another(&self, visit: &Visit, well: bool, now: Instant) -> bool {
        self.list.candidates(visit).any(|(_, server, listener)| !well || server.is_ready(listener, now))
    }

    /// The client has been served, or has not, and why: it does not wait for a greeting any more.
    pub(super) fn settle(&mut self, given: &Given, served: Result<(), &str>, now: Instant) -> Option<Change> {
        let server = self.list.find(&given.backend)?;
        server.opening = server.opening.saturating_sub(1);
        match served {
            Ok(()) => server.served += 1,
            Err(_) => server.failures += 1,
        }
        let health = server.listeners.get_mut(&given.listener)?;
        match served {
            Ok(()) => health.works(given.attempt, now).then_some(Change::Again),
            Err(trouble) => health.fails(given.attempt, trouble, now).map(Change::LeftOut),
        }
    }

    /// Takes a place back, of a client that was [settled](Self::settle) or found out nothing.
    pub(super) fn release(&mut self, given: &Given, settled: bool) {
        let Some(server) = self.list.find(&given.backend) else { return };
        server.open = server.open.saturating_sub(1);
        if !settled {
            server.opening = server.opening.saturating_sub(1);
            if let Some(health) = server.listeners.get_mut(&given.listener) {
                health.abandon(given.attempt);
            }
        }
        self.list.servers.retain(|server| server.listed || server.open > 0);
    }

    /// Clients in the queue.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// What `status` shows, in the order of the list; then those that are no longer in it.
    pub(super) fn show(&self, now: Instant, unix_now: u64) -> Vec<Shown> {
        self.list.servers.iter().map(|server| server.show(&self.list, now, unix_now)).collect()
    }
}

impl List {
    fn configure(&mut self, forward: &Forward, now: Instant) {
        self.weighted = !forward.weights.is_empty();
        self.most_open = forward.most_connections;
        self.client_address = forward.client_address;
        let mut former = std::mem::take(&mut self.servers);
        for (index, backend) in forward.relayed_to().iter().enumerate() {
            let weight = forward.weights.get(index).copied().unwrap_or(1);
            let known = former.iter().position(|server| server.backend == *backend);
            let mut server = known.map_or_else(|| Server::new(backend.clone(), now), |known| former.remove(known));
            server.turn(weight, true, now);
            self.servers.push(server);
        }
        for mut server in former.into_iter().filter(|server| server.open > 0) {
            server.turn(0, false, now);
            self.servers.push(server);
        }
    }

    fn find(&mut self, backend: &Backend) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.backend == *backend)
    }

    /// The servers that may take the client, in order, by their places in the list.
    fn candidates(&self, visit: &Visit) -> impl Iterator<Item = (usize, &Server, Listener)> {
        let servers = self.servers.iter().enumerate().filter(|(_, server)| server.weight > 0);
        servers
            .filter_map(|(index, server)| Some((index, server, visit.listener(&server.backend, self.client_address)?)))
    }

    /// Servers that are left out get a client only if there are no others: then all are tried, in order.
    fn choose(&mut self, visit: &Visit, now: Instant) -> Choice {
        let candidates: Vec<_> = self.candidates(visit).collect();
        if candidates.is_empty() {
            return Choice::Nobody;
        }
        let ready: Vec<_> =
            candidates.iter().copied().filter(|(_, server, listener)| server.is_ready(*listener, now)).collect();
        let chosen = if ready.is_empty() {
            candidates.into_iter().find(|(_, server, _)| self.has_place(server) && server.takes_one_more())
        } else if self.weighted {
            let free = ready.iter().filter(|(_, server, _)| self.has_place(server) && server.takes_one_more());
            let free: Vec<(usize, Listener)> = free.map(|(index, _, listener)| (*index, *listener)).collect();
            return self.by_weight(&free);
        } else {
            // A crowd before the first one is no reason to go to the second.
            let first = ready.into_iter().find(|(_, server, _)| self.has_place(server));
            first.filter(|(_, server, _)| server.takes_one_more())
        };
        chosen.map_or(Choice::Wait, |(index, _, listener)| Choice::Server(index, listener))
    }

    /// The one that is farthest behind its share. Each gets its share at once, without runs of clients.
    fn by_weight(&mut self, free: &[(usize, Listener)]) -> Choice {
        let mut total = 0;
        let mut chosen: Option<(i64, usize, Listener)> = None;
        for &(index, listener) in free {
            let Some(server) = self.servers.get_mut(index) else { continue };
            server.credit += i64::from(server.weight);
            total += i64::from(server.weight);
            if chosen.is_none_or(|(credit, ..)| server.credit > credit) {
                chosen = Some((server.credit, index, listener));
            }
        }
        let Some((_, index, listener)) = chosen else { return Choice::Wait };
        if let Some(server) = self.servers.get_mut(index) {
            server.credit -= total;
        }
        Choice::Server(index, listener)
    }

    fn give(&mut self, index: usize, listener: Listener, now: Instant) -> Option<Given> {
        let server = self.servers.get_mut(index)?;
        server.open += 1;
        server.opening += 1;
        let since = server.since;
        let attempt = server.listeners.entry(listener).or_insert_with(|| Health::new(since)).begin(now);
        Some(Given { backend: server.backend.clone(), client_address: self.client_address, listener, attempt })
    }

    const fn has_place(&self, server: &Server) -> bool {
        self.most_open == 0 || server.open < self.most_open
    }
}

impl Server {
    fn new(backend: Backend, now: Instant) -> Self {
        Self {
            backend,
            weight: 1,
            listed: true,
            credit: 0,
            open: 0,
            opening: 0,
            served: 0,
            failures: 0,
            since: now,
            listeners: BTreeMap::new(),
        }
    }

    /// Changes its share.
    fn turn(&mut self, weight: u16, listed: bool, now: Instant) {
        if (self.weight > 0) != (weight > 0) {
            self.since = now;
        }
        if self.weight != weight {
            self.credit = 0;
        }
        self.weight = weight;
        self.listed = listed;
    }

    fn is_ready(&self, listener: Listener, now: Instant) -> bool {
        self.listeners.get(&listener).is_none_or(|health| health.is_ready(now))
    }

    const fn takes_one_more(&self) -> bool {
        self.opening < OPENINGS
    }

    fn show(&self, list: &List, now: Instant, unix_now: u64) -> Shown {
        let left_out = self.listeners.values().filter(|health| health.trouble().is_some()).count();
        let state = match (self.weight, left_out) {
            (0, _) => "drained",
            (_, 0) if list.has_place(self) => TAKES_CLIENTS,
            (_, 0) => FULL,
            (_, some) if some < self.listeners.len() => PARTLY_LEFT_OUT,
            _ => "left out",
        };
        let since = self.listeners.values().map(Health::since).fold(self.since, Instant::max);
        Shown {
            server: self.backend.to_string(),
            state,
            weight: (list.weighted && self.listed).then_some(self.weight),
            open: self.open,
            waiting_for_greeting: self.opening,
            served: self.served,
            failures: self.failures,
            since: unix_now.saturating_sub(now.saturating_duration_since(since).as_secs()),
            trouble: self.listeners.values().find_map(Health::trouble).map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests;
