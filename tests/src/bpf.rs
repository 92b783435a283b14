//! The gate's pinned maps, as an operator reads them with bpftool.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::netns::run;

/// The pins of one gate.
#[derive(Debug, Clone)]
pub struct Pins {
    path: PathBuf,
}

/// One entry of a map, as BTF names its fields.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: Value,
    /// The value, or the values of all CPUs.
    pub value: Value,
}

impl Entry {
    /// A number of the value, added up over all CPUs where there is one for each.
    ///
    /// # Panics
    ///
    /// When there is no such number.
    #[must_use]
    pub fn number(&self, field: &str) -> i64 {
        sum(&self.value, field)
    }
}

impl Pins {
    /// The pins under `path` (`kernel.pin_path`).
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Whether anything is pinned.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.path.exists()
    }

    /// Every entry of the map `name`, by `bpftool map dump pinned`.
    ///
    /// # Panics
    ///
    /// When bpftool fails, or prints no named fields.
    #[track_caller]
    #[must_use]
    pub fn dump(&self, name: &str) -> Vec<Entry> {
        let path = self.path.join("maps").join(name);
        let output =
            Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(&path).output().expect("bpftool");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "bpftool map dump pinned {}: {printed}", path.display());
        let entries: Vec<Value> = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
        entries
            .into_iter()
            .map(|entry| {
                let named = &entry["formatted"];
                assert!(named.is_object(), "no named fields in map {name}: {entry}");
                let value = if named["value"].is_null() { &named["values"] } else { &named["value"] };
                Entry { key: named["key"].clone(), value: value.clone() }
            })
            .collect()
    }

    /// The entry of `map` whose `address` is this one.
    #[track_caller]
    #[must_use]
    pub fn of(&self, map: &str, address: IpAddr) -> Option<Entry> {
        self.dump(map).into_iter().find(|entry| address_in(&entry.key) == Some(address))
    }

    /// A number in the entry of `map` for `address`; none stands for 0.
    #[track_caller]
    #[must_use]
    pub fn count(&self, map: &str, address: IpAddr, field: &str) -> i64 {
        self.of(map, address).map_or(0, |entry| entry.number(field))
    }

    /// The entry of `clients` that counts this client: its IPv4 address, or its IPv6 /64.
    #[track_caller]
    #[must_use]
    pub fn client(&self, address: IpAddr) -> Option<Entry> {
        self.of("clients", network_of(address))
    }

    /// Makes the count of this client's connections wrong, as no program does.
    ///
    /// # Panics
    ///
    /// When bpftool fails, or the client has no entry.
    #[track_caller]
    pub fn falsify_active(&self, address: IpAddr, active: u64) {
        let path = self.path.join("maps/clients").display().to_string();
        let key = match network_of(address) {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
        let on_key = |verb| ["-j", "map", verb, "pinned", &path, "key", "hex"].map(str::to_owned).into_iter();
        let found: Value =
            serde_json::from_str(&run("bpftool", on_key("lookup").chain(hex(&key.octets())))).expect("JSON");
        let mut value = Vec::new();
        collect_bytes(&found["value"], &mut value);
        // The first field (docs/kernel.md).
        value.splice(..8, active.to_ne_bytes());
        let value = ["value", "hex"].map(str::to_owned).into_iter().chain(hex(&value));
        run("bpftool", on_key("update").chain(hex(&key.octets())).chain(value));
    }

    /// A number in the entry of `totals` for this reason.
    #[track_caller]
    #[must_use]
    pub fn total(&self, reason: &str, field: &str) -> i64 {
        let entries = self.dump("totals");
        let entry = entries.iter().find(|entry| entry.key == reason || entry.key["reason"] == reason);
        entry.map_or(0, |entry| entry.number(field))
    }

    /// Unpins everything.
    pub fn remove(&self) {
        // Whoever started no kernel part has pinned nothing.
        drop(std::fs::remove_dir_all(&self.path));
    }
}

/// What counts as one client by default: an IPv4 address, an IPv6 /64.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

fn sum(value: &Value, field: &str) -> i64 {
    match value {
        Value::Array(cpus) => cpus.iter().map(|cpu| sum(&cpu["value"], field)).sum(),
        Value::Object(fields) => {
            let number = fields.get(field).unwrap_or_else(|| panic!("no field {field} in {value}"));
            number.as_i64().unwrap_or_else(|| panic!("{field} is no number in {value}"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => panic!("no fields in {value}"),
    }
}

/// The address in a key: IPv4 is mapped into IPv6, and the key of a prefix holds its address as `data`.
fn address_in(key: &Value) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    collect_bytes(key.get("address").or_else(|| key.get("data")).unwrap_or(key), &mut bytes);
    let bytes: [u8; 16] = bytes.get(..16)?.try_into().ok()?;
    Some(Ipv6Addr::from(bytes).to_canonical())
}

fn collect_bytes(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_bytes(item, bytes)),
        Value::Object(fields) => fields.values().for_each(|item| collect_bytes(item, bytes)),
        Value::Number(number) => bytes.extend(number.as_u64().and_then(|number| u8::try_from(number).ok())),
        Value::String(text) => bytes.extend(u8::from_str_radix(text.trim_start_matches("0x"), 16)),
        Value::Null | Value::Bool(_) => {}
    }
}
