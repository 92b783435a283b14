//! `mxscreen upgrade`: asks for it, and waits until another screener answers.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    command::{print, said},
    exit::Failure,
    request::{self, Request},
};

/// How long the other version may take until it serves.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two questions whether it does.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn run(gate: &Path) -> Result<(), Failure> {
    let before = screener(&request::ask(gate, &Request::Status)?);
    said(gate, &Request::Upgrade)?;
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        // Between the two versions nobody answers.
        if let Ok(status) = request::ask(gate, &Request::Status)
            && screener(&status) != before
        {
            let version = status.get("version").and_then(Value::as_str).unwrap_or("?");
            return print(&format!("mxscreen {version} serves; sessions that were open go on\n"));
        }
        thread::sleep(PAUSE);
    }
    Err(Failure::unavailable(format!("no other version serves after {} s: the log says why", LIMIT.as_secs())))
}

/// The process that answers.
fn screener(status: &Value) -> Option<u64> {
    status.get("screener").and_then(Value::as_u64)
}
