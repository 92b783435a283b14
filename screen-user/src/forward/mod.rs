//! The ways to hand a client to the mail server.

pub mod backend;
pub mod examine;
pub mod header;
mod health;
pub mod pass;
pub mod pool;
pub mod probe;
pub mod relay;
pub mod replay;
mod servers;
pub mod stream;
pub mod survey;
mod talk;
mod visit;
mod xclient;
