//! A TOML text as values with places, found by the keys' paths.

use std::{collections::BTreeMap, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    keys::{self, Kind},
    problem::{Place, Problem},
};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Located {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// A TOML value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i128),
    Boolean(bool),
    List(Vec<Located>),
    /// In the order of the file.
    Table(Vec<(String, Located)>),
    /// A kind that no key takes: its name.
    Other(&'static str),
}

impl Value {
    /// For messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }
}

/// The values of a configuration by the keys' paths, and what is wrong with their names.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) values: BTreeMap<&'static str, Located>,
    pub(super) problems: Vec<Problem>,
}

/// Turns offsets in a text into places.
enum Places<'a> {
    File { path: Arc<str>, text: &'a str, lines: Vec<usize> },
    Override(Arc<str>),
}

impl<'a> Places<'a> {
    fn of_file(path: &str, text: &'a str) -> Self {
        let lines = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        Self::File { path: path.into(), text, lines }
    }

    fn at(&self, offset: usize) -> Place {
        match self {
            Self::Override(text) => Place::Override(Arc::clone(text)),
            Self::File { path, text, lines } => {
                let before = lines.partition_point(|start| *start <= offset);
                let start = before.checked_sub(1).and_then(|index| lines.get(index)).copied().unwrap_or(0);
                let column = text.get(start..offset).map(|head| head.chars().count() + 1);
                Place::File {
                    path: Arc::clone(path),
                    line: u32::try_from(before + 1).ok(),
                    column: column.and_then(|column| u32::try_from(column).ok()),
                }
            }
        }
    }

    /// The line only: columns help where a line holds several things, as with syntax errors.
    fn line_at(&self, offset: usize) -> Place {
        match self.at(offset) {
            Place::File { path, line, .. } => Place::File { path, line, column: None },
            place @ Place::Override(_) => place,
        }
    }
}

impl Document {
    /// Reads a file's text. After a syntax error nothing else is looked at: what would be found is guesswork.
    pub(super) fn parse(path: &str, text: &str) -> Self {
        let places = Places::of_file(path, text);
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut document = Self::default();
        if errors.is_empty() {
            document.walk("", table.get_ref(), &places);
        }
        document.problems.extend(errors.iter().map(|error| Problem {
            place: error.span().map_or_else(|| Place::file(path), |span| places.at(span.start)),
            message: format!("syntax: {}", error.message().trim()),
            suggestion: None,
        }));
        document
    }

    /// Puts `KEY=VALUE` of the command line over what the file says. A value that is no TOML is taken as text.
    pub(super) fn set(&mut self, key: &str, text: &str) {
        let shown: Arc<str> = format!("{key}={text}").into();
        let places = Places::Override(shown);
        let (parsed, errors) = DeValue::parse_recoverable(text);
        let value = if errors.is_empty() && !matches!(parsed.get_ref(), DeValue::Datetime(_) | DeValue::Float(_)) {
            convert(&parsed, &places)
        } else if let (Some(error), true) = (errors.first(), text.starts_with(['[', '{', '"', '\''])) {
            self.problems.push(Problem {
                place: places.at(0),
                message: format!("syntax: {}", error.message().trim()),
                suggestion: None,
            });
            return;
        } else {
            Located { value: Value::Text(text.to_owned()), place: places.at(0) }
        };
        self.place(key.trim(), value);
    }

    fn walk(&mut self, prefix: &str, table: &DeTable<'_>, places: &Places<'_>) {
        for (name, value) in in_order(table) {
            let path =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            match value.get_ref() {
                DeValue::Table(inner) if keys::is_section(&path) => self.walk(&path, inner, places),
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_)
                | DeValue::Table(_) => {
                    let value =
                        Located { place: places.line_at(name.span().start), value: convert(value, places).value };
                    self.place(&path, value);
                }
            }
        }
    }

    /// Files a value under its key, or says what is wrong with the key.
    fn place(&mut self, path: &str, located: Located) {
        if let Some(key) = keys::find(path) {
            self.values.insert(key.path, located);
            return;
        }
        let section = keys::is_section(path);
        let Located { value, place } = located;
        match value {
            Value::Table(entries) if section => {
                for (name, value) in entries {
                    self.place(&format!("{path}.{name}"), value);
                }
            }
            Value::Text(_)
            | Value::Integer(_)
            | Value::Boolean(_)
            | Value::List(_)
            | Value::Table(_)
            | Value::Other(_) => {
                let (message, suggestion) = if section {
                    let example = keys::KEYS.iter().find(|key| key.path.starts_with(&format!("{path}.")));
                    let example = example.map(|key| format!("its keys are written like \"{}\"", key.path));
                    (format!("{path:?} is a section, not a key"), example)
                } else {
                    (
                        format!("unknown key {path:?}"),
                        keys::suggest(path).map(|meant| format!("did you mean {meant:?}?")),
                    )
                };
                self.problems.push(Problem { place, message, suggestion });
            }
        }
    }
}

/// The entries in the order of the text.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(&'a Spanned<toml::de::DeString<'i>>, &'a Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

fn convert(value: &Spanned<DeValue<'_>>, places: &Places<'_>) -> Located {
    let place = places.line_at(value.span().start);
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(&number.as_str().replace('_', ""), number.radix())
            .map_or(Value::Other("a number out of all ranges"), Value::Integer),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Array(items) => Value::List(items.iter().map(|item| convert(item, places)).collect()),
        DeValue::Table(table) => Value::Table(
            in_order(table)
                .into_iter()
                .map(|(name, value)| {
                    let located = Located { place: places.line_at(name.span().start), ..convert(value, places) };
                    (name.get_ref().to_string(), located)
                })
                .collect(),
        ),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
    };
    Located { value, place }
}

/// The default of a key as a value.
pub(super) fn default_of(key: &keys::Key) -> Option<Located> {
    let keys::Default::Value(text) = key.default else { return None };
    let places = Places::Override(format!("{}={text}", key.path).into());
    DeValue::parse(text).ok().map(|value| convert(&value, &places))
}

/// Whether a key takes several values, so that one alone on the command line is a list of one.
pub(super) fn takes_list(kind: Kind) -> bool {
    matches!(kind, Kind::Texts | Kind::Numbers | Kind::Addresses | Kind::Pairs)
}
