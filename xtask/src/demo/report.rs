//! What the demonstration shows: one row a visit, and the kernel's counters as bpftool prints them.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use serde_json::Value;

use super::{
    client::{Got, Visit},
    gate,
};

/// Who decided about a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decided {
    /// The kernel programs, without the screener.
    Kernel,
    /// The screener.
    Screener,
    /// There was no gate.
    Nobody,
}

/// One visit of one client.
#[derive(Debug, Clone)]
pub(super) struct Row {
    who: &'static str,
    address: &'static str,
    did: String,
    got: String,
    decided: Option<Decided>,
    after: Duration,
    /// Why it is not as it should be.
    pub(super) wrong: Option<String>,
}

impl Row {
    /// A visit; who decided about it is still to be said.
    pub(super) fn new(who: &'static str, address: &'static str, did: &str, visit: &Visit) -> Self {
        let got = match &visit.got {
            Got::Delivered(reply) | Got::Refused(reply) => reply.clone(),
            Got::NoConnection => "no answer to its SYN".to_owned(),
            Got::Reset => "a reset".to_owned(),
            Got::Ended => "the end of the connection".to_owned(),
        };
        Self { who, address, did: did.to_owned(), got, decided: None, after: visit.after, wrong: None }
    }

    /// As it should be, and decided there.
    pub(super) fn decided(mut self, decided: Decided) -> Self {
        self.decided = Some(decided);
        self
    }

    /// Not as it should be.
    pub(super) fn wrong(mut self, why: &str) -> Self {
        self.wrong = Some(why.to_owned());
        self
    }
}

/// The rows as aligned text.
pub(super) fn table(rows: &[Row]) -> Vec<String> {
    let heads = ["who", "address", "what it does", "what it gets", "decided by", "after"].map(str::to_owned);
    let mut lines = vec![heads];
    for row in rows {
        let decided = match row.decided {
            Some(Decided::Kernel) => "kernel",
            Some(Decided::Screener) => "screener",
            Some(Decided::Nobody) => "nobody",
            None => "?",
        };
        lines.push([
            row.who.to_owned(),
            row.address.to_owned(),
            row.did.clone(),
            shortened(&row.got, 48),
            decided.to_owned(),
            elapsed(row.after),
        ]);
    }
    let mut widths = [0; 6];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push(cells.join("  ").trim_end().to_owned());
        if number == 0 {
            text.push(widths.map(|width| "-".repeat(width)).join("  "));
        }
        if let Some(why) = number.checked_sub(1).and_then(|at| rows.get(at)).and_then(|row| row.wrong.as_ref()) {
            text.push(format!("    WRONG: {why}"));
        }
    }
    text
}

/// A reply cut to what a row has room for.
fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(3)).chain("...".chars()).collect()
}

/// Milliseconds below a second, seconds above.
fn elapsed(time: Duration) -> String {
    match time.as_millis() {
        0..10 => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
        10..1000 => format!("{} ms", time.as_millis()),
        1000.. => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// How often the kernel has denied and limited a client.
pub(super) fn refusals(client: IpAddr) -> Result<(u64, u64)> {
    let dump = gate::map("refused")?;
    Ok((count(&dump, client, "denied"), count(&dump, client, "limited")))
}

/// How many of a client's connections the kernel has given to the mail server.
pub(super) fn steered(client: IpAddr) -> Result<u64> {
    Ok(count(&gate::map("clients")?, client, "steered"))
}

/// The sum of a field over the entries for a client.
fn count(dump: &Value, client: IpAddr, field: &str) -> u64 {
    entries(dump)
        .filter(|entry| entry.get("key").and_then(address).is_some_and(|key| stands_for(key, client)))
        .filter_map(|entry| entry.get("value")?.get(field)?.as_u64())
        .sum()
}

/// Whether a map's key is this client or, as where connections are counted, its /64.
fn stands_for(key: IpAddr, client: IpAddr) -> bool {
    match (key, client) {
        (IpAddr::V6(key), IpAddr::V6(client)) => key == client || u128::from(key) == u128::from(client) >> 64 << 64,
        _ => key == client,
    }
}

/// The pinned maps that an operator reads, with the commands that show them: of each entry the named fields that are not zero.
pub(super) fn maps(clients: &[IpAddr]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for name in ["totals", "clients", "refused"] {
        lines.push(format!("$ bpftool map dump pinned /sys/fs/bpf/mxscreen/maps/{name}"));
        let dump = gate::map(name)?;
        for entry in entries(&dump) {
            let key = entry.get("key").unwrap_or(&Value::Null);
            let shown = match address(key) {
                // Others than the cast would be of no interest to a reader.
                Some(address) if !clients.iter().any(|client| stands_for(address, *client)) => continue,
                Some(address) => address.to_string(),
                None => plain(key),
            };
            let fields = counters(entry);
            if !fields.is_empty() {
                lines.push(format!("  {shown:<18} {}", fields.join("  ")));
            }
        }
    }
    Ok(lines)
}

/// The fields of an entry that count something, summed over the processors where each has its own.
fn counters(entry: &Value) -> Vec<String> {
    let values: Vec<&Value> = match entry.get("values").and_then(Value::as_array) {
        Some(values) => values.iter().filter_map(|value| value.get("value")).collect(),
        None => entry.get("value").into_iter().collect(),
    };
    let Some(names) = values.first().and_then(|value| value.as_object()) else { return Vec::new() };
    names
        .keys()
        .filter(|name| !name.ends_with("_ns") && *name != "reserved")
        .filter_map(|name| {
            let sum: u64 = values.iter().filter_map(|value| value.get(name).and_then(Value::as_u64)).sum();
            (sum > 0).then(|| format!("{name} {sum}"))
        })
        .collect()
}

/// A key with one named field, without its braces.
fn plain(key: &Value) -> String {
    let field = key.as_object().and_then(|fields| fields.values().next()).unwrap_or(key);
    field.as_str().map_or_else(|| field.to_string(), str::to_owned)
}

/// The entries of a dump with their fields by name.
fn entries(dump: &Value) -> impl Iterator<Item = &Value> {
    dump.as_array().into_iter().flatten().map(|entry| entry.get("formatted").unwrap_or(entry))
}

/// The address in a key: sixteen bytes in network order, an IPv4 address as its mapped form.
fn address(key: &Value) -> Option<IpAddr> {
    let bytes = key.get("address")?.as_array()?;
    let bytes: Vec<u8> = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
    let octets: [u8; 16] = bytes.try_into().ok()?;
    Some(IpAddr::from(octets).to_canonical())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_addresses_of_both_families() {
        let v4 = json!({ "address": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 66] });
        let v6 = json!({ "address": [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] });
        assert_eq!(address(&v4), Some("192.0.2.66".parse().unwrap()));
        assert_eq!(address(&v6), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(address(&json!({ "reason": "DENIED" })), None);
    }

    #[test]
    fn an_ipv6_client_is_found_under_its_prefix_too() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        assert!(stands_for(ip("2001:db8:60::"), ip("2001:db8:60::10")));
        assert!(stands_for(ip("2001:db8:60::10"), ip("2001:db8:60::10")));
        assert!(!stands_for(ip("2001:db8:60::11"), ip("2001:db8:60::10")));
        assert!(!stands_for(ip("192.0.2.0"), ip("192.0.2.1")));
    }

    #[test]
    fn times_show_what_matters_of_them() {
        assert_eq!(elapsed(Duration::from_micros(340)), "0.3 ms");
        assert_eq!(elapsed(Duration::from_millis(27)), "27 ms");
        assert_eq!(elapsed(Duration::from_millis(6040)), "6.0 s");
    }

    #[test]
    fn counters_are_summed_over_processors_and_zeros_left_out() {
        let entry = json!({
            "key": { "reason": "DENIED" },
            "values": [{ "cpu": 0, "value": { "packets": 2, "events": 0 } }, { "cpu": 1, "value": { "packets": 3, "events": 0 } }],
        });
        assert_eq!(counters(&entry), ["packets 5"]);
        let entry = json!({ "value": { "active": 49, "limited": 0, "last_seen_ns": 7 } });
        assert_eq!(counters(&entry), ["active 49"]);
    }

    #[test]
    fn long_replies_are_cut_between_characters() {
        assert_eq!(shortened("250 ok", 10), "250 ok");
        assert_eq!(shortened("250 o\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", 10), "250 o\u{e9}\u{e9}...");
    }
}
