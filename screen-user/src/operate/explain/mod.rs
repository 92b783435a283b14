//! `mxscreen explain`: what the gate knows of one client, and what the journal has of it.

mod past;
#[cfg(test)]
mod tests;
mod text;
mod zones;

use std::{net::IpAddr, path::Path};

use ipnet::IpNet;
use serde_json::Value;

use self::{past::Past, text::text};
use super::{
    cli::ExplainArgs,
    command::{json as print_json, print},
    exit::Failure,
    request::{self, Request},
};

/// Asks the gate, and reads the journal.
///
/// # Errors
/// No gate answers.
pub(super) fn run(gate: &Path, arguments: &ExplainArgs) -> Result<(), Failure> {
    let (answer, past) = known(gate, arguments.address)?;
    if arguments.json { print_json(&answer) } else { print(&text(&answer, &past)) }
}

/// What `mxscreen explain` prints of a client.
///
/// # Errors
/// No gate answers.
pub(super) fn shown(gate: &Path, address: IpAddr) -> Result<String, Failure> {
    known(gate, address).map(|(answer, past)| text(&answer, &past))
}

fn known(gate: &Path, address: IpAddr) -> Result<(Value, Past), Failure> {
    let mut answer = request::ask(gate, &Request::Explain { address })?;
    let folder = answer.get("journal").and_then(Value::as_str).map(str::to_owned);
    let client: Option<IpNet> = answer.get("client").and_then(Value::as_str).and_then(|net| net.parse().ok());
    let past = match (folder, client) {
        (Some(folder), Some(client)) => Past::read(Path::new(&folder), client),
        _ => Past::default(),
    };
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("past".to_owned(), past.json());
    }
    Ok((answer, past))
}
