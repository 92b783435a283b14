//! What the operator sees and says: command line, control socket, log, status.

pub mod blocklist;
mod cache;
pub mod cli;
pub mod command;
pub mod control;
mod doctor;
pub mod exit;
mod explain;
pub mod log;
mod manual;
pub mod metrics;
pub mod request;
pub mod table;
pub mod top;
pub mod trace;
mod upgrade;
pub mod what_if;
