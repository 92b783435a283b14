//! What edge hosts tell each other of clients and networks.
//!
//! Everything that is shared is a register that keeps its latest value: each test of a client, each run-time entry, each imported list,
//! each order to forget. What is later is told by a [`Version`]. So it does not matter in which order, how often and by which way
//! hosts hear of each other: those that have heard the same know the same.

mod forgets;
mod hosts;
mod version;

pub use self::{
    forgets::Forgets,
    hosts::{HostId, Hosts},
    version::{Clock, Version},
};
