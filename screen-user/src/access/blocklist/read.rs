//! Reading a block list, line by line where its form has lines.
//!
//! What can't be read is refused with its line number; nothing is guessed.

use std::{
    io::{self, BufRead},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{Addresses, canonical, dump, json, range};
use crate::access::{cidr, segments::Span};

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
    /// A Postfix cidr table: what it rejects, by first match
    PostfixCidr,
    /// JSON: `CrowdSec` decisions, or the output of `nft -j list set`
    Json,
    /// The output of `ipset save` or `nft list set`
    Dump,
}

/// The most lines that are refused by name; of more, the number is told.
pub const REFUSED_SHOWN: usize = 100;

/// The longest line, in bytes. A list that is one line of JSON may be longer.
const LINE_BYTES: u64 = 4096;

/// The largest file that is read whole, as JSON, dumps and tables must be.
const WHOLE_BYTES: u64 = 256 << 20;

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The addresses, overlaps made one.
    pub addresses: Addresses,
    /// Entries that make them up.
    pub entries: usize,
    /// Lines that were refused, up to [`REFUSED_SHOWN`].
    pub refused: Vec<Refused>,
    /// How many lines were refused.
    pub refused_count: usize,
}

/// A line that is no part of the list.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// From 1.
    pub line: usize,
    /// Why.
    pub why: String,
}

/// Gathers what is read.
#[derive(Default)]
pub(super) struct Gathering {
    spans: Vec<Span>,
    entries: usize,
    refused: Vec<Refused>,
    refused_count: usize,
}

impl Gathering {
    pub(super) fn add(&mut self, span: Span) {
        self.entries += 1;
        self.spans.push(span);
    }

    pub(super) fn refuse(&mut self, line: usize, why: impl Into<String>) {
        self.refused_count += 1;
        if self.refused.len() < REFUSED_SHOWN {
            self.refused.push(Refused { line, why: why.into() });
        }
    }

    /// One address, network or range, of line `line`.
    pub(super) fn text(&mut self, line: usize, text: &str) {
        match entry(text) {
            Ok(span) => self.add(span),
            Err(why) => self.refuse(line, why),
        }
    }

    fn finish(self) -> Read {
        Read {
            addresses: self.spans.into_iter().collect(),
            entries: self.entries,
            refused: self.refused,
            refused_count: self.refused_count,
        }
    }
}

/// Reads a list. `progress` is told now and then how many lines were read.
///
/// # Errors
/// The input can't be read, or is longer than its form may be.
pub fn read(mut input: impl BufRead, format: Format, mut progress: impl FnMut(usize)) -> io::Result<Read> {
    let format = match format {
        Format::Auto => guess(input.fill_buf()?),
        named => named,
    };
    let mut gathering = Gathering::default();
    match format {
        Format::Auto | Format::Cidr | Format::Plain | Format::Drop => lines(input, |number, line| {
            read_line(&mut gathering, format, number, line);
            if number.is_multiple_of(100_000) {
                progress(number);
            }
        })?,
        Format::PostfixCidr => postfix(&mut gathering, &whole(input)?),
        Format::Json => json::read(&mut gathering, &whole(input)?),
        Format::Dump => dump::read(&mut gathering, &whole(input)?),
    }
    Ok(gathering.finish())
}

/// The form of a list that begins so.
fn guess(beginning: &[u8]) -> Format {
    let text = String::from_utf8_lossy(beginning);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    let Some(first) = lines().next() else { return Format::Cidr };
    if first.starts_with('{') && first.contains("\"cidr\"") {
        return Format::Drop;
    }
    if first.starts_with(['{', '[']) {
        return Format::Json;
    }
    if first.starts_with("create ") || first.starts_with("add ") || first.starts_with("table ") {
        return Format::Dump;
    }
    let is_rule = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|pattern| pattern == "if" || entry(pattern.trim_start_matches('!')).is_ok())
            && words.next().is_some_and(is_action)
    };
    if lines().take(10).any(is_rule) { Format::PostfixCidr } else { Format::Cidr }
}

/// Whether a word is an action of a table (access(5)).
fn is_action(word: &str) -> bool {
    const ACTIONS: [&str; 8] = ["reject", "ok", "dunno", "permit", "discard", "defer", "drop", "defer_if_permit"];
    ACTIONS.iter().any(|action| word.eq_ignore_ascii_case(action)) || is_reply_code(word)
}

fn is_reply_code(word: &str) -> bool {
    word.len() == 3 && word.starts_with(['4', '5']) && word.bytes().all(|byte| byte.is_ascii_digit())
}

fn read_line(gathering: &mut Gathering, format: Format, number: usize, line: &str) {
    let line = line.trim();
    if format == Format::Drop && line.starts_with('{') {
        return json::read_line(gathering, number, line);
    }
    if line.is_empty() || line.starts_with("//") {
        return;
    }
    let text = line.split([';', '#']).next().unwrap_or_default().trim();
    if text.is_empty() {
        return;
    }
    // `a - b` is one range; whatever else follows a space is a comment.
    let compact;
    let text = if text.contains(" - ") {
        compact = text.replace(" - ", "-");
        compact.as_str()
    } else {
        text
    };
    let text = text.split([' ', '\t', ',']).next().unwrap_or_default();
    if format == Format::Plain && text.parse::<IpAddr>().is_err() {
        return gathering.refuse(number, format!("{} is no address", quoted(text)));
    }
    gathering.text(number, text);
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
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    format!("{short:?}")
}

/// What a table rejects.
fn postfix(gathering: &mut Gathering, text: &str) {
    let (table, warnings) = cidr::Table::parse(text);
    for warning in warnings {
        gathering.refuse(warning.line as usize, warning.message);
    }
    for net in table.networks_whose(|result| {
        let action = result.split_whitespace().next().unwrap_or_default();
        action.eq_ignore_ascii_case("reject") || action.eq_ignore_ascii_case("drop") || is_reply_code(action)
    }) {
        gathering.add(crate::access::segments::span(net));
    }
}

fn whole(input: impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(input, WHOLE_BYTES + 1), &mut bytes)?;
    if bytes.len() as u64 > WHOLE_BYTES {
        return Err(io::Error::other(format!("longer than {} MiB", WHOLE_BYTES >> 20)));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Calls `each` for every line, numbered from 1. A line that is too long is handed over cut, and so refused.
fn lines(mut input: impl BufRead, mut each: impl FnMut(usize, &str)) -> io::Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = io::Read::take(&mut input, LINE_BYTES).read_until(b'\n', &mut line)?;
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
