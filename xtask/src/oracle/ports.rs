//! Scenarios in which two connections of one client had the same port, one after the other. The probe tells the log lines of connections
//! apart by their ports, so that such a scenario has been played and not compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use super::probe::{Outcome, Played};

/// The scenarios that differ from their record and whose connections shared a port. `folder` is where the probe left its transcripts.
pub(super) fn ambiguous(folder: &Path, played: &[Played]) -> BTreeSet<String> {
    let mut documents = BTreeMap::new();
    let mut names = BTreeSet::new();
    for Played { name, outcome } in played {
        let (Outcome::Differs(_), Some((group, scenario))) = (outcome, name.split_once('/')) else { continue };
        let document = documents.entry(group).or_insert_with(|| {
            let text = fs::read_to_string(folder.join(format!("{group}.json"))).unwrap_or_default();
            serde_json::from_str::<Value>(&text).unwrap_or_default()
        });
        if shares_a_port(document.pointer(&format!("/results/{scenario}/meta/conns")).unwrap_or(&Value::Null)) {
            names.insert(name.clone());
        }
    }
    names
}

/// Whether two connections have the same local address and port.
fn shares_a_port(connections: &Value) -> bool {
    let mut seen = BTreeSet::new();
    let ends = connections.as_object().into_iter().flat_map(|connections| connections.values());
    ends.filter_map(|connection| connection.get("local").filter(|end| end.is_array()))
        .any(|end| !seen.insert(end.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_scenarios_that_differ_and_share_a_port_are_doubtful() {
        let folder = tempfile::tempdir().unwrap();
        let connections = |second: u16| {
            json!({ "meta": { "conns": {
                "1": { "local": ["198.18.1.1", 40000] },
                "2": { "local": ["198.18.1.1", second] },
                "3": { "local": null },
            } } })
        };
        let document = json!({ "results": { "same": connections(40000), "other": connections(40001) } });
        fs::write(folder.path().join("group.json"), document.to_string()).unwrap();
        let played = |name: &str, outcome| Played { name: name.to_owned(), outcome };
        let differs = || Outcome::Differs(Vec::new());
        let doubtful = ambiguous(
            folder.path(),
            &[
                played("group/same", differs()),
                played("group/other", differs()),
                played("group/missing", differs()),
                played("elsewhere/same", differs()),
            ],
        );
        assert_eq!(doubtful, BTreeSet::from(["group/same".to_owned()]));
        assert!(ambiguous(folder.path(), &[played("group/same", Outcome::Same)]).is_empty());
    }
}
