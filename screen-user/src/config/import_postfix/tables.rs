//! Tables that a parameter names, read where they can be: `type:/file` and `type:{ {line}, {line} }`.

use std::fs;

use super::main_cf::{enclosed, words};
use crate::access::cidr::logical_lines;

/// Indexed files whose source is a text beside them.
const INDEXED: [&str; 6] = ["hash", "btree", "lmdb", "dbm", "cdb", "texthash"];

/// The lines of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// Address patterns and results, in Postfix's cidr syntax.
    Cidr(Vec<String>),
    /// Keys and values.
    Pairs(Vec<(String, String)>),
    /// `/pattern/flags` and results.
    Patterns(Vec<(String, String)>),
    /// One value for every key.
    Static(String),
}

/// Reads a table.
pub(super) fn read(table: &str) -> Result<Lines, String> {
    let (kind, source) = table.split_once(':').ok_or_else(|| format!("{table:?} is no table"))?;
    if kind == "static" {
        return Ok(Lines::Static(source.trim_matches(['{', '}']).trim().to_owned()));
    }
    let lines = if source.starts_with('{') {
        let (inside, _) = enclosed(source).ok_or_else(|| format!("a brace is not closed in {table:?}"))?;
        words(inside)
            .iter()
            .map(|word| enclosed(word).map_or(word.as_str(), |(inside, _)| inside).trim().to_owned())
            .collect()
    } else {
        file(source)?
    };
    match kind {
        "cidr" => Ok(Lines::Cidr(lines)),
        "regexp" | "pcre" => Ok(Lines::Patterns(lines.iter().filter_map(|line| pattern(line)).collect())),
        "inline" => Ok(Lines::Pairs(
            lines
                .iter()
                .filter_map(|line| line.split_once('='))
                .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
                .collect(),
        )),
        _ if INDEXED.contains(&kind) => Ok(Lines::Pairs(
            lines
                .iter()
                .filter_map(|line| line.split_once(|letter: char| letter.is_ascii_whitespace()))
                .map(|(key, value)| (key.trim_end_matches(':').to_owned(), value.trim().to_owned()))
                .collect(),
        )),
        _ => Err(format!("tables of type {kind:?} can't be read")),
    }
}

fn file(path: &str) -> Result<Vec<String>, String> {
    let bytes = fs::read(path).map_err(|error| format!("can't read {path}: {error}"))?;
    Ok(logical_lines(&String::from_utf8_lossy(&bytes)).into_iter().map(|(_, line)| line).collect())
}

/// `/pattern/flags result`; flags other than `i` (which changes nothing here) make it unreadable, as do `if` and `!`.
fn pattern(line: &str) -> Option<(String, String)> {
    let body = line.strip_prefix('/')?;
    let mut escaped = false;
    let end = body.char_indices().find(|(_, letter)| {
        let ends = *letter == '/' && !escaped;
        escaped = *letter == '\\' && !escaped;
        ends
    })?;
    let (source, rest) = (body.get(..end.0)?, body.get(end.0 + 1..)?);
    let (flags, result) = rest.split_once(|letter: char| letter.is_ascii_whitespace())?;
    flags.is_empty().then(|| (format!("/{source}/"), result.trim().to_owned()))
}
