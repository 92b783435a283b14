//! The values of the keys one by one: type, range, and what is wrong.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use crate::screen::policy::Action;

use super::{
    document::{self, Document, Located, Value},
    duration::{format_duration, parse_duration},
    host::Host,
    keys,
    problem::{Place, Problem},
};

/// What is wrong with one value: message and suggestion.
#[derive(Debug, Clone, Default)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) suggestion: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), suggestion: None }
    }

    pub(super) fn hint(self, suggestion: impl Into<String>) -> Self {
        Self { suggestion: Some(suggestion.into()), ..self }
    }
}

/// The words of an action.
pub(super) const ACTIONS: &[(&str, Action)] =
    &[("ignore", Action::Ignore), ("enforce", Action::Enforce), ("drop", Action::Drop)];

/// The values of all keys, and everything that is found on the way.
#[derive(Debug)]
pub(super) struct Values<'a> {
    pub(super) host: &'a Host,
    given: BTreeMap<&'static str, Located>,
    path: String,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    pub(super) notices: Vec<String>,
}

impl<'a> Values<'a> {
    pub(super) fn new(path: &str, document: Document, host: &'a Host) -> Self {
        let Document { values, problems } = document;
        Self { host, given: values, path: path.to_owned(), problems, warnings: Vec::new(), notices: Vec::new() }
    }

    /// Whether the operator gave the key a value.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    /// Where the key stands; the file as a whole if it does not.
    pub(super) fn place(&self, key: &str) -> Place {
        self.given.get(key).map_or_else(|| Place::file(&self.path), |located| located.place.clone())
    }

    /// Notes what is wrong with a key's value.
    pub(super) fn fault(&mut self, key: &str, fault: Fault) {
        let place = self.place(key);
        self.fault_at(place, key, fault);
    }

    /// Notes what is wrong with a key's value, at a place within it.
    pub(super) fn fault_at(&mut self, place: Place, key: &str, fault: Fault) {
        self.problems.push(Problem {
            place,
            message: format!("{key}: {}", fault.message),
            suggestion: fault.suggestion,
        });
    }

    /// The value: the operator's, else the default; `None` where neither is there.
    pub(super) fn value(&self, key: &str) -> Option<Located> {
        let known = keys::find(key);
        debug_assert!(known.is_some(), "{key} is not in the table of keys");
        let located = self.given.get(key).cloned().or_else(|| known.and_then(document::default_of))?;
        let alone = matches!(located.value, Value::Text(_) | Value::Integer(_));
        if alone
            && matches!(located.place, Place::Override(_))
            && known.is_some_and(|key| document::takes_list(key.kind))
        {
            return Some(Located { place: located.place.clone(), value: Value::List(vec![located]) });
        }
        Some(located)
    }

    /// Reads a value by `read`; `None` where it is not given, has no default, or is wrong.
    pub(super) fn read<T>(&mut self, key: &str, read: impl FnOnce(&Value) -> Result<T, Fault>) -> Option<T> {
        let located = self.value(key)?;
        read(&located.value).map_err(|fault| self.fault_at(located.place, key, fault)).ok()
    }

    pub(super) fn boolean(&mut self, key: &str) -> bool {
        self.read(key, |value| match value {
            Value::Boolean(flag) => Ok(*flag),
            Value::Text(word) if word.eq_ignore_ascii_case("yes") || word.eq_ignore_ascii_case("no") => {
                Err(mismatch("true or false", value).hint(format!("write {}", word.eq_ignore_ascii_case("yes"))))
            }
            _ => Err(mismatch("true or false", value)),
        })
        .unwrap_or_default()
    }

    /// A whole number; the range is checked in the type of the result.
    pub(super) fn number<N>(&mut self, key: &str, range: RangeInclusive<N>) -> N
    where
        N: TryFrom<i128> + PartialOrd + std::fmt::Display + Copy,
    {
        let (low, high) = (*range.start(), *range.end());
        self.read(key, |value| match value {
            Value::Integer(number) => N::try_from(*number)
                .ok()
                .filter(|number| range.contains(number))
                .ok_or_else(|| Fault::new(format!("{number} is out of range: {low} to {high}"))),
            _ => Err(mismatch("a whole number", value)),
        })
        .unwrap_or(low)
    }

    /// A duration of at least `least`.
    pub(super) fn duration(&mut self, key: &str, least: Duration) -> Duration {
        self.read(key, |value| {
            let duration = match value {
                Value::Text(text) => parse_duration(text).map_err(|error| Fault::new(error.to_string()))?,
                Value::Integer(number) => {
                    return Err(mismatch("a duration", value).hint(format!("for seconds write \"{number}s\"")));
                }
                _ => return Err(mismatch("a duration such as \"6s\"", value)),
            };
            if duration < least {
                return Err(Fault::new(format!("must be at least {}", format_duration(least))));
            }
            Ok(duration)
        })
        .unwrap_or(least)
    }

    /// A text that must not be empty.
    pub(super) fn filled_text(&mut self, key: &str) -> Option<String> {
        self.read(key, |value| match value {
            Value::Text(text) if text.is_empty() => Err(Fault::new("must not be empty")),
            Value::Text(text) => Ok(text.clone()),
            _ => Err(mismatch("a text", value)),
        })
    }

    /// One of several words; after a problem the first of them. The words are compared without regard to case.
    pub(super) fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)], fallback: T) -> T {
        self.read(key, |value| match value {
            Value::Text(text) => words
                .iter()
                .find(|(word, _)| word.eq_ignore_ascii_case(text))
                .map(|(_, meaning)| *meaning)
                .ok_or_else(|| unknown_word(text, words.iter().map(|(word, _)| *word))),
            _ => Err(mismatch("a text", value)),
        })
        .unwrap_or(fallback)
    }

    pub(super) fn action(&mut self, key: &str) -> Action {
        self.word(key, ACTIONS, Action::Ignore)
    }

    /// A list, each element read by `read`; wrong elements are noted and left out.
    pub(super) fn list<T>(&mut self, key: &str, mut read: impl FnMut(&Value) -> Result<T, Fault>) -> Vec<T> {
        self.located_list(key)
            .iter()
            .filter_map(|item| read(&item.value).map_err(|fault| self.fault_at(item.place.clone(), key, fault)).ok())
            .collect()
    }

    /// The elements of a list with their places.
    pub(super) fn located_list(&mut self, key: &str) -> Vec<Located> {
        self.read(key, |value| match value {
            Value::List(items) => Ok(items.clone()),
            Value::Text(text) => Err(mismatch("a list", value).hint(format!("write [{text:?}]"))),
            Value::Integer(number) => Err(mismatch("a list", value).hint(format!("write [{number}]"))),
            _ => Err(mismatch("a list", value)),
        })
        .unwrap_or_default()
    }

    /// The texts of a list with their places.
    pub(super) fn located_texts(&mut self, key: &str) -> Vec<(String, Place)> {
        let items = self.located_list(key);
        items
            .into_iter()
            .filter_map(|item| match item.value {
                Value::Text(text) => Some((text, item.place)),
                other => {
                    self.fault_at(item.place, key, mismatch("a list of texts", &other));
                    None
                }
            })
            .collect()
    }

    /// The entries of a table, in the order of the file.
    pub(super) fn table(&mut self, key: &str) -> Vec<(String, Located)> {
        self.read(key, |value| match value {
            Value::Table(entries) => Ok(entries.clone()),
            _ => Err(mismatch("a table", value)),
        })
        .unwrap_or_default()
    }
}

/// A value of the wrong type.
pub(super) fn mismatch(wanted: &str, found: &Value) -> Fault {
    Fault::new(format!("must be {wanted}, not {}", found.kind()))
}

/// A word that is none of those that may stand there.
pub(super) fn unknown_word<'a>(text: &str, words: impl Iterator<Item = &'a str> + Clone) -> Fault {
    let all = words.clone().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    let near = words
        .map(|word| (strsim::damerau_levenshtein(&text.to_lowercase(), word), word))
        .min()
        .filter(|(distance, word)| *distance <= 1.max(word.len() / 3));
    let fault = Fault::new(format!("{text:?} is not one of {all}"));
    match near {
        Some((_, word)) => fault.hint(format!("did you mean {word:?}?")),
        None => fault,
    }
}
