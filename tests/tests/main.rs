//! End-to-end tests: what clients, mail servers and operators see of a running gate. Each test reads like the story of a client.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod blocklist;
mod blocklist_directory;
mod cache;
mod counts;
mod denied;
mod dnsbl;
mod doctor;
mod doctor_servers;
mod documents;
mod dry_run;
mod early_talker;
mod flood;
mod good_client;
mod harness;
mod interfaces;
mod lifecycle;
mod limit;
mod log_targets;
mod log_tools;
mod mail_servers;
mod metrics;
mod pass;
mod pass_trouble;
mod pool_credit;
mod processes;
mod proxy;
mod real_clients;
mod redis;
mod refusal;
mod relay;
mod reload;
mod repeat_offenders;
mod replay;
mod service_manager;
mod several_servers;
mod sharing;
mod soak;
mod spf;
mod startup;
mod steering;
mod syn_evidence;
mod tls;
mod top;
mod upgrade;
mod warm_start;
mod what_if;
