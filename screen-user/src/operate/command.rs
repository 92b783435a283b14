//! The subcommands that talk to a running gate, and those that need none.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Read, Write},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    blocklist, cache,
    cli::{Cli, Command, EntryArgs, ImportArgs, ListArgs, Page, RunArgs, StatusArgs},
    doctor,
    exit::{Code, Failure},
    explain, manual,
    request::{self, Entry, Request},
    table, top, upgrade, what_if,
};
use crate::{
    config::{self, Host},
    gate, keeper,
    kernel::remove_left,
};

/// Carries out one command line.
///
/// # Errors
/// What went wrong, with the status to exit with.
pub fn execute(cli: Cli) -> Result<(), Failure> {
    let gate = cli.gate();
    match cli.command {
        Command::Screener => gate::screen(),
        Command::Run { arguments, heir } => {
            keeper::run(&arguments.config, &overrides(&arguments, cli.control.as_deref()), heir)
        }
        Command::Check(arguments) => check(&arguments.config, &overrides(&arguments, cli.control.as_deref())),
        Command::Doctor(arguments) => {
            let overrides = overrides(&arguments.configuration, cli.control.as_deref());
            doctor::run(&arguments.configuration.config, &overrides, arguments.json)
        }
        Command::Status(arguments) => status(&gate, &arguments),
        Command::Top(arguments) => top::run(&gate, arguments.interval),
        Command::Explain(arguments) => explain::run(&gate, &arguments),
        Command::WhatIf(arguments) => what_if::run(&arguments),
        Command::Deny(arguments) => entry(&gate, &arguments, Request::Deny),
        Command::Allow(arguments) => entry(&gate, &arguments, Request::Allow),
        Command::Forget(arguments) => said(&gate, &Request::Forget { net: arguments.net }),
        Command::List(arguments) => list(&gate, &arguments),
        Command::Blocklist(arguments) => blocklist::run(&gate, &arguments),
        Command::Cache(arguments) => cache::run(&gate, &arguments),
        Command::Recount => said(&gate, &Request::Recount),
        Command::Reload => said(&gate, &Request::Reload),
        Command::Upgrade => upgrade::run(&gate),
        Command::Stop { detach, pin_path } => stop(&gate, detach.then_some(&pin_path)),
        Command::ImportPostfix(arguments) => import_postfix(&arguments),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::description(), "mxscreen", &mut text);
            print(&String::from_utf8_lossy(&text))
        }
        Command::Man { page } => print(&match page {
            Page::Mxscreen => manual::command(Cli::description()),
            Page::Configuration => config::manual(),
        }),
    }
}

pub(super) fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        // `mxscreen list | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Failure::unavailable),
    }
}

/// What the command line says over the configuration.
fn overrides(arguments: &RunArgs, control: Option<&Path>) -> Vec<(String, String)> {
    let control = control.map(|path| ("control.socket".to_owned(), path.display().to_string()));
    arguments.overrides.iter().cloned().chain(control).collect()
}

fn check(path: &Path, overrides: &[(String, String)]) -> Result<(), Failure> {
    let loaded = config::load(&Host::here(), path, overrides).map_err(Failure::usage)?;
    let mut text = String::new();
    for remark in loaded.remarks() {
        text.push_str(&remark);
        text.push('\n');
    }
    let _ = writeln!(text, "{}: ok", path.display());
    print(&text)
}

fn import_postfix(arguments: &ImportArgs) -> Result<(), Failure> {
    let (text, origin) = match &arguments.main_cf {
        Some(path) => (read(path)?, path.as_path()),
        None if io::stdin().is_terminal() => {
            return Err(Failure::usage(
                "standard input is a terminal: name a file (--main-cf /etc/postfix/main.cf), or `postconf -n | mxscreen import-postfix`",
            ));
        }
        None => {
            let mut text = Vec::new();
            io::stdin().read_to_end(&mut text).map_err(Failure::unavailable)?;
            (String::from_utf8_lossy(&text).into_owned(), Path::new("standard input"))
        }
    };
    let imported = config::import_postfix::import(&text, origin, arguments.dry_run);
    for warning in &imported.warnings {
        eprintln!("mxscreen: warning: {warning}");
    }
    print(&imported.toml)
}

fn read(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn entry(gate: &Path, arguments: &EntryArgs, request: fn(Entry) -> Request) -> Result<(), Failure> {
    let entry = Entry {
        net: arguments.net,
        seconds: arguments.duration.map(|duration| duration.as_secs().max(1)),
        reason: arguments.reason.clone(),
    };
    said(gate, &request(entry))
}

/// Sends a request whose answer is a list of sentences.
pub(super) fn said(gate: &Path, request: &Request) -> Result<(), Failure> {
    let answer = request::ask(gate, request)?;
    let sentences = answer.as_array().into_iter().flatten().filter_map(Value::as_str);
    print(&sentences.map(|sentence| format!("{sentence}\n")).collect::<String>())
}

/// Stops the gate. With `pins`, what one that is gone has left there is removed, too.
fn stop(gate: &Path, pins: Option<&PathBuf>) -> Result<(), Failure> {
    let stopped = said(gate, &Request::Stop { detach: pins.is_some() });
    let (Err(Failure { code: Code::Unavailable, .. }), Some(pins)) = (&stopped, pins) else { return stopped };
    match remove_left(pins) {
        Ok(true) => print(&format!("no gate answers; what one had left under {} is removed\n", pins.display())),
        Ok(false) => stopped,
        Err(error) => Err(Failure::of_kernel(&error)),
    }
}

pub(super) fn json(value: &Value) -> Result<(), Failure> {
    print(&format!("{}\n", serde_json::to_string_pretty(value).map_err(Failure::bug)?))
}

fn list(gate: &Path, arguments: &ListArgs) -> Result<(), Failure> {
    let answer = request::ask(gate, &Request::List { which: arguments.which })?;
    if arguments.json {
        return json(&answer);
    }
    let rows: Vec<Vec<String>> = answer
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| {
            let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let ends = row.get("seconds_left").and_then(Value::as_u64).map_or_else(|| "never".to_owned(), table::span);
            vec![text("list"), text("net"), ends, text("origin"), text("host"), text("reason")]
        })
        .collect();
    print(&table::render(&["LIST", "NETWORK", "ENDS IN", "ORIGIN", "HOST", "REASON"], &rows))
}

fn status(gate: &Path, arguments: &StatusArgs) -> Result<(), Failure> {
    let answer = request::ask(gate, &Request::Status)?;
    if arguments.json { json(&answer) } else { print(&outline(&answer)) }
}

/// A JSON value as an indented outline: what `--json` says, for people.
fn outline(value: &Value) -> String {
    let mut text = String::new();
    write_outline(&mut text, value, 0);
    text
}

fn write_outline(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = name.replace('_', " ");
                match field {
                    Value::Object(inner) if inner.is_empty() => {}
                    Value::Array(inner) if inner.is_empty() => {
                        let _ = writeln!(text, "{indent}{name}: none");
                    }
                    nested if is_nested(nested) => {
                        let _ = writeln!(text, "{indent}{name}:");
                        write_outline(text, field, depth + 1);
                    }
                    plain => {
                        let _ = writeln!(text, "{indent}{name}: {}", word(plain));
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(fields) if fields.values().any(is_nested) => {
                        let _ = writeln!(text, "{indent}-");
                        write_outline(text, item, depth + 1);
                    }
                    // One line an item: its fields in order, as `name value` pairs.
                    Value::Object(fields) => {
                        let pairs: Vec<String> = fields
                            .iter()
                            .filter(|(_, field)| !field.is_null())
                            .map(|(name, field)| format!("{} {}", name.replace('_', " "), word(field)))
                            .collect();
                        let _ = writeln!(text, "{indent}- {}", pairs.join(", "));
                    }
                    plain => {
                        let _ = writeln!(text, "{indent}- {}", word(plain));
                    }
                }
            }
        }
        plain => {
            let _ = writeln!(text, "{indent}{}", word(plain));
        }
    }
}

/// Whether a value needs lines of its own.
fn is_nested(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Array(items) => items.iter().any(is_nested),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(" "),
        Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_outline_shows_what_the_json_says() {
        let value = json!({
            "layout": "in-place",
            "queues": { "screening": 2, "stress_mode": false },
            "interfaces": [{ "name": "eth0", "mode": "native", "reason": null }],
            "notices": [],
        });
        let expected = "layout: in-place\nqueues:\n  screening: 2\n  stress mode: no\ninterfaces:\n  - name eth0, mode native\nnotices: none\n";
        assert_eq!(outline(&value), expected);
    }
}
