//! Postfix's cidr table syntax (spec D.1).

use std::net::IpAddr;

use ipnet::IpNet;

use super::segments::{self, Both, Range, Segments, Set, Span};

/// How deep `if` blocks may nest.
const NESTING_LIMIT: usize = 64;

/// Something wrong with a table; what it stands in is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The line where the rule begins, from 1.
    pub line: u32,
    /// What is wrong, and what is done about it.
    pub message: String,
}

/// One rule that can match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// The line where it begins, from 1.
    pub(super) line: u32,
    /// An index into [`Table::results`].
    pub(super) result: u32,
}

/// A table: networks, and the text that each stands for. The first rule that matches counts.
#[derive(Debug, Clone, Default)]
pub struct Table {
    pub(super) rules: Vec<Rule>,
    /// Distinct result texts.
    pub(super) results: Vec<String>,
    pub(super) index: Both,
}

impl Table {
    /// Reads a table. A rule that is wrong is left out, with a warning, as Postfix does.
    ///
    /// One thing is not as in Postfix: the rules in an `if` block whose own pattern is wrong are left out with it, where
    /// Postfix would apply them to every client.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<Warning>) {
        let mut reader = Reader::default();
        for (line, text) in logical_lines(text) {
            reader.line(line, &text);
        }
        reader.finish()
    }

    /// The result text of the first rule that matches, and the line of that rule.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<(&str, u32)> {
        let rule = self.rules.get(self.find_rule(address)? as usize)?;
        Some((self.results.get(rule.result as usize)?, rule.line))
    }

    /// The networks, disjoint and in order, in which the first rule that matches has a result that satisfies `which`.
    pub fn networks_whose<'a>(&'a self, which: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = IpNet> + 'a {
        let chosen: Vec<bool> = self.results.iter().map(|result| which(result)).collect();
        let is_chosen = move |rule: u32| {
            let rule = self.rules.get(rule as usize);
            rule.and_then(|rule| chosen.get(rule.result as usize)).copied().unwrap_or(false)
        };
        self.index.networks_whose(is_chosen)
    }

    /// All rules in order: the line where each begins, and its result text.
    pub(super) fn rules(&self) -> impl Iterator<Item = (u32, &str)> {
        self.rules.iter().filter_map(|rule| Some((rule.line, self.results.get(rule.result as usize)?.as_str())))
    }

    /// The first rule that matches.
    pub(super) fn find_rule(&self, address: IpAddr) -> Option<u32> {
        self.index.find(address)
    }
}

/// Lines put together with their continuations, each with the number of its first line; comments and blank lines left out.
pub(crate) fn logical_lines(text: &str) -> Vec<(u32, String)> {
    let mut out: Vec<(u32, String)> = Vec::new();
    for (line, number) in text.lines().zip(1u32..) {
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        match out.last_mut() {
            Some((_, whole)) if line.starts_with(|first: char| first.is_ascii_whitespace()) => {
                whole.push(' ');
                whole.push_str(content);
            }
            _ => out.push((number, content.to_owned())),
        }
    }
    out
}

/// A set of addresses in both families.
#[derive(Debug, Clone, Default)]
struct Addresses {
    v4: Set<u32>,
    v6: Set<u128>,
}

impl Addresses {
    /// What a pattern matches: in the pattern's own family only, also when it is negated.
    fn of(net: IpNet, negated: bool) -> Self {
        match (segments::span(net), negated) {
            (Span::V4(range), false) => Self { v4: vec![range], v6: Vec::new() },
            (Span::V4(range), true) => Self { v4: segments::complement(range), v6: Vec::new() },
            (Span::V6(range), false) => Self { v4: Vec::new(), v6: vec![range] },
            (Span::V6(range), true) => Self { v4: Vec::new(), v6: segments::complement(range) },
        }
    }

    fn intersect(&self, other: &Self) -> Self {
        Self { v4: segments::intersect(&self.v4, &other.v4), v6: segments::intersect(&self.v6, &other.v6) }
    }
}

/// The reader of a table, between two lines.
#[derive(Debug, Default)]
struct Reader {
    table: Table,
    warnings: Vec<Warning>,
    claims_v4: Vec<(Range<u32>, u32)>,
    claims_v6: Vec<(Range<u128>, u32)>,
    /// Open `if` blocks: their lines, and what their conditions leave, outer ones included.
    blocks: Vec<(u32, Addresses)>,
    results: std::collections::HashMap<String, u32>,
}

impl Reader {
    fn warn(&mut self, line: u32, message: impl Into<String>) {
        self.warnings.push(Warning { line, message: message.into() });
    }

    fn line(&mut self, line: u32, text: &str) {
        if let Some(rest) = keyword(text, "if") {
            self.open_block(line, rest);
        } else if let Some(rest) = keyword(text, "endif") {
            if !rest.is_empty() {
                self.warn(line, format!("text after endif is ignored: {rest:?}"));
            }
            if self.blocks.pop().is_none() {
                self.warn(line, "endif without an if: skipping this rule");
            }
        } else {
            self.rule(line, text);
        }
    }

    fn open_block(&mut self, line: u32, text: &str) {
        let (pattern, rest) = split_pattern(text);
        if !rest.is_empty() {
            self.warn(line, format!("text after the pattern of an if is ignored: {rest:?}"));
        }
        let condition = if self.blocks.len() >= NESTING_LIMIT {
            Err(format!("if blocks nest deeper than {NESTING_LIMIT}"))
        } else {
            parse_pattern(pattern)
        };
        let inside = match condition {
            Ok((negated, net)) => {
                let matched = Addresses::of(net, negated);
                self.blocks.last().map(|(_, outer)| outer.intersect(&matched)).unwrap_or(matched)
            }
            Err(reason) => {
                self.warn(line, format!("{reason}: skipping this rule and all up to its endif"));
                Addresses::default()
            }
        };
        self.blocks.push((line, inside));
    }

    fn rule(&mut self, line: u32, text: &str) {
        let (pattern, result) = split_pattern(text);
        let (negated, net) = match parse_pattern(pattern) {
            Ok(parsed) => parsed,
            Err(reason) => return self.warn(line, format!("{reason}: skipping this rule")),
        };
        if result.is_empty() {
            return self.warn(line, "no result after the pattern: skipping this rule");
        }
        let Ok(number) = u32::try_from(self.table.rules.len()) else {
            return self.warn(line, "too many rules: skipping this rule");
        };
        let matched = Addresses::of(net, negated);
        let matched = self.blocks.last().map(|(_, inside)| inside.intersect(&matched)).unwrap_or(matched);
        self.claims_v4.extend(matched.v4.into_iter().map(|range| (range, number)));
        self.claims_v6.extend(matched.v6.into_iter().map(|range| (range, number)));
        let known = self.results.get(result).copied();
        let result = known.unwrap_or_else(|| {
            let next = u32::try_from(self.table.results.len()).unwrap_or(u32::MAX);
            self.table.results.push(result.to_owned());
            self.results.insert(result.to_owned(), next);
            next
        });
        self.table.rules.push(Rule { line, result });
    }

    fn finish(mut self) -> (Table, Vec<Warning>) {
        for (line, _) in std::mem::take(&mut self.blocks) {
            self.warn(line, "if without an endif");
        }
        self.table.index = Both { v4: Segments::new(self.claims_v4), v6: Segments::new(self.claims_v6) };
        (self.table, self.warnings)
    }
}

/// What follows `word` if the line begins with it, without regard to case.
fn keyword<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let head = line.get(..word.len())?;
    let rest = line.get(word.len()..)?;
    let ends = rest.chars().next().is_none_or(|next| next.is_ascii_whitespace() || next == '!');
    (head.eq_ignore_ascii_case(word) && ends).then(|| rest.trim())
}

/// A rule's pattern, with its `!`, and the text behind it. White space after `!` and inside brackets belongs to the pattern.
fn split_pattern(text: &str) -> (&str, &str) {
    let skip = text.len() - text.trim_start_matches(|c: char| c == '!' || c.is_ascii_whitespace()).len();
    let body = text.get(skip..).unwrap_or_default();
    let end = body.find(|c: char| c.is_ascii_whitespace()).map_or(text.len(), |at| at + skip);
    (text.get(..end).unwrap_or(text), text.get(end..).unwrap_or_default().trim())
}

/// A pattern with its negations.
fn parse_pattern(pattern: &str) -> Result<(bool, IpNet), String> {
    let mut negated = false;
    let mut rest = pattern.trim();
    while let Some(after) = rest.strip_prefix('!') {
        negated = !negated;
        rest = after.trim_start();
    }
    parse_network(rest).map(|net| (negated, net))
}

/// An address or network: `A`, `A/L`, `[A]`, `[A/L]`, `[A]/L`.
///
/// # Errors
/// Text for a person: a bad address, a bad length, or host bits that are not zero (with the network that was perhaps meant).
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    if text.is_empty() {
        return Err("no address pattern".to_owned());
    }
    let bad = || format!("bad address pattern {text:?}");
    let (address, length) = match text.strip_prefix('[') {
        Some(inner) => {
            let (inside, behind) =
                inner.split_once(']').ok_or_else(|| format!("missing ']' in address pattern {text:?}"))?;
            match (inside.split_once('/'), behind.strip_prefix('/')) {
                (Some((address, length)), None) if behind.is_empty() => (address, Some(length)),
                (None, Some(length)) => (inside, Some(length)),
                (None, None) if behind.is_empty() => (inside, None),
                _ => return Err(bad()),
            }
        }
        None => text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length))),
    };
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
            .parse::<u8>()
            .ok()
            .filter(|length| *length <= most)
            .ok_or_else(|| format!("bad mask value in {text:?}: at most {most}"))?,
        Some(_) => return Err(format!("bad mask value in {text:?}")),
    };
    let net = IpNet::new(address, length).map_err(|_| bad())?;
    if net.network() != address {
        return Err(format!(
            "non-null host address bits in \"{address}/{length}\", perhaps you should use \"{}\" instead",
            net.trunc()
        ));
    }
    Ok(net)
}
