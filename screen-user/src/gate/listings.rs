//! Which DNSBL zones list a client, from what they said when they were asked last: nobody is asked for it.

use serde_json::{Value, json};

use super::Gate;
use crate::{
    dns::Said,
    screen::{
        dnsbl::{Tally, judge},
        event::ZoneReply,
        policy::Dnsbl,
        record::Client,
    },
};

impl Gate {
    /// What is known of the zones' answers about `client`; null if it was not looked up since the zones are asked, or too long ago.
    pub(super) fn listings(&self, client: Client, now: u64) -> Value {
        let said = self.dnsbl.load().as_ref().and_then(|dnsbl| dnsbl.said(client.net()));
        said.map_or(Value::Null, |said| listings(&said, &self.config.load().policy.dnsbl, now))
    }
}

/// What `said` means at `now`, in Unix seconds, by this policy. Zones have their shown names.
fn listings(said: &Said, policy: &Dnsbl, now: u64) -> Value {
    let tally = Tally::of(&policy.sites, &said.answers);
    let judgement = judge(&tally, policy);
    let mut listed_by = Vec::new();
    let zones = policy.sites.zones().iter().enumerate().map(|(index, zone)| {
        let reply = said.answers.iter().find(|answer| answer.zone == index).map(|answer| &answer.reply);
        let (answer, codes, ttl) = match reply {
            None => ("awaited", None, None),
            Some(ZoneReply::Failed) => ("failed", None, None),
            Some(ZoneReply::NotListed { ttl }) => ("not-listed", None, *ttl),
            Some(ZoneReply::Listed { codes, ttl }) => ("listed", Some(codes), *ttl),
        };
        let until = ttl.map(|ttl| said.asked.saturating_add(ttl.as_secs()));
        if codes.is_some() && until.is_none_or(|until| now <= until) {
            listed_by.push(zone.shown());
        }
        let hit = tally.hits().iter().find(|hit| hit.zone == index);
        json!({
            "zone": zone.shown(),
            "answer": answer,
            "codes": codes,
            "score": hit.map(|hit| hit.weight),
            "until": until,
        })
    });
    let zones: Vec<Value> = zones.collect();
    json!({
        "client": said.client,
        "asked": said.asked,
        "listed_by": listed_by,
        "score": judgement.score,
        "threshold": policy.threshold,
        "blocked": judgement.blocked,
        "zones": zones,
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path, time::Duration};

    use super::*;
    use crate::{
        config,
        screen::{dnsbl::Sites, event::DnsblAnswer},
    };

    fn policy() -> Dnsbl {
        let text = r#"
            hostname = "mx.example.test"
            layout = "front"
            forward.to = ["127.0.0.1:10025"]
            kernel.mode = "off"
            cache.backend = "memory"
            dnsbl.threshold = 3
        "#;
        let mut policy = config::load_text(text, Path::new("test.toml"), &[]).unwrap().config.policy.dnsbl;
        let names = BTreeMap::from([("k3y.paid.test".to_owned(), "paid.test".to_owned())]);
        let sites = ["k3y.paid.test*2", "light.test=127.0.0.4*1", "good.test*-1", "dead.test", "slow.test"];
        policy.sites = Sites::parse(&sites, &names).unwrap().into();
        policy
    }

    fn listed(zone: usize, code: &str, ttl: u64) -> DnsblAnswer {
        let (codes, ttl) = (vec![code.parse().unwrap()], Some(Duration::from_secs(ttl)));
        DnsblAnswer { zone, reply: ZoneReply::Listed { codes, ttl } }
    }

    #[test]
    fn each_zone_has_what_it_said_and_until_when_by_the_name_that_may_be_shown() {
        let answers = vec![
            DnsblAnswer { zone: 2, reply: ZoneReply::NotListed { ttl: Some(Duration::from_secs(60)) } },
            listed(1, "127.0.0.9", 600),
            DnsblAnswer { zone: 3, reply: ZoneReply::Failed },
            listed(0, "127.0.0.2", 300),
        ];
        let said = Said { client: "192.0.2.9".parse().unwrap(), asked: 1000, answers };
        let known = listings(&said, &policy(), 1300);
        let expected = json!({
            "client": "192.0.2.9", "asked": 1000, "listed_by": ["paid.test", "light.test"],
            "score": 2, "threshold": 3, "blocked": false,
            "zones": [
                { "zone": "paid.test", "answer": "listed", "codes": ["127.0.0.2"], "score": 2, "until": 1300 },
                { "zone": "light.test", "answer": "listed", "codes": ["127.0.0.9"], "score": 0, "until": 1600 },
                { "zone": "good.test", "answer": "not-listed", "codes": null, "score": null, "until": 1060 },
                { "zone": "dead.test", "answer": "failed", "codes": null, "score": null, "until": null },
                { "zone": "slow.test", "answer": "awaited", "codes": null, "score": null, "until": null },
            ],
        });
        assert_eq!(known, expected);
        assert_eq!(listings(&said, &policy(), 1301)["listed_by"], json!(["light.test"]), "a listing ends with its TTL");
    }

    #[test]
    fn the_score_is_that_of_the_settings_in_force() {
        let said = Said {
            client: "2001:db8::1".parse().unwrap(),
            asked: 1000,
            answers: vec![listed(0, "127.0.0.2", 300), listed(1, "127.0.0.4", 300)],
        };
        let known = listings(&said, &policy(), 1000);
        assert_eq!((&known["score"], &known["blocked"]), (&json!(3), &json!(true)));
        let known = listings(&said, &Dnsbl { threshold: 4, ..policy() }, 1000);
        assert_eq!((&known["score"], &known["blocked"]), (&json!(3), &json!(false)));
    }
}
