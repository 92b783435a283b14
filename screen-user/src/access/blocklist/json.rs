//! Lists in JSON: `CrowdSec` decisions, Spamhaus DROP by lines, and what `nft -j list set` and `ipset -o json` print.
//!
//! A document is read as a stream: all that is kept of it are addresses, however long it is.

use std::{fmt, io};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use super::{
    dump::NO_EXCEPTIONS,
    gathering::{At, Gathering},
    read::quoted,
};

/// Reads one document.
///
/// # Errors
/// It is no JSON from its beginning to its end: what was read before is worth nothing.
pub(super) fn read(gathering: &mut Gathering<'_>, text: &str) -> io::Result<()> {
    let mut document = serde_json::Deserializer::from_str(text);
    let walk = Walk { gathering, path: &mut Vec::new(), part: Part::Entries };
    let read = walk.deserialize(&mut document).and_then(|()| document.end());
    read.map_err(|error| io::Error::other(format!("no JSON document: {error}")))
}

/// Reads a line that is a document of its own: `{"cidr": "192.0.2.0/24", …}`. One without addresses is about the list.
pub(super) fn read_line(gathering: &mut Gathering<'_>, number: usize, line: &str) {
    let at = || At::Line(number);
    match serde_json::from_str::<Value>(line) {
        Ok(document) => {
            if let Some(cidr) = document.get("cidr").and_then(Value::as_str) {
                gathering.text(cidr, at);
            } else if !is_metadata(&document) {
                gathering.refuse(at(), "an object without \"cidr\"");
            }
        }
        Err(error) => gathering.refuse(at(), format!("no JSON: {error}")),
    }
}

/// Whether a line is what begins or ends a list by lines.
pub(super) fn is_line_of_list(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|document| document.get("cidr").is_some() || is_metadata(&document))
}

fn is_metadata(document: &Value) -> bool {
    document.get("type").is_some_and(|kind| kind == "metadata")
}

/// What a value is, by where it stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A decision, an alert with its decisions, an address, or a list of them.
    Entries,
    /// Something that nftables lists: a set, or something else.
    Listed,
    /// The elements of a set.
    Elements,
    /// One of them.
    Element,
}

/// A step from a value to one in it.
#[derive(Clone, Copy)]
enum Step {
    Key(&'static str),
    Index(usize),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "/{key}"),
            Self::Index(index) => write!(f, "/{index}"),
        }
    }
}

/// The fields that matter.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Scope,
    Value,
    Type,
    Duration,
    Simulated,
    Cidr,
    New,
    Decisions,
    Nftables,
    Set,
    Elem,
    Members,
    #[serde(other)]
    Other,
}

/// A decision of `CrowdSec`'s, or a network with its facts.
#[derive(Default)]
struct Facts {
    scope: Option<String>,
    value: Option<String>,
    kind: Option<String>,
    duration: Option<String>,
    simulated: bool,
    cidr: Option<String>,
    /// Something in it has been read as a list.
    is_list: bool,
}

impl Facts {
    /// Takes the value of a field.
    fn take<'de, A: MapAccess<'de>>(&mut self, field: &Field, fields: &mut A) -> Result<(), A::Error> {
        let place = match field {
            Field::Scope => &mut self.scope,
            Field::Value => &mut self.value,
            Field::Type => &mut self.kind,
            Field::Duration => &mut self.duration,
            Field::Cidr => &mut self.cidr,
            Field::Simulated => {
                self.simulated = fields.next_value::<Value>()? == true;
                return Ok(());
            }
            _ => return fields.next_value::<IgnoredAny>().map(drop),
        };
        *place = match fields.next_value()? {
            Value::String(text) => Some(text),
            _ => None,
        };
        Ok(())
    }
}

/// The way through a document.
struct Walk<'a, 'g> {
    gathering: &'a mut Gathering<'g>,
    path: &'a mut Vec<Step>,
    part: Part,
}

impl<'g> Walk<'_, 'g> {
    fn step(&mut self, step: Step, part: Part) -> Walk<'_, 'g> {
        self.path.push(step);
        Walk { gathering: self.gathering, path: self.path, part }
    }

    fn refuse(&mut self, why: impl Into<String>) {
        self.gathering.refuse(at(self.path), why);
    }

    fn text(&mut self, text: &str) {
        self.gathering.text(text, || at(self.path));
    }

    fn no_address(&mut self) {
        // Of numbers, ports for example, there is nothing to say but this.
        self.refuse("no address");
    }

    /// An object that has been read.
    fn object(&mut self, facts: &Facts) {
        if facts.is_list {
            return;
        }
        match facts {
            Facts { scope: Some(scope), value: Some(value), .. } => match why_not(scope, facts) {
                None => self.text(value),
                Some(why) => self.refuse(why),
            },
            Facts { cidr: Some(cidr), .. } => self.text(cidr),
            Facts { kind: Some(kind), .. } if kind == "metadata" => {}
            // Tables, chains and rules are listed beside sets.
            _ if self.part == Part::Listed => {}
            _ => self.refuse("no decision, set or network"),
        }
    }

    /// An element of a set that is an object (libnftables-json(5)): a prefix, a range, or either or an address with a timeout.
    fn element(&mut self, element: &Value) {
        let inner = |name| element.get("elem").and_then(|wrapped: &Value| wrapped.get(name));
        let text = match (inner("val"), element.get("elem")) {
            (Some(Value::String(address)), _) | (None, Some(Value::String(address))) => Some(address.clone()),
            (Some(wrapped), _) => network(wrapped),
            (None, _) => network(element),
        };
        match text {
            _ if element.get("nomatch").is_some() => self.refuse(NO_EXCEPTIONS),
            Some(text) => self.text(&text),
            None => self.refuse("an element that is no address, prefix or range"),
        }
    }
}

fn at(path: &[Step]) -> At {
    At::Value(path.iter().map(Step::to_string).collect())
}

/// Why a decision is not carried out, if there is a reason.
fn why_not(scope: &str, facts: &Facts) -> Option<String> {
    let addresses = ["ip", "range"].iter().any(|known| scope.eq_ignore_ascii_case(known));
    if !addresses {
        return Some(format!("its scope is {}, which is no address", quoted(scope)));
    }
    if let Some(kind) = facts.kind.as_deref().filter(|kind| !kind.eq_ignore_ascii_case("ban")) {
        return Some(format!("its type is {}, which is no ban", quoted(kind)));
    }
    if facts.simulated {
        return Some("it is simulated".to_owned());
    }
    facts.duration.as_deref().filter(|left| left.starts_with('-')).map(|_| "it has expired".to_owned())
}

fn network(element: &Value) -> Option<String> {
    let prefix = element
        .get("prefix")
        .and_then(|prefix| Some(format!("{}/{}", prefix.get("addr")?.as_str()?, prefix.get("len")?.as_u64()?)));
    let range =
        element.get("range").and_then(|range| Some(format!("{}-{}", range.get(0)?.as_str()?, range.get(1)?.as_str()?)));
    prefix.or(range)
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    /// Where there is nothing, `null` is written as well as an empty list.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        self.text(text);
        Ok(())
    }

    fn visit_bool<E>(mut self, _: bool) -> Result<(), E> {
        self.no_address();
        Ok(())
    }

    fn visit_i64<E>(mut self, _: i64) -> Result<(), E> {
        self.no_address();
        Ok(())
    }

    fn visit_u64<E>(mut self, _: u64) -> Result<(), E> {
        self.no_address();
        Ok(())
    }

    fn visit_f64<E>(mut self, _: f64) -> Result<(), E> {
        self.no_address();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let part = match self.part {
            Part::Elements => Part::Element,
            // A pair: what a map of nftables holds.
            Part::Element => {
                self.refuse("an element that is no address, prefix or range");
                while items.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(());
            }
            same => same,
        };
        let mut index = 0;
        while items.next_element_seed(self.step(Step::Index(index), part))?.is_some() {
            self.path.pop();
            index += 1;
        }
        // That of the one that did not come.
        self.path.pop();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        if matches!(self.part, Part::Elements | Part::Element) {
            let element = Value::deserialize(MapAccessDeserializer::new(fields))?;
            self.element(&element);
            return Ok(());
        }
        let mut facts = Facts::default();
        while let Some(field) = fields.next_key::<Field>()? {
            let (key, part) = match field {
                Field::New => ("new", Part::Entries),
                Field::Decisions => ("decisions", Part::Entries),
                Field::Nftables => ("nftables", Part::Listed),
                Field::Set => ("set", Part::Listed),
                Field::Elem => ("elem", Part::Elements),
                Field::Members => ("members", Part::Elements),
                fact => {
                    facts.take(&fact, &mut fields)?;
                    continue;
                }
            };
            fields.next_value_seed(self.step(Step::Key(key), part))?;
            self.path.pop();
            facts.is_list = true;
        }
        self.object(&facts);
        Ok(())
    }
}
