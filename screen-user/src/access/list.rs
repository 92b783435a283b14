//! `access.list`: words, tables and domains in order (spec 1.9).

use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Serialize, Serializer};

use crate::config::AddressList;

use super::{
    cidr::Table,
    segments::Both,
    spf::{Domain, Networks},
};

/// What a list says of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Let through without any test.
    Permit,
    /// `access.denylist_action` says what follows.
    Reject,
    /// The list does not say.
    Undecided,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Permit => "permit",
            Self::Reject => "reject",
            Self::Undecided => "undecided",
        })
    }
}

/// A rule of an [`AccessList`]; [`AccessList::place`] says where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId {
    /// The position in `access.list`, from 0.
    element: u32,
    /// The rule of a table, from 0.
    rule: u32,
}

/// What a list says of one client, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What it says.
    pub verdict: Verdict,
    /// Where the rule stands that decided; `None` where none did.
    pub rule: Option<RulePlace>,
}

/// Where a rule stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RulePlace {
    /// A word of `access.list`.
    Word(&'static str),
    /// A line of a file.
    Line {
        /// The file.
        file: Arc<str>,
        /// The line where the rule begins, from 1.
        line: u32,
    },
    /// The networks that a domain publishes.
    Spf(Domain),
}

impl fmt::Display for RulePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Line { file, line } => write!(f, "{file}:{line}"),
            Self::Spf(domain) => write!(f, "spf:{domain}"),
        }
    }
}

impl Serialize for RulePlace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A word of a table's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Permit,
    Reject,
    PermitMynetworks,
    /// Back to the list that named the table.
    Dunno,
    /// A word that is not known: nothing of the whole list counts from here on.
    Broken,
}

/// One element of `access.list`.
#[derive(Debug, Clone)]
pub enum Element {
    /// `permit`: everybody who comes this far.
    Permit,
    /// `reject`: everybody who comes this far.
    Reject,
    /// `permit_mynetworks`: clients in `access.mynetworks`.
    PermitMynetworks,
    /// `dunno`: the list ends here without a decision.
    Dunno,
    /// A table; see [`Element::table`].
    Table(ListTable),
    /// `spf:DOMAIN`: clients in the networks that the domain publishes, as far as they are known ([`AccessList::publish`]).
    Spf(Domain, Arc<Networks>),
}

impl Element {
    /// A table, with warnings about results that are no access lists (line, text).
    ///
    /// `lines`: where rule lines are found if not in `file` itself line by line, as for tables that stand in the configuration.
    #[must_use]
    pub fn table(file: &str, table: Table, lines: Option<Vec<u32>>) -> (Self, Vec<(u32, String)>) {
        let mut warnings = Vec::new();
        let results = table
            .results
            .iter()
            .zip(0u32..)
            .map(|(text, number)| {
                let (words, problem) = parse_result(text);
                if let Some(problem) = problem {
                    let users = table.rules.iter().filter(|rule| rule.result == number);
                    warnings.extend(users.map(|rule| (rule.line, problem.clone())));
                }
                words
            })
            .collect();
        warnings.sort();
        (Self::Table(ListTable { file: file.into(), table: Arc::new(table), results, lines }), warnings)
    }
}

/// A table whose results are access lists.
#[derive(Debug, Clone)]
pub struct ListTable {
    file: Arc<str>,
    table: Arc<Table>,
    results: Arc<[Vec<Word>]>,
    lines: Option<Vec<u32>>,
}

impl ListTable {
    pub(super) fn index(&self) -> &Both {
        &self.table.index
    }

    fn line(&self, rule: u32) -> u32 {
        let line = self.table.rules.get(rule as usize).map_or(0, |rule| rule.line);
        match &self.lines {
            Some(lines) => (line as usize).checked_sub(1).and_then(|at| lines.get(at)).copied().unwrap_or(0),
            None => line,
        }
    }
}

/// The words of a table's result, and what is wrong with it (spec 1.9).
fn parse_result(text: &str) -> (Vec<Word>, Option<String>) {
    let mut words = Vec::new();
    for word in text.split([',', ' ', '\t', '\r', '\n']).filter(|word| !word.is_empty()) {
        let (known, problem) = match word.to_ascii_lowercase().as_str() {
            "permit" => (Word::Permit, None),
            "reject" => (Word::Reject, None),
            "permit_mynetworks" => (Word::PermitMynetworks, None),
            "dunno" => (Word::Dunno, None),
            _ if word.contains(':') => (
                Word::Dunno,
                Some(format!("a table can't name another table ({word:?}): the rest of this result is ignored")),
            ),
            _ => (
                Word::Broken,
                Some(format!(
                    "unknown word {word:?} (known: permit, reject, permit_mynetworks, dunno): clients that come to it are \
                     treated as not listed, and the rest of access.list is ignored for them"
                )),
            ),
        };
        words.push(known);
        // What follows a final word is never reached, and not looked at.
        if problem.is_some() || known != Word::PermitMynetworks {
            return (words, problem);
        }
    }
    (words, None)
}

/// The permanent list, in order: the first element that decides counts.
#[derive(Debug, Clone, Default)]
pub struct AccessList {
    elements: Arc<[Element]>,
    mynetworks: Arc<Mynetworks>,
}

/// `access.mynetworks`, ready for search.
#[derive(Debug, Default)]
struct Mynetworks {
    list: AddressList,
    index: Both,
}

impl Mynetworks {
    fn contains(&self, address: IpAddr) -> bool {
        self.index
            .find(address)
            .and_then(|entry| self.list.entries().get(entry as usize))
            .is_some_and(|(listed, _)| *listed)
    }
}

impl AccessList {
    /// A list of elements; `mynetworks` is what `permit_mynetworks` stands for.
    #[must_use]
    pub fn new(elements: Vec<Element>, mynetworks: AddressList) -> Self {
        let index = Both::from_networks(mynetworks.entries().iter().map(|(_, net)| *net));
        Self { elements: elements.into(), mynetworks: Arc::new(Mynetworks { list: mynetworks, index }) }
    }

    /// What the list says of a client. The cost grows with the logarithm of a table's length.
    #[must_use]
    pub fn decide(&self, address: IpAddr) -> Decision {
        let (verdict, rule) = self.decide_literally(address.to_canonical());
        Decision { verdict, rule: rule.and_then(|rule| self.place(rule)) }
    }

    /// The verdict and its rule; an IPv4-mapped IPv6 address is taken as IPv6.
    pub(super) fn decide_literally(&self, address: IpAddr) -> (Verdict, Option<RuleId>) {
        for (element, position) in self.elements.iter().zip(0u32..) {
            let decided = match element {
                Element::Permit => Some((Verdict::Permit, 0)),
                Element::Reject => Some((Verdict::Reject, 0)),
                Element::Dunno => Some((Verdict::Undecided, 0)),
                Element::PermitMynetworks => self.mynetworks.contains(address).then_some((Verdict::Permit, 0)),
                Element::Table(table) => self.ask(table, address),
                Element::Spf(_, networks) => networks.contains(address).then_some((Verdict::Permit, 0)),
            };
            if let Some((verdict, rule)) = decided {
                return (verdict, Some(RuleId { element: position, rule }));
            }
        }
        (Verdict::Undecided, None)
    }

    /// What a table says; `None`: go on with the next element.
    fn ask(&self, table: &ListTable, address: IpAddr) -> Option<(Verdict, u32)> {
        let number = table.table.find_rule(address)?;
        let rule = table.table.rules.get(number as usize)?;
        for word in table.results.get(rule.result as usize)? {
            match word {
                Word::Permit => return Some((Verdict::Permit, number)),
                Word::Reject => return Some((Verdict::Reject, number)),
                Word::PermitMynetworks if self.mynetworks.contains(address) => return Some((Verdict::Permit, number)),
                Word::PermitMynetworks => {}
                Word::Dunno => return None,
                Word::Broken => return Some((Verdict::Undecided, number)),
            }
        }
        None
    }

    /// Where a rule of this list stands.
    #[must_use]
    pub fn place(&self, rule: RuleId) -> Option<RulePlace> {
        Some(match self.elements.get(rule.element as usize)? {
            Element::Permit => RulePlace::Word("permit"),
            Element::Reject => RulePlace::Word("reject"),
            Element::Dunno => RulePlace::Word("dunno"),
            Element::PermitMynetworks => RulePlace::Word("permit_mynetworks"),
            Element::Table(table) => RulePlace::Line { file: Arc::clone(&table.file), line: table.line(rule.rule) },
            Element::Spf(domain, _) => RulePlace::Spf(domain.clone()),
        })
    }

    /// The domains whose networks the list permits, and what is known of them. A domain may be there twice.
    pub fn published(&self) -> impl Iterator<Item = (&Domain, &Arc<Networks>)> {
        self.elements.iter().filter_map(|element| match element {
            Element::Spf(domain, networks) => Some((domain, networks)),
            Element::Permit | Element::Reject | Element::PermitMynetworks | Element::Dunno | Element::Table(_) => None,
        })
    }

    /// Takes `published` for what `domain` publishes. Copies of the list stay as they are.
    pub fn publish(&mut self, domain: &Domain, published: &Arc<Networks>) {
        let elements = self.elements.iter().map(|element| match element {
            Element::Spf(known, _) if known == domain => Element::Spf(known.clone(), Arc::clone(published)),
            other => other.clone(),
        });
        self.elements = elements.collect();
    }

    /// Every index that the list consults.
    pub(super) fn indices(&self) -> impl Iterator<Item = &Both> {
        let tables = self.elements.iter().filter_map(|element| match element {
            Element::Table(table) => Some(table.index()),
            Element::Spf(_, networks) => Some(networks.index()),
            Element::Permit | Element::Reject | Element::PermitMynetworks | Element::Dunno => None,
        });
        tables.chain(std::iter::once(&self.mynetworks.index))
    }
}
