//! SPF records (RFC 7208 sections 4.5 to 6): from text to terms.

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;

/// What every record begins with, followed by a space or nothing.
const VERSION: &[u8] = b"v=spf1";

/// The longest domain name (RFC 1035 section 2.3.4), written without the dot at the end.
const LONGEST_NAME: usize = 253;

/// How many characters of somebody else's text a message shows.
const SHOWN: usize = 80;

/// Whether the text of a TXT record is an SPF record (RFC 7208 section 4.5).
#[must_use]
pub fn is_record(text: &[u8]) -> bool {
    text.split_at_checked(VERSION.len()).is_some_and(|(version, rest)| {
        version.eq_ignore_ascii_case(VERSION) && matches!(rest.first(), None | Some(b' '))
    })
}

/// A domain name that can be asked for: lower case, no dot at the end, two labels or more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Arc<str>);

impl Domain {
    /// The name as it is written; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        // The last label is not a number (RFC 7208 section 7.1, "toplabel"): that would be an address.
        let named = name.rsplit_once('.').is_some_and(|(_, top)| !top.bytes().all(|byte| byte.is_ascii_digit()));
        (named && name.len() <= LONGEST_NAME && name.split('.').all(label))
            .then(|| Self(name.to_ascii_lowercase().into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A record, checked as a whole (RFC 7208 section 4.6).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The mechanisms, in order.
    pub directives: Vec<Directive>,
    /// Where those go on whom no mechanism covers.
    pub redirect: Option<Redirect>,
}

/// A mechanism with its qualifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Whether the qualifier is `+`, written or not.
    pub allows: bool,
    /// Whom it covers.
    pub mechanism: Mechanism,
    /// As it stands in the record, cut to what fits in a message.
    pub text: String,
}

/// Whom a directive covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mechanism {
    /// `all`: everybody.
    All,
    /// `ip4` and `ip6`: one network.
    Network(IpNet),
    /// `include`: whom another domain's record allows.
    Include(Domain),
    /// `a`: the addresses of a name; without one, those of the record's own domain.
    Addresses(Option<Domain>, Prefix),
    /// `mx`: the addresses of a domain's mail servers.
    Exchanges(Option<Domain>, Prefix),
    /// Something that depends on more than the address: why that is so.
    Unknowable(&'static str),
}

impl Mechanism {
    /// Whether it asks DNS, and so counts among the look-ups (RFC 7208 section 4.6.4).
    #[must_use]
    pub const fn asks(&self) -> bool {
        match self {
            Self::All | Self::Network(_) => false,
            Self::Include(_) | Self::Addresses(..) | Self::Exchanges(..) | Self::Unknowable(_) => true,
        }
    }
}

/// How much of an address `a` and `mx` compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix length in IPv4, 0 to 32.
    pub ipv4: u8,
    /// The prefix length in IPv6, 0 to 128.
    pub ipv6: u8,
}

impl Prefix {
    /// The network around `address`.
    #[must_use]
    pub fn around(self, address: IpAddr) -> IpNet {
        let length = if address.is_ipv4() { self.ipv4 } else { self.ipv6 };
        network(address, length)
    }
}

/// `redirect=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// To this domain.
    To(Domain),
    /// To one that depends on the client: as it stands in the record.
    Unknowable(String),
}

/// Why a text is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It does not begin with `v=spf1`.
    #[error("it does not begin with v=spf1")]
    Version,
    /// A term that is none.
    #[error("{0:?} is no term of SPF")]
    Term(String),
    /// A modifier that may stand there once stands there twice.
    #[error("{0}= stands in it twice")]
    Twice(&'static str),
}

impl Record {
    /// A TXT record's text. A term that is wrong makes the whole record wrong (RFC 7208 section 4.6).
    ///
    /// # Errors
    /// The text is no record.
    pub fn parse(text: &[u8]) -> Result<Self, RecordError> {
        if !is_record(text) {
            return Err(RecordError::Version);
        }
        let mut record = Self::default();
        let mut explained = false;
        for term in text.split(|byte| *byte == b' ').skip(1).filter(|term| !term.is_empty()) {
            let wrong = || RecordError::Term(shown(&String::from_utf8_lossy(term)));
            // Terms are visible ASCII (section 12), which makes them fit for a log as well.
            let term = std::str::from_utf8(term).ok().filter(|term| term.bytes().all(|byte| byte.is_ascii_graphic()));
            match term.and_then(parse_term).ok_or_else(wrong)? {
                Term::Directive(directive) => record.directives.push(directive),
                Term::Redirect(_) if record.redirect.is_some() => return Err(RecordError::Twice("redirect")),
                Term::Redirect(redirect) => record.redirect = Some(redirect),
                Term::Explanation if explained => return Err(RecordError::Twice("exp")),
                Term::Explanation => explained = true,
                Term::OtherModifier => {}
            }
        }
        Ok(record)
    }
}

enum Term {
    Directive(Directive),
    Redirect(Redirect),
    Explanation,
    OtherModifier,
}

fn parse_term(text: &str) -> Option<Term> {
    // What comes first tells modifiers from mechanisms: `=` may stand in what follows a `:`.
    let end = text.find([':', '/', '=']).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end)?;
    if let Some(value) = rest.strip_prefix('=') {
        return parse_modifier(name, value, text);
    }
    let (allows, name) = match name.split_at_checked(1) {
        Some(("+", name)) => (true, name),
        Some(("-" | "~" | "?", name)) => (false, name),
        _ => (true, name),
    };
    let mechanism = parse_mechanism(&name.to_ascii_lowercase(), rest)?;
    Some(Term::Directive(Directive { allows, mechanism, text: shown(text) }))
}

fn parse_modifier(name: &str, value: &str, text: &str) -> Option<Term> {
    let mut bytes = name.bytes();
    let named = bytes.next()?.is_ascii_alphabetic()
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    match name.to_ascii_lowercase().as_str() {
        "redirect" if value.contains('%') => Some(Term::Redirect(Redirect::Unknowable(shown(text)))),
        "redirect" => Domain::parse(value).map(|domain| Term::Redirect(Redirect::To(domain))),
        "exp" => Some(Term::Explanation),
        _ => named.then_some(Term::OtherModifier),
    }
}

/// A mechanism; `rest` is what follows its name.
fn parse_mechanism(name: &str, rest: &str) -> Option<Mechanism> {
    let argument = rest.strip_prefix(':');
    match name {
        "all" => rest.is_empty().then_some(Mechanism::All),
        "ip4" => parse_network(argument?).filter(|net| matches!(net, IpNet::V4(_))).map(Mechanism::Network),
        "ip6" => parse_network(argument?).filter(|net| matches!(net, IpNet::V6(_))).map(Mechanism::Network),
        "ptr" if rest.is_empty() => Some(Mechanism::Unknowable("it asks for the client's name")),
        "ptr" => {
            argument.filter(|name| !name.is_empty()).map(|_| Mechanism::Unknowable("it asks for the client's name"))
        }
        "exists" => {
            argument.filter(|name| !name.is_empty()).map(|_| Mechanism::Unknowable("what exists depends on the client"))
        }
        // Whether the macro itself is right makes no difference to what is left out.
        "include" | "a" | "mx" if rest.contains('%') => Some(Mechanism::Unknowable("it holds a macro")),
        "include" => Domain::parse(argument?).map(Mechanism::Include),
        "a" => parse_target(rest).map(|(domain, prefix)| Mechanism::Addresses(domain, prefix)),
        "mx" => parse_target(rest).map(|(domain, prefix)| Mechanism::Exchanges(domain, prefix)),
        _ => None,
    }
}

/// `[":" domain-spec] [dual-cidr-length]` (RFC 7208 sections 5.3, 5.4 and 5.6).
fn parse_target(rest: &str) -> Option<(Option<Domain>, Prefix)> {
    let (name, lengths) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len()))?;
    let domain = match name.strip_prefix(':') {
        Some(name) => Some(Domain::parse(name)?),
        None => None,
    };
    let (v4, v6) = match lengths.split_once("//") {
        Some((v4, v6)) => (v4, Some(v6)),
        None => (lengths, None),
    };
    let ipv4 = if v4.is_empty() { 32 } else { parse_length(v4.strip_prefix('/')?, 32)? };
    let ipv6 = v6.map_or(Some(128), |length| parse_length(length, 128))?;
    Some((domain, Prefix { ipv4, ipv6 }))
}

fn parse_network(text: &str) -> Option<IpNet> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Some(most), |length| parse_length(length, most))?;
    Some(network(address, length))
}

/// A prefix length: digits, no zero in front.
fn parse_length(text: &str, most: u8) -> Option<u8> {
    let plain = text == "0" || !text.starts_with('0');
    let digits = plain && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|length| digits && *length <= most)
}

/// The bits of `address` behind the length do not count (RFC 7208 section 5.6).
fn network(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).map_or_else(|_| address.into(), |net| net.trunc())
}

/// Somebody else's text, fit for a log line.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN).flat_map(char::escape_default).collect()
}
