//! Whether the DNSBL zones answer this host, and mean what they say (RFC 5782 section 5).

use std::net::Ipv4Addr;

use super::finding::{Finding, Grade};
use crate::{
    config::Config,
    dns::{self, Failure, Health, ZoneName},
};

/// How zones that are asked answer, or why none can be.
pub(super) type Checkup = Result<Vec<(ZoneName, Health)>, String>;

/// Asks all zones of the configuration for their test points.
pub(super) fn read(config: &Config) -> Checkup {
    let zones: Vec<ZoneName> = config.policy.dnsbl.sites.zones().iter().map(ZoneName::from).collect();
    if zones.is_empty() {
        return Ok(Vec::new());
    }
    super::wait(dns::checkup(zones, &config.resolver))?.map_err(|error| error.to_string())
}

pub(super) fn judge(checkup: &Checkup) -> Vec<Finding> {
    match checkup {
        Ok(zones) => zones.iter().map(|(zone, health)| one(zone.shown(), *health)).collect(),
        Err(why) => vec![finding(Grade::Unknown, format!("zones can't be asked: {why}"), None)],
    }
}

const fn finding(grade: Grade, what: String, mend: Option<String>) -> Finding {
    Finding { subject: "zones", grade, what, mend }
}

fn one(zone: &str, health: Health) -> Finding {
    match health {
        Health::Sound(took) => {
            let millis = took.as_millis();
            finding(
                Grade::Fine,
                format!("{zone} lists its test point, and not everybody; it answered in {millis} ms"),
                None,
            )
        }
        Health::NoTestPoint => {
            let what = format!("{zone} does not list 127.0.0.2: it has no test points, or lists nobody any more");
            finding(Grade::Note, what, None)
        }
        Health::ListsEverybody => {
            let what = format!(
                "{zone} lists 127.0.0.1, which no list may: it lists everybody, or somebody else answers for it"
            );
            finding(Grade::Wrong, what, Some(take_out(zone)))
        }
        Health::Failed(Failure::ErrorCode(code)) => refused(zone, code),
        Health::Failed(failure) => {
            finding(Grade::Wrong, format!("{zone} does not answer: {failure}"), Some(format!("dig +tcp soa {zone}")))
        }
    }
}

/// A code that is a message of the zone's operator, or of whoever answers in its place.
fn refused(zone: &str, code: Ipv4Addr) -> Finding {
    let (why, mend) = match code.octets() {
        [127, 255, 255, 252] => ("there is no zone of this name", take_out(zone)),
        [127, 255, 255, 254] => {
            ("it is asked through a public resolver, or one without a name", super::resolver::own())
        }
        [127, 255, 255, 255] => ("it was asked too often", super::resolver::own()),
        [127, ..] => ("it does not serve this host", take_out(zone)),
        _ => (
            "that is no listing: the resolver makes up answers, or the domain has another owner",
            super::resolver::own(),
        ),
    };
    finding(Grade::Wrong, format!("{zone} answers with {code}: {why}"), Some(mend))
}

/// The line that asks it no more.
fn take_out(zone: &str) -> String {
    format!("in the configuration, without {zone}: dnsbl.sites")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_answer_has_its_meaning() {
        let code = |code: [u8; 4]| Health::Failed(Failure::ErrorCode(code.into()));
        for (health, grade, what) in [
            (Health::Sound(Duration::from_millis(7)), Grade::Fine, "in 7 ms"),
            (Health::NoTestPoint, Grade::Note, "127.0.0.2"),
            (Health::ListsEverybody, Grade::Wrong, "everybody"),
            (Health::Failed(Failure::ServerFailure), Grade::Wrong, "server failure"),
            (code([127, 255, 255, 252]), Grade::Wrong, "of this name"),
            (code([127, 255, 255, 254]), Grade::Wrong, "public resolver"),
            (code([127, 255, 255, 255]), Grade::Wrong, "too often"),
            (code([127, 0, 1, 255]), Grade::Wrong, "serve this host"),
            (code([192, 0, 2, 1]), Grade::Wrong, "makes up answers"),
        ] {
            let [found] = judge(&Ok(vec![(ZoneName::new("key.bl.example", "bl.example"), health)])).try_into().unwrap();
            assert_eq!(found.grade, grade, "{found:?}");
            assert!(found.what.contains(what) && found.what.starts_with("bl.example "), "{found:?}");
            assert_eq!(found.mend.is_some(), grade == Grade::Wrong, "{found:?}");
        }
    }

    #[test]
    fn what_can_not_be_asked_is_not_guessed() {
        assert_eq!(judge(&Err("no resolver".into()))[0].grade, Grade::Unknown);
        assert!(judge(&Ok(Vec::new())).is_empty());
    }
}
