//! What a gate that runs says of itself: how it is attached, whom it reaches, what it complains of.

use serde_json::Value;

use super::finding::{Finding, Grade};

/// The table's share from which on it is worth a note, in hundredths.
const NEARLY_FULL: u64 = 90;

const fn finding(subject: &'static str, grade: Grade, what: String, mend: Option<String>) -> Finding {
    Finding { subject, grade, what, mend }
}

/// By `status`, if a gate runs; else why it can't be asked.
pub(super) fn judge(status: &Result<Value, String>) -> Vec<Finding> {
    match status {
        Err(why) => {
            let what = format!("no gate can be asked, which would know best: {why}");
            vec![finding("gate", Grade::Unknown, what, Some("systemctl start mxscreen".to_owned()))]
        }
        Ok(status) => {
            let mut findings = vec![gate(status)];
            findings.extend(texts(&status["notices"]).map(|notice| finding("gate", Grade::Note, notice, None)));
            findings.extend(kernel(&status["kernel"]));
            findings.extend(each(at(status, "/kernel/interfaces")).map(interface));
            findings.extend(each(at(status, "/kernel/tables")).filter_map(table));
            findings.extend(each(at(status, "/kernel/hung_mail_server_listeners")).map(hung));
            findings.extend(redis(at(status, "/cache/redis")));
            findings
        }
    }
}

/// Null where there is nothing.
fn at<'a>(status: &'a Value, pointer: &str) -> &'a Value {
    status.pointer(pointer).unwrap_or(&Value::Null)
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn texts(list: &Value) -> impl Iterator<Item = String> {
    each(list).filter_map(Value::as_str).map(str::to_owned)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn gate(status: &Value) -> Finding {
    let version = text(&status["version"]);
    if at(status, "/cache/loading").is_null() {
        finding("gate", Grade::Fine, format!("mxscreen {version} runs"), None)
    } else {
        finding("gate", Grade::Note, format!("the gate, mxscreen {version}, is about to be ready"), None)
    }
}

fn kernel(kernel: &Value) -> Vec<Finding> {
    if kernel["running"] != true {
        let what =
            "the screener does everything: there is no kernel part, and nothing is decided before a connection stands";
        return vec![finding("kernel", Grade::Note, what.to_owned(), None)];
    }
    let programs = texts(&kernel["programs"]).collect::<Vec<_>>().join(", ");
    let attached = finding("kernel", Grade::Fine, format!("the kernel part is attached: {programs}"), None);
    let notes = texts(&kernel["notes"]).map(|note| finding("kernel", Grade::Note, note, None));
    [attached].into_iter().chain(notes).collect()
}

/// The way that was taken, and the first thing that stood in the way of a better one.
fn interface(interface: &Value) -> Finding {
    let (name, mode) = (text(&interface["interface"]), text(&interface["mode"]));
    let Some(step) = each(&interface["steps_down"]).next() else {
        return finding("interfaces", Grade::Fine, format!("{name}: {mode}"), None);
    };
    let what = format!("{name}: {mode}, and not {}: {}", text(&step["from"]), text(&step["because"]));
    finding("interfaces", Grade::Note, what, step["remedy"].as_str().map(str::to_owned))
}

fn table(table: &Value) -> Option<Finding> {
    let name = text(&table["table"]);
    let (entries, of) = (table["entries"].as_u64()?, table["of"].as_u64()?);
    if table["no_room"].as_u64()? > 0 {
        let what = format!("the table {name} had no room for {} entries since the gate began", table["no_room"]);
        return Some(finding("kernel", Grade::Wrong, what, None));
    }
    (entries.saturating_mul(100) >= of.saturating_mul(NEARLY_FULL)).then(|| {
        finding("kernel", Grade::Note, format!("the table {name} holds {entries} of {of} entries at most"), None)
    })
}

fn hung(hung: &Value) -> Finding {
    let (listener, seconds) = (text(&hung["listener"]), &hung["seconds"]);
    let what = format!("the mail server at {listener} has accepted nobody for {seconds} s");
    let port = listener.rsplit_once(':').map_or("25", |(_, port)| port);
    finding("mail server", Grade::Wrong, what, Some(format!("ss -ltnp 'sport = :{port}'")))
}

fn redis(redis: &Value) -> Option<Finding> {
    let connected = redis.get("connected")?;
    let mend = "redis-cli ping".to_owned();
    Some(match (connected == true, redis["synced"] == true, redis["failing"].as_str()) {
        (_, _, Some(why)) => finding("redis", Grade::Wrong, why.to_owned(), Some(mend)),
        (false, _, None) => finding("redis", Grade::Wrong, "Redis is not connected".to_owned(), Some(mend)),
        (true, false, None) => {
            finding("redis", Grade::Note, "this host and Redis don't know the same yet".to_owned(), None)
        }
        (true, true, None) => {
            finding("redis", Grade::Fine, "Redis is connected, and knows what this host knows".to_owned(), None)
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Value {
        json!({
            "version": "1.0",
            "notices": [],
            "cache": { "loading": null, "redis": null },
            "kernel": {
                "running": true,
                "programs": ["steer"],
                "notes": [],
                "interfaces": [{ "interface": "eth0", "mode": "native", "replies": true, "steps_down": [] }],
                "tables": [{ "table": "pass", "entries": 3, "of": 10, "no_room": 0 }, { "table": "odd", "entries": 1, "of": null, "no_room": 0 }],
                "hung_mail_server_listeners": [],
            },
        })
    }

    /// What is found that is not fine once one value is another.
    fn spoilt(pointer: &str, value: Value) -> Vec<(Grade, String, Option<String>)> {
        let mut status = status();
        *status.pointer_mut(pointer).unwrap() = value;
        let bad = judge(&Ok(status)).into_iter().filter(|finding| finding.grade != Grade::Fine);
        bad.map(|finding| (finding.grade, finding.what, finding.mend)).collect()
    }

    #[test]
    fn a_gate_that_is_well_has_nothing_but_fine_findings() {
        let findings = judge(&Ok(status()));
        assert!(findings.iter().all(|finding| finding.grade == Grade::Fine), "{findings:?}");
        assert_eq!(findings.len(), 3);
        assert_eq!(judge(&Err("no such file".into()))[0].grade, Grade::Unknown);
    }

    #[test]
    fn one_thing_that_is_spoilt_is_one_finding() {
        let step =
            json!([{ "from": "native", "because": "the driver has none", "remedy": "ip link set eth0 mtu 1500" }]);
        for (pointer, value, grade, what, mend) in [
            ("/cache/loading", json!(7), Grade::Note, "about to be ready", None),
            ("/notices", json!(["odd"]), Grade::Note, "odd", None),
            ("/kernel", json!({ "running": false }), Grade::Note, "no kernel part", None),
            ("/kernel/notes", json!(["steered elsewhere"]), Grade::Note, "steered elsewhere", None),
            (
                "/kernel/interfaces/0/steps_down",
                step,
                Grade::Note,
                "not native: the driver",
                Some("ip link set eth0 mtu 1500"),
            ),
            ("/kernel/tables/0/entries", json!(9), Grade::Note, "pass holds 9 of 10", None),
            ("/kernel/tables/0/no_room", json!(2), Grade::Wrong, "no room for 2", None),
            (
                "/kernel/hung_mail_server_listeners",
                json!([{ "listener": "[::]:25", "seconds": 9 }]),
                Grade::Wrong,
                "[::]:25 has accepted nobody for 9 s",
                Some("ss -ltnp 'sport = :25'"),
            ),
            (
                "/cache/redis",
                json!({ "connected": false, "synced": false, "failing": null }),
                Grade::Wrong,
                "not connected",
                Some("redis-cli ping"),
            ),
            (
                "/cache/redis",
                json!({ "connected": true, "synced": false, "failing": null }),
                Grade::Note,
                "the same yet",
                None,
            ),
            (
                "/cache/redis",
                json!({ "connected": true, "synced": true, "failing": "full" }),
                Grade::Wrong,
                "full",
                Some("redis-cli ping"),
            ),
        ] {
            let found = spoilt(pointer, value);
            let [(grade_found, what_found, mend_found)] = found.as_slice() else { panic!("{pointer}: {found:?}") };
            assert_eq!((*grade_found, mend_found.as_deref()), (grade, mend), "{pointer}: {what_found}");
            assert!(what_found.contains(what), "{pointer}: {what_found}");
        }
    }
}
