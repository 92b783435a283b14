//! Replays the recorded scenarios of `tests/oracle` against the protocol core alone: no socket, no clock, no wait.
//!
//! Every transcript up to the hand-over, and every log line, must be as recorded, but for the scenarios that
//! `tests/oracle-differences.txt` lists. PROXY headers are the driver's business: those groups are left out.

mod dns;
mod neutral;
mod world;

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::Value;

use self::world::World;

fn oracle() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle")
}

fn read_json(path: &str) -> Value {
    let path = oracle().join(path);
    serde_json::from_str(&fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .unwrap()
}

/// `group/scenario` of every listed difference, with its reason.
fn listed_differences() -> BTreeMap<String, String> {
    let text = fs::read_to_string(oracle().join("../oracle-differences.txt")).unwrap();
    text.lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no reason: {line}")))
        .map(|(name, reason)| (name.to_owned(), reason.to_owned()))
        .collect()
}

/// What is compared of one scenario: for each connection its events, for each place its log lines.
type Seen = BTreeMap<String, Vec<String>>;

fn expected(result: &Value) -> Seen {
    let mut seen = Seen::new();
    for (name, events) in result["transcript"].as_object().unwrap() {
        let mut lines = Vec::new();
        for event in events.as_array().unwrap() {
            let words: Vec<&str> = event.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
            match words[0] {
                // What the client sends is the scenario's, not the program's.
                ">" | "skipped" => {}
                "reset" => lines.push(format!("eof {}", words[1..].join(" "))),
                _ => lines.push(words.join(" ")),
            }
            if words[0] == "handoff" {
                break;
            }
        }
        seen.insert(format!("connection {name}"), lines.into_iter().map(|line| line.trim_end().to_owned()).collect());
    }
    for (place, lines) in result["log"].as_object().unwrap() {
        let lines: Vec<String> = lines
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|line| line.as_str().unwrap().strip_prefix("postscreen: ").map(str::to_owned))
            .collect();
        if !lines.is_empty() {
            seen.insert(format!("log {place}"), lines);
        }
    }
    seen
}

/// Runs all scenarios of a group; yields what differs, by scenario.
fn differences_of(group: &str) -> BTreeMap<String, String> {
    let scenarios = read_json(&format!("scenarios/{group}.json"));
    let golden = read_json(&format!("golden/{group}.json"));
    let mut world = World::new(&scenarios["config"], &read_json("dns.json"));
    let mut differences = BTreeMap::new();
    for scenario in scenarios["scenarios"].as_array().unwrap() {
        let name = scenario["name"].as_str().unwrap();
        let actual = world.run(scenario);
        let expected = expected(&golden["results"][name]);
        if actual != expected {
            let mut text = String::new();
            for place in expected.keys().chain(actual.keys()).collect::<std::collections::BTreeSet<_>>() {
                let (expected, actual) = (expected.get(place), actual.get(place));
                if expected != actual {
                    text.push_str(&format!("  {place}:\n    recorded {expected:#?}\n    here     {actual:#?}\n"));
                }
            }
            differences.insert(format!("{group}/{name}"), text);
        }
    }
    differences
}

#[test]
fn every_recorded_scenario_is_the_same_or_listed() {
    let mut groups: Vec<String> = fs::read_dir(oracle().join("scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|group| !group.starts_with("proxy"))
        .collect();
    groups.sort();
    let listed = listed_differences();
    let mut wrong = String::new();
    for group in &groups {
        for (name, text) in differences_of(group) {
            if !listed.contains_key(&name) {
                wrong.push_str(&format!("{name} differs and is not listed:\n{text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
