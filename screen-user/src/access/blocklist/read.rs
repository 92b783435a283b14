//! Reading a block list, line by line where its form has lines.
//!
//! What can't be read is refused with its place; nothing is guessed.

use std::{
    io::{self, BufRead, Cursor, Read as _},
    net::IpAddr,
};

use ipnet::IpNet;

pub use super::gathering::{At, REFUSED_SHOWN, Read, Refused};
use super::{canonical, dump, gathering::Gathering, json, postfix, range};
use crate::access::segments::Span;

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Told from the content
    Auto,
    /// Networks, addresses or ranges `a-b`, one a line; what follows a space, `;` or `#` is a comment
    Cidr,
    /// Addresses, one a line, with comments as in cidr
    Plain,
    /// Spamhaus DROP, as text or as lines of JSON
    Drop,
    /// A Postfix cidr table: what it turns away for good, by first match
    PostfixCidr,
    /// JSON: `CrowdSec` decisions, or the output of `nft -j list set` or `ipset -o json list`
    Json,
    /// The output of `ipset save`, `ipset list` or `nft list set`
    Dump,
}

/// The longest line, in bytes. A list that is one line of JSON may be longer.
const LINE_BYTES: u64 = 4096;

/// The longest list, in bytes.
pub const LIST_BYTES: u64 = 256 << 20;

/// As much of a list as its form is told from.
const HEAD_BYTES: u64 = 64 << 10;

/// Reads a list. `progress` is told now and then how many entries were read.
///
/// # Errors
/// The input can't be read, is longer than [`LIST_BYTES`], or ends before its form does.
pub fn read(mut input: impl BufRead, format: Format, mut progress: impl FnMut(usize)) -> io::Result<Read> {
    let mut head = Vec::new();
    input.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
    if head.starts_with(BYTE_ORDER_MARK) {
        head.drain(..BYTE_ORDER_MARK.len());
    }
    let format = match format {
        Format::Auto => guess(&head),
        named => named,
    };
    let mut input = Cursor::new(head).chain(input).take(LIST_BYTES + 1);
    let mut gathering = Gathering::new(&mut progress);
    match format {
        Format::Auto | Format::Cidr | Format::Plain | Format::Drop => {
            lines(&mut input, |number, line| read_line(&mut gathering, format, number, line))?;
            within_bounds(&input)?;
        }
        Format::PostfixCidr => postfix::read(&mut gathering, &whole(&mut input)?),
        Format::Json => json::read(&mut gathering, &whole(&mut input)?)?,
        Format::Dump => dump::read(&mut gathering, &whole(&mut input)?)?,
    }
    Ok(gathering.finish())
}

/// What some editors begin a file with.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The form of a list that begins so.
fn guess(head: &[u8]) -> Format {
    let text = String::from_utf8_lossy(head);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    let Some(first) = lines().next() else { return Format::Cidr };
    if json::is_line_of_list(first) {
        return Format::Drop;
    }
    if first.starts_with(['{', '[']) || first == "null" {
        return Format::Json;
    }
    const COMMANDS: [&str; 8] = ["create ", "add ", "del ", "table ", "flush ", "delete ", "destroy ", "Name:"];
    if COMMANDS.iter().any(|command| first.starts_with(command)) {
        return Format::Dump;
    }
    // An exception in a table that is taken for a plain list would be denied.
    if lines().any(postfix::is_rule) { Format::PostfixCidr } else { Format::Cidr }
}

fn read_line(gathering: &mut Gathering<'_>, format: Format, number: usize, line: &str) {
    let line = line.trim();
    if format == Format::Drop && line.starts_with('{') {
        return json::read_line(gathering, number, line);
    }
    if line.starts_with("//") {
        return;
    }
    let text = line.split([';', '#']).next().unwrap_or_default().trim();
    if text.is_empty() {
        return;
    }
    let word = |text: &str| text.split([' ', '\t', ',']).next().unwrap_or_default().to_owned();
    // `a - b` is one range; whatever else follows a space is a comment.
    let spaced = text.split_once(" - ").map(|(first, last)| (first.trim(), word(last.trim())));
    let text = match spaced {
        Some((first, last)) if is_address(first) && is_address(&last) => format!("{first}-{last}"),
        _ => word(text),
    };
    let at = || At::Line(number);
    if format == Format::Plain && !is_address(&text) {
        return gathering.refuse(at(), format!("{} is no address", quoted(&text)));
    }
    gathering.text(&text, at);
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// An address, a network or a range.
pub(super) fn entry(text: &str) -> Result<Span, String> {
    let no = || format!("{} is no address, network or range", quoted(text));
    if let Ok(address) = text.parse::<IpAddr>() {
        return range(address, address).ok_or_else(no);
    }
    if let Some((first, last)) = text.split_once('-') {
        let ends = first.parse().ok().zip(last.parse().ok());
        let (first, last) = ends.ok_or_else(no)?;
        return range(first, last).ok_or_else(|| format!("{} ends before it begins", quoted(text)));
    }
    let net: IpNet = text.parse().map_err(|_| no())?;
    if net.addr() != net.network() {
        return Err(format!("{} has host bits beyond its prefix; {} is meant?", quoted(text), net.trunc()));
    }
    Ok(crate::access::segments::span(canonical(net)))
}

/// A text of somebody else's file, fit for a message: bounded, and without control characters.
pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    format!("{short:?}")
}

/// The rest of the input as text; what is no UTF-8 is no address either.
fn whole(input: &mut io::Take<impl BufRead>) -> io::Result<String> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    within_bounds(input)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn within_bounds(input: &io::Take<impl BufRead>) -> io::Result<()> {
    if input.limit() == 0 { Err(too_long()) } else { Ok(()) }
}

/// What is said of a list of more than [`LIST_BYTES`].
#[must_use]
pub fn too_long() -> io::Error {
    io::Error::other(format!("it is longer than {} MiB", LIST_BYTES >> 20))
}

/// Calls `each` for every line, numbered from 1. A line that is too long is handed over cut, and so refused.
fn lines(input: &mut impl BufRead, mut each: impl FnMut(usize, &str)) -> io::Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = input.take(LINE_BYTES).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        each(number, &String::from_utf8_lossy(&line));
        if read as u64 == LINE_BYTES && line.last() != Some(&b'\n') {
            input.skip_until(b'\n')?;
        }
    }
    Ok(())
}
