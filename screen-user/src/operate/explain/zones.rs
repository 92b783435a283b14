//! What DNSBL zones say of a client: what the gate has heard, else what the journal has.

use std::fmt::Write as _;

use serde_json::Value;

use super::{past::Past, text::field};
use crate::{operate::table, screen::found::ZoneFound};

const NOT_LISTED: &str = "not listed";
const UNUSABLE: &str = "none that can be used";

/// Writes what was said last, with when that was; nothing if nobody has asked.
pub(super) fn write(text: &mut String, answer: &Value, past: &Past) {
    match answer.get("dnsbl").filter(|known| !known.is_null()) {
        Some(known) => heard(text, known, field(answer, "address")),
        None => found(text, past),
    }
}

/// What the gate has heard, of `address` or of another address of the same client.
fn heard(text: &mut String, known: &Value, address: &str) {
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_i64).map(|number| number.to_string());
    let instant = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64).map(table::instant);
    let none = || "-".to_owned();
    let zones = known.get("zones").and_then(Value::as_array).into_iter().flatten();
    let rows: Vec<Vec<String>> = zones
        .map(|zone| {
            let codes = zone.get("codes").and_then(Value::as_array).into_iter().flatten();
            let codes: Vec<&str> = codes.filter_map(Value::as_str).collect();
            let answer = match field(zone, "answer") {
                "listed" => listed(&codes),
                "not-listed" => NOT_LISTED.to_owned(),
                "failed" => UNUSABLE.to_owned(),
                _ => "none yet".to_owned(),
            };
            let (score, until) = (number(zone, "score"), instant(zone, "until"));
            vec![field(zone, "zone").to_owned(), answer, score.unwrap_or_else(none), until.unwrap_or_else(none)]
        })
        .collect();
    let asked = instant(known, "asked").unwrap_or_default();
    let of = Some(field(known, "client")).filter(|client| *client != address);
    let of = of.map_or_else(String::new, |client| format!(" about {client}"));
    let (score, threshold) = (number(known, "score"), number(known, "threshold"));
    let (score, threshold) = (score.unwrap_or_default(), threshold.unwrap_or_default());
    let table = table::render(&["ZONE", "ANSWER", "SCORE", "UNTIL"], &rows);
    let _ = write!(text, "\nDNSBL answers of {asked}{of}: score {score}, threshold {threshold}\n{table}");
}

fn listed(codes: &[impl ToString]) -> String {
    format!("listed: {}", codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

fn found(text: &mut String, past: &Past) {
    let Some((time, zones)) = past.zones() else { return };
    // What tells zones of one name apart in the journal means nothing to a reader.
    let name = |zone: &ZoneFound| zone.zone.split('#').next().unwrap_or_default().to_owned();
    let rows: Vec<Vec<String>> = zones.iter().map(|zone| vec![name(zone), said(zone)]).collect();
    let _ = write!(text, "\nDNSBL answers of {}\n{}", table::instant(time), table::render(&["ZONE", "ANSWER"], &rows));
}

fn said(zone: &ZoneFound) -> String {
    match (zone.ms, zone.codes.as_deref()) {
        (None, _) => "none in time".to_owned(),
        (Some(_), None) => UNUSABLE.to_owned(),
        (Some(_), Some([])) => NOT_LISTED.to_owned(),
        (Some(_), Some(codes)) => listed(codes),
    }
}
