//! Registers as lines of JSON, for `mxscreen cache export` and `import`: one register a line, so that a file can be read, searched and cut.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Hosts, Item, Key, Version, form};
use crate::{
    access::{blocklist::Addresses, runtime::Entry},
    screen::record::{Finding, Grounds, Record, Stamp, Test},
};

/// The first line of a file.
pub const HEAD: &str = r#"{"mxscreen":"cache","form":1}"#;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    host: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    /// Of a record: by test.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tests: BTreeMap<Test, Known>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entry: Option<Entry>,
    /// Of an imported list: what is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    about: Option<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    networks: Vec<IpNet>,
}

/// What is known of a test.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    until: Stamp,
    version: Version,
    grounds: Grounds,
}

/// What a line holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// A register.
    Register(Key, Item),
    /// The head of a file.
    Head,
}

/// A register as a line; `None` if it is none that this version understands.
#[must_use]
pub fn line(key: &Key, item: &Item, hosts: &Hosts) -> Option<String> {
    let mut line = Line {
        key: key.to_string(),
        host: item.host.to_string(),
        version: None,
        tests: BTreeMap::new(),
        entry: None,
        about: None,
        networks: Vec::new(),
    };
    match key {
        Key::Record(_) => {
            let record = form::to_record(item, hosts);
            let known = Test::ALL.into_iter().filter_map(|test| {
                let Finding { version, stamp, grounds } = record.finding(test);
                (version > Version::NONE).then_some((test, Known { until: stamp, version, grounds }))
            });
            line.tests = known.collect();
        }
        Key::Entry(..) => line.entry = Some(form::to_entry(item)?),
        Key::Forget(_) => line.version = Some(item.version()),
        Key::List(_) => {
            line.version = Some(item.version());
            if let Some((about, addresses)) = form::to_list(item) {
                line.about = Some(about);
                line.networks = addresses.networks().collect();
            }
        }
    }
    serde_json::to_string(&line).ok()
}

/// What a line holds. Findings are of use until `retention` after their passes have ended.
///
/// # Errors
/// It is not a line that [`line()`] makes; the text says why.
pub fn read(text: &str, retention: Duration, hosts: &Hosts) -> Result<Held, String> {
    if text == HEAD {
        return Ok(Held::Head);
    }
    let line: Line = serde_json::from_str(text).map_err(|error| format!("no line of an export: {error}"))?;
    let key: Key = line.key.parse().map_err(|_| format!("{:?} is no key", line.key))?;
    let dated = line.version.ok_or("it has no version");
    let item = match &key {
        Key::Record(_) => {
            let mut record = Record::default();
            let host = hosts.id(&line.host);
            for (test, Known { until, version, grounds }) in line.tests {
                record.set(test, Finding { version, stamp: until, grounds }, host);
            }
            form::of_record(&record, retention, hosts)
        }
        Key::Entry(roll, net) => {
            let entry = line.entry.filter(|entry| (entry.roll(), entry.net) == (*roll, *net));
            entry.as_ref().and_then(form::of_entry).ok_or("it has no entry, or that of another network")?
        }
        Key::Forget(_) => form::of_forget(dated?, &line.host),
        Key::List(_) => match &line.about {
            Some(about) => form::of_list(about, &line.networks.into_iter().collect::<Addresses>(), dated?, &line.host),
            None => form::of_removed(dated?, &line.host),
        },
    };
    Ok(Held::Register(key, item))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::runtime::{Kind, Origin, Roll};

    const RETENTION: Duration = Duration::from_secs(60);

    fn comes_back(key: &Key, item: &Item) -> String {
        let hosts = Hosts::new("mx1");
        let text = line(key, item, &hosts).unwrap();
        assert!(!text.contains('\n'));
        assert_eq!(read(&text, RETENTION, &hosts), Ok(Held::Register(key.clone(), item.clone())), "{text}");
        text
    }

    #[test]
    fn registers_come_back_from_their_lines() {
        let hosts = Hosts::new("mx1");
        let mut record = Record::default();
        let finding = Finding { version: Version::at(9_000), stamp: Stamp(100), grounds: Grounds::Taken };
        record.set(Test::Pregreet, finding, hosts.id("mx2"));
        let text = comes_back(&"record:192.0.2.1/32".parse().unwrap(), &form::of_record(&record, RETENTION, &hosts));
        assert!(text.contains(r#""pregreet":{"until":100,"#) && text.contains("mx2"), "{text}");

        let net: IpNet = "192.0.2.0/24".parse().unwrap();
        let entry = Entry {
            net,
            kind: Kind::Deny,
            until: Some(70),
            reason: "line\nbreak".into(),
            origin: Origin::Operator,
            version: Version(5),
            host: "mx1".into(),
            offence: None,
        };
        comes_back(&Key::Entry(Roll::Deny, net), &form::of_entry(&entry).unwrap());
        comes_back(&Key::Forget(net), &form::of_forget(Version(7), "mx1"));
        comes_back(&Key::List("drop".into()), &form::of_removed(Version(7), "mx1"));
        let addresses = [net].into_iter().collect();
        let about = serde_json::json!({ "until": 9, "imported": 3 });
        let text = comes_back(&Key::List("drop".into()), &form::of_list(&about, &addresses, Version(7), "mx1"));
        assert!(text.contains("192.0.2.0/24"), "{text}");
        assert_eq!(read(HEAD, RETENTION, &hosts), Ok(Held::Head));
    }

    #[test]
    fn what_is_no_line_is_refused_with_a_reason() {
        let hosts = Hosts::new("mx1");
        for (text, expected) in [
            ("", "no line of an export"),
            ("{\"key\":\"record:192.0.2.1/24\"}", "is no key"),
            ("{\"key\":\"forget:192.0.2.0/24\"}", "has no version"),
            ("{\"key\":\"deny:192.0.2.0/24\"}", "has no entry"),
            ("{\"key\":\"record:192.0.2.1/32\",\"tests\":{\"other\":{}}}", "no line of an export"),
        ] {
            let error = read(text, RETENTION, &hosts).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
