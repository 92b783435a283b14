//! What is known here, as registers, and back.

use std::time::Duration;

use serde_json::Value;

use super::{Cell, Hosts, Item, Version, forgets::LIFE_MILLIS};
use crate::{
    access::{blocklist::Addresses, runtime::Entry},
    screen::record::{Finding, Grounds, Record, Stamp, Test},
};

/// The length of a finding's value: stamp and grounds.
const FINDING: usize = 8 + 1;

/// A record as a register: a cell for each test of which something was learnt. Each is of use until `retention` after its pass ended.
#[must_use]
pub fn of_record(record: &Record, retention: Duration, hosts: &Hosts) -> Item {
    let cells = Test::ALL.into_iter().filter_map(|test| {
        let Finding { version, stamp, grounds } = record.finding(test);
        let mut payload = Vec::with_capacity(FINDING);
        payload.extend(stamp.0.to_be_bytes());
        payload.push(grounds as u8);
        // What is no pass takes one back: it has to last as long as what others may know of it.
        let end = if stamp.is_pass() { stamp.0 } else { version.unix_millis() / 1000 };
        let expires = end.saturating_add(retention.as_secs()).max(1);
        (version > Version::NONE).then_some(Cell { index: test as u8, version, expires, payload })
    });
    Item { host: (*hosts.name(record.host())).into(), cells: cells.collect() }
}

/// The record of a register. Cells that this version does not know are left out.
#[must_use]
pub fn to_record(item: &Item, hosts: &Hosts) -> Record {
    let host = hosts.id(&item.host);
    let mut record = Record::default();
    for cell in &item.cells {
        let test = Test::ALL.get(usize::from(cell.index));
        if let (Some(&test), Some((stamp, [grounds]))) = (test, cell.payload.split_first_chunk::<8>()) {
            let stamp = Stamp(u64::from_be_bytes(*stamp));
            let grounds = Grounds::ALL.get(usize::from(*grounds)).copied().unwrap_or_default();
            record.set(test, Finding { version: cell.version, stamp, grounds }, host);
        }
    }
    record
}

/// A run-time entry as a register; `None` if it can't be written.
#[must_use]
pub fn of_entry(entry: &Entry) -> Option<Item> {
    let json = serde_json::to_vec(entry).ok()?;
    Some(Item::of_one(&entry.host, entry.version, entry.ends().unwrap_or(0), json))
}

/// An order to forget as a register.
#[must_use]
pub fn of_forget(version: Version, host: &str) -> Item {
    Item::of_one(host, version, (version.unix_millis() + LIFE_MILLIS) / 1000, Vec::new())
}

/// An imported list as a register: what is known of it as a line of JSON, then its addresses.
#[must_use]
pub fn of_list(about: &Value, addresses: &Addresses, version: Version, host: &str) -> Item {
    let until = about.get("until").and_then(Value::as_u64).unwrap_or(0);
    let payload = [about.to_string().as_bytes(), b"\n", &addresses.to_bytes()].concat();
    Item::of_one(host, version, until, payload)
}

/// The imported list of a register; `None` if it holds none.
#[must_use]
pub fn to_list(item: &Item) -> Option<(Value, Addresses)> {
    let payload = item.payload()?;
    let end = payload.iter().position(|byte| *byte == b'\n')?;
    let (about, addresses) = payload.split_at_checked(end)?;
    Some((serde_json::from_slice(about).ok()?, Addresses::from_bytes(addresses.get(1..)?)?))
}

/// The removal of a list as a register.
#[must_use]
pub fn of_removed(version: Version, host: &str) -> Item {
    of_forget(version, host)
}

/// The run-time entry of a register; `None` if it holds none.
#[must_use]
pub fn to_entry(item: &Item) -> Option<Entry> {
    serde_json::from_slice(item.payload()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::runtime::{Kind, Origin};

    #[test]
    fn a_record_comes_back_with_what_was_learnt() {
        let hosts = Hosts::new("mx1.example.test");
        let mut record = Record::default();
        let passed = Finding { version: Version::at(7_000), stamp: Stamp(100), grounds: Grounds::Taken };
        let taken_back = Finding { version: Version::at(9_000), stamp: Stamp::DISABLED, grounds: Grounds::LateAnswers };
        record.set(Test::Pregreet, passed, hosts.id("mx2.example.test"));
        record.set(Test::Dnsbl, taken_back, hosts.id("mx2.example.test"));
        let item = of_record(&record, Duration::from_secs(50), &hosts);
        assert_eq!(item.cells.iter().map(|cell| cell.expires).collect::<Vec<_>>(), [150, 59]);
        assert_eq!((&*item.host, item.version()), ("mx2.example.test", Version::at(9_000)));
        assert_eq!(to_record(&item, &hosts), record);
        assert!(of_record(&Record::default(), Duration::ZERO, &hosts).cells.is_empty());
    }

    #[test]
    fn cells_of_a_later_version_are_left_out() {
        let hosts = Hosts::new("mx1.example.test");
        let cell = |index, payload: &[u8]| Cell { index, version: Version(9), expires: 1, payload: payload.to_vec() };
        let cells = vec![cell(0, &[0; 9]), cell(1, &[0; 12]), cell(2, &[]), cell(40, &[0; 9])];
        let record = to_record(&Item { host: "x".into(), cells }, &hosts);
        let known = Test::ALL.into_iter().filter(|&test| record.finding(test).version > Version::NONE);
        assert_eq!(known.collect::<Vec<_>>(), [Test::Pregreet]);
    }

    #[test]
    fn an_entry_comes_back() {
        let entry = Entry {
            net: "192.0.2.0/24".parse().unwrap(),
            kind: Kind::Deny,
            until: Some(70),
            reason: "because".into(),
            origin: Origin::Operator,
            version: Version(5),
            host: "mx1".into(),
            offence: None,
        };
        let item = of_entry(&entry).unwrap();
        assert_eq!((item.expires(), item.version()), (70, Version(5)));
        assert_eq!(to_entry(&item), Some(entry));
        assert_eq!(to_entry(&Item::of_one("x", Version(1), 0, b"{".to_vec())), None);
    }
}
