//! Load, attach, pin, maps, events: the only place of `unsafe` in the user half.
//!
//! The rest sees two things of it: [`Installation`], the programs and where they are attached, which takes privileges; and [`Kernel`],
//! the tables that they decide by, which takes none. What the programs do and in which order stands in `docs/kernel.md`.
#![allow(unsafe_code, reason = "system calls that no crate wraps; each use states why it is sound")]

mod backlog;
mod batch;
mod cgroup;
mod clock;
mod counts;
mod demands;
mod deny;
mod error;
mod events;
mod former;
mod handed;
mod host;
mod install;
mod interfaces;
mod lists;
mod maps;
mod messages;
mod netlink;
mod object;
mod owners;
mod pins;
mod plan;
mod prefix;
mod prefixes;
mod proxies;
mod readable;
mod recount;
mod relay;
mod replies;
mod saved_syn;
mod sock_diag;
mod status;
mod syscall;
mod tables;
mod trial;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use screen_common::{
    abi::{Client as ClientCounters, Refused as RefusedCounters, Total},
    reason::Reason,
};

pub use self::{
    backlog::HungServer,
    clock::{Discipline, Expiry},
    demands::{Demand, demands},
    error::KernelError,
    events::{KernelEvent, KernelEvents},
    handed::handed_over,
    install::Installation,
    interfaces::{LinkChanges, Prospect, prospects},
    maps::Maps,
    messages::Messages,
    pins::remove_left,
    plan::Plan,
    prefixes::ListId,
    readable::Readable,
    recount::{Corrected, Recount},
    relay::RelayGuard,
    saved_syn::{save_syn, take_saved_syn},
    sock_diag::{Listener, listeners},
    status::{Attached, Interface, Mode, Status, Step, Table},
    syscall::Processors,
    tables::Kernel,
};

/// A deny entry of one list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenyEntry {
    /// Until when.
    pub expires: Expiry,
    /// Which list says so.
    pub list: ListId,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// Which of the capabilities that an installation needs the calling thread lacks, as capabilities(7) names them.
///
/// # Errors
///
/// `/proc` can't be read.
pub fn missing_capabilities() -> Result<Vec<&'static str>, KernelError> {
    host::missing_capabilities()
}

/// A table whose holder panicked is whole: every change is made of single map operations.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
