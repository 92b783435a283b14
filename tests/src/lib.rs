//! Namespaces, servers and clients for the end-to-end tests.
//!
//! A test makes a [`net::Net`]: an edge host and client hosts, each a network namespace, joined by veth pairs. On the edge it starts
//! what an operator would run ([`gate::Gate`], [`postfix::Postfix`], [`server::Server`], [`dns::DnsServer`]); as a client it speaks SMTP with
//! [`smtp::Client`]. Everything goes away when its value is dropped, also when the test fails.
//!
//! The program under test is `MXSCREEN_BIN`, by default the workspace's release build; mail servers other than Postfix are unpacked in
//! `MXSCREEN_MTA`, by default `target/mta`. Without the privileges that namespaces and eBPF
//! need a test is skipped, or fails where `CI` is set. The tests wait more than they work, so that they gain from more threads than
//! there are processors (`RUST_TEST_THREADS`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the harness fails a test by panicking, with a message that says what went wrong"
)]

pub mod backend;
pub mod backplane;
pub mod bpf;
pub mod certificate;
pub mod dns;
pub mod documents;
pub mod fleet;
pub mod gate;
mod leftovers;
pub mod log_tools;
pub mod middlebox;
pub mod mta;
pub mod net;
pub mod netns;
pub mod postfix;
pub mod privilege;
pub mod process;
pub mod program;
pub mod redis;
pub mod scrape;
pub mod server;
pub mod smtp;
pub mod stage;
pub mod tmux;
pub mod wait;
pub mod wire;
