//! Filters on the addresses that a DNSBL zone answers with (spec 3.4).

use std::net::Ipv4Addr;

/// A pattern of four fields, each a set of octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    fields: [[u64; 4]; 4],
}

/// What is wrong with a pattern, in postscreen's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A bracket is not closed.
    #[error("missing \"]\" character")]
    Unclosed,
    /// Nothing is there.
    #[error("empty address pattern")]
    Empty,
    /// Something else is wrong: what, and where.
    #[error("{what} at \"{before}>{token}<{after}\"")]
    At {
        /// What is missing or wrong.
        what: &'static str,
        /// The pattern before the offending token.
        before: String,
        /// The token.
        token: String,
        /// The pattern after it.
        after: String,
    },
}

impl Filter {
    /// Reads `field.field.field.field`, the whole or each field in brackets; a field is an octet or `[n;n..m]`.
    ///
    /// # Errors
    /// The pattern is not of that form.
    pub fn parse(pattern: &str) -> Result<Self, FilterError> {
        let pattern = unwrap(pattern)?;
        if pattern.is_empty() {
            return Err(FilterError::Empty);
        }
        let mut tokens = Tokens { pattern, at: 0, last: 0 };
        let mut fields = [[0; 4]; 4];
        for (index, field) in fields.iter_mut().enumerate() {
            if index > 0 && tokens.next() != Token::Byte(b'.') {
                return Err(tokens.error("need \".\""));
            }
            match tokens.next() {
                Token::Octet(octet) => insert(field, octet, octet),
                Token::Byte(b'[') => members(&mut tokens, field)?,
                Token::Range | Token::Byte(_) | Token::End => {
                    return Err(tokens.error("need decimal number 0..255 or \"[\""));
                }
            }
        }
        match tokens.next() {
            Token::End => Ok(Self { fields }),
            Token::Octet(_) | Token::Range | Token::Byte(_) => Err(tokens.error("garbage after pattern")),
        }
    }

    /// Whether every octet of `address` is in its field.
    #[must_use]
    pub fn matches(&self, address: Ipv4Addr) -> bool {
        self.fields.iter().zip(address.octets()).all(|(field, octet)| contains(field, octet))
    }
}

/// Takes off one pair of brackets that encloses the whole pattern.
fn unwrap(pattern: &str) -> Result<&str, FilterError> {
    let Some(inner) = pattern.strip_prefix('[') else {
        return Ok(pattern);
    };
    let mut depth = 1_u32;
    for (at, c) in inner.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let encloses_all = at + 1 == inner.len();
            return Ok(if encloses_all { inner.get(..at).unwrap_or_default() } else { pattern });
        }
    }
    Err(FilterError::Unclosed)
}

fn members(tokens: &mut Tokens<'_>, field: &mut [u64; 4]) -> Result<(), FilterError> {
    loop {
        let low = octet(tokens)?;
        let mut token = tokens.next();
        let mut high = low;
        if token == Token::Range {
            high = octet(tokens)?;
            if low > high {
                return Err(tokens.error("numeric range error"));
            }
            token = tokens.next();
        }
        insert(field, low, high);
        match token {
            Token::Byte(b';') => {}
            Token::Byte(b']') => return Ok(()),
            Token::Octet(_) | Token::Range | Token::Byte(_) | Token::End => {
                return Err(tokens.error("need \";\" or \"]\""));
            }
        }
    }
}

fn octet(tokens: &mut Tokens<'_>) -> Result<u8, FilterError> {
    match tokens.next() {
        Token::Octet(octet) => Ok(octet),
        Token::Range | Token::Byte(_) | Token::End => Err(tokens.error("need decimal number 0..255")),
    }
}

fn insert(field: &mut [u64; 4], low: u8, high: u8) {
    for octet in low..=high {
        if let Some(word) = field.get_mut(usize::from(octet >> 6)) {
            *word |= 1 << (octet & 63);
        }
    }
}

fn contains(field: &[u64; 4], octet: u8) -> bool {
    field.get(usize::from(octet >> 6)).is_some_and(|word| word & (1 << (octet & 63)) != 0)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// A decimal number up to 255. A larger one is no octet, and comes as its first byte.
    Octet(u8),
    /// `..`
    Range,
    /// Anything else, byte by byte.
    Byte(u8),
    End,
}

struct Tokens<'a> {
    pattern: &'a str,
    /// Where the next token begins.
    at: usize,
    /// Where the last one began.
    last: usize,
}

impl Tokens<'_> {
    fn next(&mut self) -> Token {
        self.last = self.at;
        let rest = self.pattern.get(self.at..).unwrap_or_default();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            self.at += digits;
            let number = rest.get(..digits).unwrap_or_default();
            // Leading zeros are harmless; a number too long for any integer is out of range all the same.
            return match number.trim_start_matches('0') {
                "" => Token::Octet(0),
                number => number.parse().map_or(Token::Byte(b'0'), Token::Octet),
            };
        }
        if rest.starts_with("..") {
            self.at += 2;
            return Token::Range;
        }
        match rest.chars().next() {
            Some(c) => {
                self.at += c.len_utf8();
                Token::Byte(u8::try_from(c).unwrap_or(b'?'))
            }
            None => Token::End,
        }
    }

    /// What is wrong at the last token.
    fn error(&self, what: &'static str) -> FilterError {
        let (before, rest) = self.pattern.split_at_checked(self.last).unwrap_or((self.pattern, ""));
        let (token, after) = rest.split_at_checked(self.at - self.last).unwrap_or((rest, ""));
        FilterError::At { what, before: before.into(), token: token.into(), after: after.into() }
    }
}
