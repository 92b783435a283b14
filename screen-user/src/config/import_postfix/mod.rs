//! `mxscreen import-postfix`: what Postfix's `main.cf` says of postscreen, as a configuration of ours.

mod carry;
mod main_cf;
mod tables;

#[cfg(test)]
mod tests;

use std::{fmt::Write, path::Path};

use super::{
    keys::KEYS,
    load_text,
    problem::{Place, Problem},
};

/// What came of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// A configuration that [`super::load()`] accepts on this host. What could not be carried over stands in it as a comment.
    pub toml: String,
    /// What could not be carried over or needs a look, one sentence each.
    pub warnings: Vec<String>,
}

/// A key with its value in TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    key: &'static str,
    value: String,
}

/// How often what [`super::load_text`] refuses is taken out: one fault may hide another.
const ROUNDS: usize = 8;

/// What `dry_run` asks for, which stands before the first section.
const DRY_RUN: &str =
    "# Only watches. Take this line out, and reload, to have clients turned away.\ndry_run = true\n\n";

/// Reads a `main.cf`, or the output of `postconf -n`. Files that it names are read; nothing is written. `origin` is for the heading. With `dry_run`
/// the result turns nobody away, and is the same else.
#[must_use]
pub fn import(main_cf: &str, origin: &Path, dry_run: bool) -> Imported {
    let (parameters, mut warnings) = main_cf::MainCf::parse(main_cf);
    let mut entries = carry::carry(&parameters, &mut warnings);
    for (name, text) in parameters.unused() {
        if ["postscreen_", "dnsblog_", "tlsproxy_"].iter().any(|prefix| name.starts_with(prefix)) {
            warnings.push(format!("{name} = {text}: there is nothing like it here"));
        }
    }
    entries.sort_by_key(|entry| KEYS.iter().position(|key| key.path == entry.key));
    for _ in 0..ROUNDS {
        let refused = refused(&mut entries);
        if refused.is_empty() {
            break;
        }
        warnings.extend(refused);
    }
    let mut toml = format!("# mxscreen's configuration, made from {}.\n", one_line(&origin.display().to_string()));
    if !warnings.is_empty() {
        toml.push_str("#\n# Not carried over, or in need of a look:\n");
    }
    let warnings: Vec<String> = warnings.iter().map(|warning| one_line(warning)).collect();
    for warning in &warnings {
        // Writing to a String can't fail.
        let _ = writeln!(toml, "# - {warning}");
    }
    toml.push('\n');
    if dry_run {
        toml.push_str(DRY_RUN);
    }
    toml.push_str(&print(&entries).0);
    Imported { toml, warnings }
}

/// The configuration's text, and for each entry the line behind its last.
fn print(entries: &[Entry]) -> (String, Vec<usize>) {
    let mut text = String::new();
    let mut ends = Vec::new();
    let mut section = "";
    for entry in entries {
        let (own, name) = entry.key.split_once('.').unwrap_or(("", entry.key));
        if own != section {
            section = own;
            let _ = writeln!(text, "{}[{own}]", if text.is_empty() { "" } else { "\n" });
        }
        let _ = writeln!(text, "{name} = {}", entry.value);
        ends.push(text.matches('\n').count());
    }
    (text, ends)
}

/// Takes out the entries that would not be accepted, and says why.
fn refused(entries: &mut Vec<Entry>) -> Vec<String> {
    let (text, ends) = print(entries);
    let Err(problems) = load_text(&text, Path::new("the result"), &[]) else { return Vec::new() };
    let mut said = Vec::new();
    let mut out = Vec::new();
    for Problem { place, message, .. } in problems.0 {
        let line = match place {
            Place::File { line: Some(line), .. } => line as usize,
            // About no entry: nothing that taking one out could mend.
            Place::File { line: None, .. } | Place::Override(_) => continue,
        };
        let at = ends.partition_point(|end| *end < line);
        if let Some(entry) = entries.get(at) {
            said.push(format!("{} = {}: {message}", entry.key, entry.value));
            out.push(entry.clone());
        }
    }
    entries.retain(|entry| !out.contains(entry));
    said
}

/// Without line breaks and other control characters.
fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
