//! `mxscreen doctor`: what of this host does not fit the gate, and the command that mends it.
//!
//! Each subject reads the host into a plain struct; what is to be thought of it is a pure function of that struct.

mod clock;
mod descriptors;
mod files;
mod finding;
mod interfaces;
mod kernel;
mod limits;
mod mail_server;
mod ports;
mod redis;
mod resolver;
mod running;
mod zones;

use std::{path::Path, time::Duration};

use serde_json::json;

use self::finding::Grade;
use super::{
    command::{json as print_json, print},
    exit::Failure,
    request::{self, Request},
};
use crate::{
    config::{self, CacheBackend, Host},
    kernel::{Discipline, Plan, demands, prospects},
};

/// How long a running gate may take to say how it does.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits for what is asked over the network.
///
/// # Errors
/// No runtime can be had for it, in words.
fn wait<T>(question: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map(|runtime| runtime.block_on(question)).map_err(|error| error.to_string())
}

/// Looks at the host, and says what it found.
///
/// # Errors
/// The configuration can't be read, or something is wrong with the host.
pub(super) fn run(path: &Path, overrides: &[(String, String)], as_json: bool) -> Result<(), Failure> {
    let host = Host::here();
    let config = config::load(&host, path, overrides).map_err(Failure::usage)?.config;
    let facts = host.facts();
    let status = request::ask_within(&config.control_socket, &Request::Status, PATIENCE);
    let status = status.map_err(|failure| failure.message);
    let runs = status.is_ok();
    let mut findings = limits::judge(&limits::Limits::read());
    findings.push(descriptors::judge(&descriptors::Descriptors::read(&config.policy.limits, status.as_ref().ok())));
    findings.push(clock::judge(&Discipline::read(), matches!(config.cache.backend, CacheBackend::Redis(_))));
    findings.extend(files::judge(&files::Files::read(&config, &facts, path)));
    findings.extend(resolver::judge(&resolver::Recursors::read(&config)));
    findings.extend(zones::judge(&zones::read(&config)));
    findings.extend(ports::judge(&ports::Ports::read(&config, runs)));
    if !runs && config.kernel.enabled {
        findings.extend(kernel::judge(&demands(&config.kernel.pin_path)));
        findings.extend(interfaces::judge(&prospects(&Plan::from_config(&config))));
    }
    findings.extend(mail_server::judge(&mail_server::MailServers::read(&config)));
    findings.extend(redis::judge(redis::Redis::read(&config).as_ref()));
    findings.extend(running::judge(&status));
    let findings = finding::by_subject(findings);
    if as_json {
        print_json(&json!({ "findings": findings }))?;
    } else {
        print(&finding::text(&findings))?;
    }
    match findings.iter().filter(|finding| finding.grade == Grade::Wrong).count() {
        0 => Ok(()),
        wrong => Err(Failure::unavailable(format!("things that are wrong with this host: {wrong}"))),
    }
}
