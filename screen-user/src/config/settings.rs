//! What a configuration says, key by key, as text: for whoever compares two of them.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use super::{
    document::{Located, Value},
    keys::KEYS,
    values::Values,
};

/// Keys whose values are not shown: URLs and the names of zones can hold what is to be kept secret.
const SECRET: [&str; 3] = ["cache.redis.urls", "dnsbl.reply_map", "dnsbl.sites"];

/// Characters of a value that are shown.
const SHOWN: usize = 160;

/// The values of all keys that have one, defaults included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    pub(super) fn of(values: &Values<'_>) -> Self {
        let value = |path: &'static str| {
            let text = text(&values.value(path)?.value);
            Some((path, if SECRET.contains(&path) { digest(&text) } else { text }))
        };
        Self(KEYS.iter().filter_map(|key| value(key.path)).collect())
    }

    /// The keys whose value is not what it was in `old`, each with a sentence that says so.
    #[must_use]
    pub fn changes(&self, old: &Self) -> Vec<(&'static str, String)> {
        let of = |settings: &Self, key: &str| settings.0.get(key).cloned();
        KEYS.iter()
            .map(|key| (key.path, of(old, key.path), of(self, key.path)))
            .filter(|(_, before, now)| before != now)
            .map(|(key, before, now)| {
                let shown = |value: Option<String>| value.map_or_else(|| "none".to_owned(), |value| cut(&value));
                let change = if SECRET.contains(&key) {
                    "changed (its value is not shown)".to_owned()
                } else {
                    format!("{} -> {}", shown(before), shown(now))
                };
                (key, format!("{key}: {change}"))
            })
            .collect()
    }
}

/// A value as TOML has it.
fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::List(items) => {
            format!("[{}]", items.iter().map(|item| text(&item.value)).collect::<Vec<_>>().join(", "))
        }
        Value::Table(entries) if entries.is_empty() => "{}".to_owned(),
        Value::Table(entries) => {
            let entry = |(name, value): &(String, Located)| format!("{name:?} = {}", text(&value.value));
            format!("{{ {} }}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        Value::Other(kind) => (*kind).to_owned(),
    }
}

fn digest(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load_text;

    fn settings(text: &str) -> Settings {
        load_text(text, Path::new("/etc/mxscreen/mxscreen.toml"), &[])
            .unwrap_or_else(|problems| panic!("{problems}"))
            .settings
    }

    #[test]
    fn what_differs_is_told_with_both_values_and_defaults_count() {
        let old = settings("pregreet.wait = \"6s\"\naccess.list = [\"permit_mynetworks\", \"reject\"]");
        let new = settings("pregreet.wait = \"4s\"\ntls.sessions = 7\n[kernel.reply_texts]\noperator = \"5.7.1 Ask\"");
        let said: Vec<String> = new.changes(&old).into_iter().map(|(_, said)| said).collect();
        assert_eq!(
            said,
            [
                r#"access.list: ["permit_mynetworks", "reject"] -> ["permit_mynetworks"]"#,
                r#"pregreet.wait: "6s" -> "4s""#,
                "tls.sessions: 10000 -> 7",
                r#"kernel.reply_texts: {} -> { "operator" = "5.7.1 Ask" }"#,
            ]
        );
        assert!(settings("pregreet.wait = \"6s\"").changes(&settings("")).is_empty(), "that is the default");
    }

    #[test]
    fn secrets_are_compared_and_not_shown() {
        let (old, new) = (settings("dnsbl.sites = [\"k1.example\"]"), settings("dnsbl.sites = [\"k2.example\"]"));
        assert_eq!(new.changes(&old), [("dnsbl.sites", "dnsbl.sites: changed (its value is not shown)".to_owned())]);
        assert!(!format!("{new:?}").contains("k2"));
    }

    #[test]
    fn a_long_value_is_cut() {
        let long = format!("hostname = \"{}.example\"", "x".repeat(60));
        let list = format!("proxy_protocol.from = [{}]", vec!["\"192.0.2.1\""; 40].join(", "));
        assert!(settings(&long).changes(&settings("hostname = \"a.example\""))[0].1.ends_with("example\""));
        let said = &settings(&list).changes(&settings(""))[0].1;
        assert!(said.ends_with("...") && said.len() < 250, "{said}");
    }
}
