//! `mxscreen blocklist`: block lists by name, read here and handed to the running gate whole.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal as _},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    cli::duration,
    command::{json, print, said},
    exit::Failure,
    request::{self, Import, Request},
    table,
};
use crate::{
    access::blocklist::read::{At, Format, Read, read},
    config::{REPLY_TEXT, is_reply_text},
};

/// `mxscreen blocklist`.
#[derive(Debug, Args)]
pub struct BlocklistArgs {
    /// What to do with which list.
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Read a list and put it in place of the one of this name, whole or not at all
    Import(ImportArgs),
    /// Print the networks of a list
    Export {
        /// Which list
        #[arg(long = "list", value_name = "NAME")]
        name: String,
    },
    /// Show all imported lists
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a list
    Remove {
        /// Which list
        #[arg(long = "list", value_name = "NAME")]
        name: String,
    },
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// The file; `-` is standard input
    file: PathBuf,
    /// The name of the list
    #[arg(long = "list", value_name = "NAME")]
    name: String,
    /// The form of the file
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    /// How long the list holds; without it, until it is removed or replaced
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires: Option<Duration>,
    /// What clients on the list are told behind the code 521, for example "5.7.1 See example.org/listed"; `kernel.reply_texts` wins
    #[arg(long, value_name = "TEXT", value_parser = reply)]
    reply: Option<String>,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Import a list although it denies this host, a mail server, or a good part of the world, or is empty
    #[arg(long)]
    force: bool,
}

/// Carries out one `mxscreen blocklist`.
///
/// # Errors
/// The file can't be read or holds nothing (exit 64), no gate runs (69), or the gate refused.
pub(super) fn run(gate: &Path, arguments: &BlocklistArgs) -> Result<(), Failure> {
    match &arguments.action {
        Action::Import(arguments) => import(gate, arguments),
        Action::Export { name } => export(gate, name),
        Action::List { json: as_json } => list(gate, *as_json),
        Action::Remove { name } => said(gate, &Request::BlocklistRemove { name: name.clone() }),
    }
}

fn import(gate: &Path, arguments: &ImportArgs) -> Result<(), Failure> {
    let shown =
        if arguments.file == Path::new("-") { "standard input".into() } else { arguments.file.display().to_string() };
    let failed = |error: io::Error| Failure::usage(format!("{shown}: {error}"));
    let input: Box<dyn BufRead> = if arguments.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(&arguments.file).map_err(failed)?))
    };
    let terminal = io::stderr().is_terminal();
    let list = read(input, arguments.format, |entries| {
        if terminal {
            eprint!("\r{entries} entries read");
        }
    })
    .map_err(failed)?;
    if terminal && list.entries >= 100_000 {
        eprintln!("\r{} entries read; handing them to the gate", list.entries);
    }
    report_refused(&shown, &list);
    if list.entries == 0 && list.refused_count > 0 {
        return Err(Failure::usage(format!("{shown}: nothing in it is an address or a network; nothing was imported")));
    }
    let import = Import {
        name: arguments.name.clone(),
        seconds: arguments.expires.map(|duration| duration.as_secs().max(1)),
        reply: arguments.reply.clone(),
        force: arguments.force,
        dry_run: arguments.dry_run,
        addresses: list.addresses.to_bytes(),
    };
    said(gate, &Request::BlocklistImport(import))
}

fn reply(text: &str) -> Result<String, &'static str> {
    if is_reply_text(text) { Ok(text.to_owned()) } else { Err(REPLY_TEXT) }
}

fn report_refused(shown: &str, list: &Read) {
    for refused in &list.refused {
        match &refused.at {
            At::Line(number) => eprintln!("mxscreen: {shown}:{number}: refused: {}", refused.why),
            at @ At::Value(_) => eprintln!("mxscreen: {shown}: {at}: refused: {}", refused.why),
        }
    }
    let more = list.refused_count - list.refused.len();
    if more > 0 {
        eprintln!("mxscreen: {shown}: {more} more were refused");
    }
}

fn export(gate: &Path, name: &str) -> Result<(), Failure> {
    let answer = request::ask(gate, &Request::BlocklistExport { name: name.to_owned() })?;
    let networks = answer.as_array().into_iter().flatten().filter_map(Value::as_str);
    print(&networks.map(|network| format!("{network}\n")).collect::<String>())
}

fn list(gate: &Path, as_json: bool) -> Result<(), Failure> {
    let answer = request::ask(gate, &Request::Blocklists)?;
    if as_json {
        return json(&answer);
    }
    let rows: Vec<Vec<String>> = answer
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| {
            let number = |key: &str| row.get(key).and_then(Value::as_u64);
            vec![
                row.get("list").and_then(Value::as_str).unwrap_or_default().to_owned(),
                number("networks").unwrap_or_default().to_string(),
                number("seconds_left").map_or_else(|| "never".to_owned(), table::span),
                row.get("file").and_then(Value::as_str).unwrap_or("import").to_owned(),
            ]
        })
        .collect();
    print(&table::render(&["LIST", "NETWORKS", "ENDS IN", "FROM"], &rows))
}
