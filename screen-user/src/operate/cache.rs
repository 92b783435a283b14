//! `mxscreen cache`: what the gate knows as a file, and a file, or postscreen's cache, into what it knows.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::{
    command::print,
    exit::Failure,
    request::{self, CacheForm, CacheImport, Request},
};
use crate::share::{SHARDS, exchange};

/// Bytes of lines that are sent together, unless a single one is longer.
const BATCH: usize = 1 << 20;

/// `mxscreen cache`.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// What to do.
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print all that the gate knows of clients and networks, a line of JSON each
    Export,
    /// Take over what a file says, where the gate does not know better
    Import(ImportArgs),
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// The file; `-` is standard input
    file: PathBuf,
    /// The form of the file
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    /// Say what would be taken over, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// By the first line
    Auto,
    /// What `mxscreen cache export` prints
    Mxscreen,
    /// What `postmap -s` prints of postscreen's cache
    Postscreen,
}

/// Carries out one `mxscreen cache`.
///
/// # Errors
/// The file can't be read or holds nothing that can be taken over (exit 64), or no gate runs (69).
pub(super) fn run(gate: &Path, arguments: &CacheArgs) -> Result<(), Failure> {
    match &arguments.action {
        Action::Export => export(gate),
        Action::Import(arguments) => import(gate, arguments),
    }
}

fn export(gate: &Path) -> Result<(), Failure> {
    print(&format!("{}\n", exchange::HEAD))?;
    for shard in 0..SHARDS {
        let answer = request::ask(gate, &Request::CacheExport { shard })?;
        let lines = answer.as_array().into_iter().flatten().filter_map(Value::as_str);
        print(&lines.map(|line| format!("{line}\n")).collect::<String>())?;
    }
    Ok(())
}

/// What became of all lines.
#[derive(Default)]
struct Sum {
    taken: u64,
    known: u64,
    over: u64,
    refused: u64,
}

fn import(gate: &Path, arguments: &ImportArgs) -> Result<(), Failure> {
    let from_stdin = arguments.file == Path::new("-");
    let shown = if from_stdin { "standard input".into() } else { arguments.file.display().to_string() };
    let failed = |error: io::Error| Failure::usage(format!("{shown}: {error}"));
    let mut input: Box<dyn BufRead> = if from_stdin {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(&arguments.file).map_err(failed)?))
    };
    let form = match arguments.format {
        Format::Mxscreen => CacheForm::Mxscreen,
        Format::Postscreen => CacheForm::Postscreen,
        Format::Auto if input.fill_buf().map_err(failed)?.first() == Some(&b'{') => CacheForm::Mxscreen,
        Format::Auto => CacheForm::Postscreen,
    };
    let mut sum = Sum::default();
    let mut first_line = 1;
    loop {
        let mut lines = Vec::new();
        let mut count = 0;
        while lines.len() < BATCH && input.read_until(b'\n', &mut lines).map_err(failed)? > 0 {
            count += 1;
        }
        if lines.is_empty() {
            break;
        }
        let import = CacheImport { form, first_line, dry_run: arguments.dry_run, lines };
        let answer = request::ask(gate, &Request::CacheImport(import))?;
        add(&mut sum, &answer, &shown);
        first_line += count;
        if io::stderr().is_terminal() {
            eprint!("\r{} lines read", first_line - 1);
        }
    }
    if io::stderr().is_terminal() {
        eprintln!();
    }
    let Sum { taken, known, over, refused } = sum;
    if refused > 0 && taken + known + over == 0 {
        return Err(Failure::usage(format!("{shown}: none of its lines can be taken over")));
    }
    let would = if arguments.dry_run { "would be taken over; nothing was changed" } else { "taken over" };
    print(&format!("{taken} {would}; {known} are known already, {over} are over, {refused} were refused\n"))
}

fn add(sum: &mut Sum, answer: &Value, shown: &str) {
    let number = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or(0);
    sum.taken += number("taken");
    sum.known += number("known");
    sum.over += number("over");
    let named = answer.get("named").and_then(Value::as_array);
    // Of a file of another kind a hundred lines are enough.
    if sum.refused < 100 {
        for refused in named.into_iter().flatten() {
            let line = refused.get(0).and_then(Value::as_u64).unwrap_or(0);
            let why = refused.get(1).and_then(Value::as_str).unwrap_or_default();
            eprintln!("mxscreen: {shown}:{line}: refused: {why}");
        }
    }
    sum.refused += number("refused");
}
