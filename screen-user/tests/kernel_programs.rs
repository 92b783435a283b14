//! The kernel programs in the kernel: single frames through the gate, and real connections in network namespaces.
//!
//! Needs root (CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, and CAP_SYS_ADMIN for the namespaces). Without it a test says so and is
//! skipped; where `CI` is set it fails.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the lints' exception for tests does not reach what tests call"
)]

#[path = "kernel_programs/counting.rs"]
mod counting;
#[path = "kernel_programs/frames.rs"]
mod frames;
#[path = "kernel_programs/gate.rs"]
mod gate;
#[path = "kernel_programs/hidden.rs"]
mod hidden;
#[path = "kernel_programs/hostile.rs"]
mod hostile;
#[path = "kernel_programs/hung.rs"]
mod hung;
#[path = "kernel_programs/killed.rs"]
mod killed;
#[path = "kernel_programs/ladder.rs"]
mod ladder;
#[path = "../../tests/src/leftovers.rs"]
mod leftovers;
#[path = "kernel_programs/place.rs"]
mod place;
#[path = "kernel_programs/recounting.rs"]
mod recounting;
#[path = "kernel_programs/refusing.rs"]
mod refusing;
#[path = "kernel_programs/relays.rs"]
mod relays;
#[path = "kernel_programs/sandboxed.rs"]
mod sandboxed;
#[path = "kernel_programs/servers.rs"]
mod servers;
#[path = "kernel_programs/shown.rs"]
mod shown;
#[path = "kernel_programs/site.rs"]
mod site;
#[path = "kernel_programs/steering.rs"]
mod steering;
#[path = "kernel_programs/succession.rs"]
mod succession;
#[path = "kernel_programs/tables.rs"]
mod tables;
#[path = "kernel_programs/told.rs"]
mod told;
#[path = "kernel_programs/unprivileged.rs"]
mod unprivileged;
