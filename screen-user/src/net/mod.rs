//! Listeners, PROXY headers, TLS, and the loop that drives a session.

mod closing;
mod driver;
pub mod expiry;
mod hand_over;
mod io;
mod keepalive;
pub mod listener;
pub mod proxy;
mod proxy_wait;
pub mod tls;
pub mod tls_facts;
