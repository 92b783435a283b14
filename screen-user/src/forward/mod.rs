//! The ways to hand a client to the mail server.

pub mod backend;
pub mod header;
pub mod pass;
pub mod probe;
pub mod relay;
pub mod replay;
pub mod survey;
mod talk;
mod xclient;
