//! `access.*`: the permanent list, its tables and domains.

use std::{path::Path, sync::Arc};

use crate::{
    access::{
        AccessList, Element, address_list,
        cidr::Table,
        spf::{Domain, Networks, Widest},
    },
    config::{
        AddressList, Blocklists, Spf,
        document::{Located, Value},
        problem::{Place, Problem},
        values::{Fault, Values, mismatch, unknown_word},
    },
};

use super::{SECOND, path_if_given};

/// The words that an access list may hold.
const WORDS: [&str; 6] = ["permit_mynetworks", "permit", "reject", "dunno", "cidr:FILE", "spf:DOMAIN"];

/// The permanent list with all its tables read.
pub(super) fn access(values: &mut Values<'_>, directory: &Path) -> AccessList {
    let mynetworks = addresses(values, "access.mynetworks");
    let items = values.located_list("access.list");
    let elements = items.into_iter().filter_map(|item| element(values, item, directory)).collect();
    AccessList::new(elements, mynetworks)
}

/// How domains of the list are asked.
pub(super) fn spf(values: &mut Values<'_>) -> Spf {
    let spf = Spf {
        min_ttl: values.duration("access.spf.min_ttl", SECOND),
        max_ttl: values.duration("access.spf.max_ttl", SECOND),
        widest: Widest {
            ipv4: values.number("access.spf.widest.ipv4", 0..=32),
            ipv6: values.number("access.spf.widest.ipv6", 0..=128),
        },
    };
    if spf.min_ttl > spf.max_ttl {
        values.fault("access.spf.max_ttl", Fault::new("must not be shorter than access.spf.min_ttl"));
    }
    spf
}

/// Lists that others keep.
pub(super) fn blocklists(values: &mut Values<'_>, directory: &Path) -> Blocklists {
    Blocklists {
        max_share: values.number("blocklists.max_share", 1..=100),
        directory: path_if_given(values, "blocklists.directory").map(|path| directory.join(path)),
    }
}

/// An address match list.
pub(super) fn addresses(values: &mut Values<'_>, key: &str) -> AddressList {
    let texts = values.located_texts(key);
    let entries: Vec<&str> = texts.iter().map(|(text, _)| text.as_str()).collect();
    address_list::parse(&entries, values.host).unwrap_or_else(|faults| {
        for (position, message) in faults {
            let place = texts.get(position).map_or_else(|| values.place(key), |(_, place)| place.clone());
            values.fault_at(place, key, Fault::new(message));
        }
        AddressList::default()
    })
}

fn element(values: &mut Values<'_>, item: Located, directory: &Path) -> Option<Element> {
    let Located { value, place } = item;
    let element = match value {
        Value::Text(word) => match word.to_ascii_lowercase().as_str() {
            "permit" => Ok(Element::Permit),
            "reject" => Ok(Element::Reject),
            "permit_mynetworks" => Ok(Element::PermitMynetworks),
            "dunno" => Ok(Element::Dunno),
            _ => match word.split_once(':') {
                Some(("cidr", file)) if !file.is_empty() => file_table(values, file, directory),
                Some(("spf", domain)) => Domain::parse(domain)
                    .map(|domain| Element::Spf(domain, Arc::new(Networks::default())))
                    .ok_or_else(|| Fault::new(format!("{domain:?} is no domain that can be asked for"))),
                Some((kind, _)) if kind != "cidr" => Err(Fault::new(format!("tables of type {kind:?} are not known"))
                    .hint("a table is written \"cidr:/path/of/a/file\"")),
                _ => Err(unknown_word(&word, WORDS.into_iter())),
            },
        },
        Value::Table(entries) => inline_table(values, &entries, &place),
        other @ (Value::Integer(_) | Value::Boolean(_) | Value::List(_) | Value::Other(_)) => {
            Err(mismatch("a list of words and tables", &other))
        }
    };
    element.map_err(|fault| values.fault_at(place, "access.list", fault)).ok()
}

fn file_table(values: &mut Values<'_>, file: &str, directory: &Path) -> Result<Element, Fault> {
    let path = directory.join(file);
    let name = path.display().to_string();
    let bytes = values.host.read(&path).map_err(|error| Fault::new(format!("can't read {name}: {error}")))?;
    // Comments may be in any encoding; rules are ASCII.
    let (table, warnings) = Table::parse(&String::from_utf8_lossy(&bytes));
    let (element, more) = Element::table(&name, table, None);
    let all = warnings.into_iter().map(|warning| (warning.line, warning.message)).chain(more);
    values.warnings.extend(all.map(|(line, message)| warning(Place::line(&name, line), message)));
    Ok(element)
}

/// `{ cidr = ["192.0.2.0/24 reject"] }`: each text is a line of a table. What would be a warning in a file is an error here.
fn inline_table(values: &mut Values<'_>, entries: &[(String, Located)], place: &Place) -> Result<Element, Fault> {
    let [(name, Located { value: Value::List(items), .. })] = entries else {
        return Err(Fault::new("a table in place is written { cidr = [\"192.0.2.0/24 reject\"] }"));
    };
    if name != "cidr" {
        return Err(Fault::new(format!("tables of type {name:?} are not known")).hint("did you mean \"cidr\"?"));
    }
    let mut text = String::new();
    let mut lines = Vec::new();
    for item in items {
        match &item.value {
            Value::Text(rule) => text.push_str(&rule.replace(['\r', '\n'], " ")),
            other => values.fault_at(item.place.clone(), "access.list", mismatch("a list of texts", other)),
        }
        text.push('\n');
        lines.push(item.place.clone());
    }
    let (table, warnings) = Table::parse(&text);
    let numbers = lines.iter().map(|place| match place {
        Place::File { line, .. } => line.unwrap_or(0),
        Place::Override(_) => 0,
    });
    let file = match place {
        Place::File { path, .. } => path.to_string(),
        Place::Override(text) => format!("--set {text}"),
    };
    let (element, more) = Element::table(&file, table, Some(numbers.collect()));
    for (line, message) in warnings.into_iter().map(|warning| (warning.line, warning.message)).chain(more) {
        let at = (line as usize).checked_sub(1).and_then(|at| lines.get(at)).unwrap_or(place).clone();
        values.fault_at(at, "access.list", Fault::new(message));
    }
    Ok(element)
}

fn warning(place: Place, message: String) -> Problem {
    Problem { place, message, suggestion: None }
}
