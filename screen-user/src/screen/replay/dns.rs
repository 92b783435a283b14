//! The recordings' DNS data, as answers with their delays.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use serde_json::Value;

use crate::screen::{
    dnsbl::Sites,
    event::{DnsblAnswer, ZoneReply},
};

const TTL: u64 = 300;

pub(super) struct Dns {
    data: Value,
    asked: HashMap<(String, IpAddr), usize>,
    timeout: Duration,
}

impl Dns {
    pub(super) fn new(data: &Value, timeout: Duration) -> Self {
        Self { data: data.clone(), asked: HashMap::new(), timeout }
    }

    /// Every zone's answer about `client`, and how long it takes.
    pub(super) fn answers(&mut self, sites: &Sites, client: IpAddr) -> Vec<(Duration, DnsblAnswer)> {
        let zones = sites.zones().iter().enumerate();
        zones
            .map(|(zone, asked)| {
                let (delay, reply) = self.answer(asked.domain(), client);
                (delay, DnsblAnswer { zone, reply })
            })
            .collect()
    }

    fn answer(&mut self, zone: &str, client: IpAddr) -> (Duration, ZoneReply) {
        let zone_data = &self.data["zones"][zone];
        let mode = zone_data["mode"].as_str().unwrap_or("normal");
        let zone_delay = zone_data["delay"].as_f64().unwrap_or(0.0);
        let record = self.data["records"].as_array().unwrap().iter().find(|record| {
            record["zone"] == zone && record["client"].as_str().unwrap().parse::<IpAddr>().unwrap() == client
        });
        let mut answer = record.cloned().unwrap_or(Value::Null);
        if let Some(sequence) = answer["sequence"].as_array().cloned() {
            let count = self.asked.entry((zone.to_owned(), client)).or_default();
            answer = sequence[(*count).min(sequence.len() - 1)].clone();
            *count += 1;
        }
        let delay = Duration::from_secs_f64(answer["delay"].as_f64().unwrap_or(zone_delay) + 0.001);
        if mode == "no-reply" || delay > self.timeout {
            return (self.timeout, ZoneReply::Failed);
        }
        if mode == "servfail" {
            return (delay, ZoneReply::Failed);
        }
        if let Some(codes) = answer["a"].as_array().filter(|codes| !codes.is_empty()) {
            let codes = codes.iter().map(|code| code.as_str().unwrap().parse().unwrap()).collect();
            let ttl = Some(Duration::from_secs(answer["ttl"].as_u64().unwrap_or(TTL)));
            return (delay, ZoneReply::Listed { codes, ttl });
        }
        let no_soa = answer["no_soa"].as_bool().or(zone_data["no_soa"].as_bool()).unwrap_or(false);
        let ttl = answer["negative_ttl"].as_u64().or(zone_data["negative_ttl"].as_u64()).unwrap_or(TTL);
        (delay, ZoneReply::NotListed { ttl: (!no_soa).then(|| Duration::from_secs(ttl)) })
    }
}
