//! What the kernel half and the user half of mxscreen must agree on: the layout of the maps, the packet decoder, and the decisions
//! that both must take alike.
//!
//! Nothing here allocates or does I/O, so that the same code runs in the kernel, in the tests and in the daemon.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod address;
pub mod cookie;
pub mod decide;
pub mod options;
pub mod packet;
pub mod reason;
pub mod reply;
#[cfg(feature = "user")]
mod user;

/// Changes whenever the layout or the meaning of a map changes; stands in [`abi::Settings::abi`].
pub const ABI: u32 = 5;
