//! What `ipset save`, `ipset list` and `nft list` print.

use std::{borrow::Cow, io};

use super::gathering::{At, Gathering};

/// What the lines at hand belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// A description.
    Nothing,
    /// The braces of nftables' `elements = { … }`, which may run over many lines.
    Elements,
    /// What `ipset list` has below `Members:`.
    Members,
}

/// Reads a dump of sets.
///
/// # Errors
/// It ends within a set.
pub(super) fn read(gathering: &mut Gathering<'_>, text: &str) -> io::Result<()> {
    let mut within = Within::Nothing;
    for (number, line) in (1..).zip(text.lines()) {
        let line = without_comments(line);
        let line = line.trim();
        within = match within {
            Within::Elements => elements(gathering, number, line),
            Within::Members if line.is_empty() || line.starts_with("Name:") => Within::Nothing,
            Within::Members => {
                member(gathering, number, line);
                within
            }
            Within::Nothing => described(gathering, number, line),
        };
    }
    if within == Within::Elements {
        return Err(io::Error::other("it ends within a set"));
    }
    Ok(())
}

/// A line between sets; returns what begins with it.
fn described(gathering: &mut Gathering<'_>, number: usize, line: &str) -> Within {
    let command = |words: &[&str]| words.iter().find_map(|word| line.strip_prefix(word));
    if line == "Members:" {
        return Within::Members;
    }
    if let Some((_, inside)) = line.split_once("elements = {") {
        return elements(gathering, number, inside);
    }
    if let Some(rest) = command(&["add element ", "create element "]) {
        return match rest.split_once('{') {
            Some((_, inside)) => elements(gathering, number, inside),
            None => Within::Nothing,
        };
    }
    if command(&["del ", "delete element ", "destroy element "]).is_some() {
        gathering.refuse(At::Line(number), "what takes elements away is not carried out");
    } else if let Some(rest) = command(&["add "]) {
        // Behind the name of the set. Tables and chains of nftables are added as well.
        if !["table ", "set ", "chain ", "rule ", "map "].iter().any(|other| rest.starts_with(other)) {
            member(gathering, number, rest.split_once(' ').map_or("", |(_, member)| member));
        }
    }
    Within::Nothing
}

/// `ADDRESS [timeout N] [nomatch] …`.
fn member(gathering: &mut Gathering<'_>, number: usize, line: &str) {
    let mut words = line.split_whitespace();
    let at = || At::Line(number);
    match words.next() {
        None => gathering.refuse(at(), "no address"),
        Some(_) if words.any(|word| word == "nomatch") => gathering.refuse(at(), NO_EXCEPTIONS),
        Some(address) => gathering.text(address, at),
    }
}

/// Why an exception is refused.
pub(super) const NO_EXCEPTIONS: &str = "nomatch: an exception can't be carried over; use `mxscreen allow`";

/// Elements of a set up to its end, or to that of the line.
fn elements(gathering: &mut Gathering<'_>, number: usize, inside: &str) -> Within {
    let (inside, ends) = inside.split_once('}').map_or((inside, false), |(inside, _)| (inside, true));
    let at = || At::Line(number);
    for element in inside.split(',') {
        // An element may be followed by its timeout or counter.
        let mut words = element.split_whitespace();
        match (words.next(), words.next()) {
            (None, _) => {}
            (Some(_), Some("." | ":")) => gathering.refuse(at(), "an element that is more than an address"),
            (Some(address), _) => gathering.text(address, at),
        }
    }
    if ends { Within::Nothing } else { Within::Elements }
}

/// A line without what is quoted in it, which may hold anything, and what follows a `#`.
fn without_comments(line: &str) -> Cow<'_, str> {
    let line = if line.contains('"') { line.split('"').step_by(2).collect() } else { Cow::Borrowed(line) };
    match line.find('#') {
        Some(at) => Cow::Owned(line.get(..at).unwrap_or_default().to_owned()),
        None => line,
    }
}
