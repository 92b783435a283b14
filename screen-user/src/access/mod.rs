//! Permanent and run-time lists: `access.list` with the CIDR tables that it names, and what was denied or allowed since the start.
//!
//! Decision order everywhere: a run-time allow entry, a permit of the access list, a run-time deny entry or an imported block list, a
//! reject of the access list.

pub mod address_list;
pub mod blocklist;
pub mod cidr;
mod compile;
mod list;
pub mod runtime;
mod segments;
pub mod spf;

pub use compile::{Compiled, PREFIX_LIMIT};
pub use list::{AccessList, Decision, Element, RuleId, RulePlace, Verdict};

#[cfg(test)]
mod tests;
