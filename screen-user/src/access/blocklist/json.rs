//! Lists in JSON: `CrowdSec` decisions, Spamhaus DROP by lines, and what `nft -j list set` prints.

use serde_json::Value;

use super::read::Gathering;

/// How deep a document may nest.
const DEPTH: usize = 16;

/// Reads one document.
pub(super) fn read(gathering: &mut Gathering, text: &str) {
    match serde_json::from_str::<Value>(text) {
        Ok(document) => walk(gathering, &document, DEPTH),
        Err(error) => gathering.refuse(error.line(), format!("no JSON: {error}")),
    }
}

/// Reads a line that is a document of its own: `{"cidr": "192.0.2.0/24", …}`. One without addresses is about the list.
pub(super) fn read_line(gathering: &mut Gathering, number: usize, line: &str) {
    match serde_json::from_str::<Value>(line) {
        Ok(document) => {
            if let Some(cidr) = document.get("cidr").and_then(Value::as_str) {
                gathering.text(number, cidr);
            } else if document.get("type").and_then(Value::as_str) != Some("metadata") {
                gathering.refuse(number, "an object without \"cidr\"");
            }
        }
        Err(error) => gathering.refuse(number, format!("no JSON: {error}")),
    }
}

fn walk(gathering: &mut Gathering, value: &Value, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else { return gathering.refuse(0, "nested too deeply") };
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(gathering, item, depth)),
        Value::Object(fields) => {
            // A decision that was taken back is listed beside those in force.
            let skipped = |name: &str| name == "deleted";
            let text = |name: &str| fields.get(name).and_then(Value::as_str);
            match (text("scope"), text("value")) {
                (Some(scope), Some(value)) if is_address_scope(scope) => gathering.text(0, value),
                // Countries, systems and users are no addresses.
                (Some(_), Some(_)) => {}
                (None, _) | (_, None) => {
                    if let Some(cidr) = text("cidr") {
                        gathering.text(0, cidr);
                    }
                }
            }
            if let Some(elements) = fields.get("elem").and_then(Value::as_array) {
                elements.iter().for_each(|element| set_element(gathering, element));
            }
            for (_, field) in fields.iter().filter(|(name, _)| !skipped(name) && *name != "elem") {
                if field.is_array() || field.is_object() {
                    walk(gathering, field, depth);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_address_scope(scope: &str) -> bool {
    scope.eq_ignore_ascii_case("ip") || scope.eq_ignore_ascii_case("range")
}

/// An element of an nftables set (libnftables-json(5)): an address, a prefix, a range, or one of them with a timeout.
fn set_element(gathering: &mut Gathering, element: &Value) {
    let text = match element {
        Value::String(address) => Some(address.clone()),
        Value::Object(fields) => {
            if let Some(inner) = fields.get("elem").and_then(|wrapped| wrapped.get("val")) {
                return set_element(gathering, inner);
            }
            let prefix = fields
                .get("prefix")
                .and_then(|prefix| Some(format!("{}/{}", prefix.get("addr")?.as_str()?, prefix.get("len")?.as_u64()?)));
            let range = fields
                .get("range")
                .and_then(|range| Some(format!("{}-{}", range.get(0)?.as_str()?, range.get(1)?.as_str()?)));
            prefix.or(range)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    };
    match text {
        Some(text) => gathering.text(0, &text),
        None => gathering.refuse(0, "an element that is no address, prefix or range"),
    }
}
