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
        "regexp" | "pcre" => every(&lines, pattern).map(Lines::Patterns),
        "inline" => every(&lines, |line| {
            let (key, value) = line.split_once('=')?;
            Some((key.trim().to_owned(), value.trim().to_owned()))
        })
        .map(Lines::Pairs),
        _ if INDEXED.contains(&kind) => every(&lines, |line| {
            let (key, value) = line.split_once(|letter: char| letter.is_ascii_whitespace())?;
            Some((key.trim_end_matches(':').to_owned(), value.trim().to_owned()))
        })
        .map(Lines::Pairs),
        _ => Err(format!("tables of type {kind:?} can't be read")),
    }
}

/// Every line as `read` understands it. One that it does not understand may change what all others mean, so that nothing of the table
/// is carried over then, and the line is named.
fn every<T>(lines: &[String], read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    lines.iter().map(|line| read(line).ok_or_else(|| format!("its line {line:?} can't be carried over"))).collect()
}

fn file(path: &str) -> Result<Vec<String>, String> {
    let bytes = fs::read(path).map_err(|error| format!("can't read {path}: {error}"))?;
    Ok(logical_lines(&String::from_utf8_lossy(&bytes)).into_iter().map(|(_, line)| line).collect())
}

/// `/pattern/ result`. Flags, `if` and `!` have no counterpart here.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_a_counterpart_is_named_and_its_table_is_left_out() {
        for line in ["/^bye$/x QUIT", "!/^bye$/ QUIT", "if /^bye/", "/unfinished QUIT"] {
            let problem = read(&format!("pcre:{{ {{/^ping$/ NOOP}}, {{{line}}} }}")).unwrap_err();
            assert!(problem.contains(line), "{problem}");
        }
        let pairs = read("inline:{ {a = b}, {c d} }").unwrap_err();
        assert!(pairs.contains("c d"), "{pairs}");
        let patterns = read("pcre:{ {/^ping$/ NOOP} }").unwrap();
        assert_eq!(patterns, Lines::Patterns(vec![("/^ping$/".into(), "NOOP".into())]));
    }
}
