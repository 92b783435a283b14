//! The recordings' own configuration language, as a policy.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ipnet::IpNet;
use regex::bytes::RegexBuilder;
use serde_json::Value;

use crate::{
    config::{AddressList, ClientPrefix, LogStyle},
    screen::{
        dnsbl::Sites,
        policy::{
            Action, DeepTest, Dnsbl, ForbiddenCommands, Limits, Policy, PoolCredit, Pregreet, Smtp, StressTime,
            TlsLevel,
        },
    },
};

/// The addresses of the server under test.
pub(super) const MX: &str = "198.19.0.2";
pub(super) const MX6: &str = "2001:db8:19::2";
pub(super) const ALT: &str = "198.19.0.3";

fn duration(value: &Value) -> Duration {
    if let Some(seconds) = value.as_u64() {
        return Duration::from_secs(seconds);
    }
    let text = value.as_str().unwrap();
    let (number, unit) = text.split_at(text.len() - 1);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        unit => panic!("unit {unit}"),
    };
    Duration::from_secs(number.parse::<u64>().unwrap() * seconds)
}

fn stress_time(value: &Value) -> StressTime {
    StressTime { normal: duration(&value["normal"]), stress: duration(&value["stress"]) }
}

fn action(value: &Value) -> Action {
    match value.as_str().unwrap() {
        "ignore" => Action::Ignore,
        "enforce" => Action::Enforce,
        "drop" => Action::Drop,
        word => panic!("action {word}"),
    }
}

fn deep(value: &Value) -> DeepTest {
    DeepTest {
        enabled: value["enabled"].as_bool().unwrap(),
        action: action(&value["action"]),
        ttl: duration(&value["ttl"]),
    }
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_uppercase()).collect()
}

/// `/pattern/` or `/pattern/i`.
fn pattern(text: &str) -> Option<regex::bytes::Regex> {
    let (pattern, flags) = text.strip_prefix('/')?.rsplit_once('/')?;
    assert!(["", "i"].contains(&flags));
    // Postfix's tables are not sensitive to case.
    Some(RegexBuilder::new(pattern).unicode(false).case_insensitive(true).build().unwrap())
}

fn sites(config: &Value) -> Sites {
    let entries: Vec<String> = config["dnsbl_sites"]
        .as_array()
        .unwrap()
        .iter()
        .map(|site| {
            let mut entry = site["domain"].as_str().unwrap().to_owned();
            if let Some(filter) = site["filter"].as_str() {
                entry.push_str(&format!("={filter}"));
            }
            if let Some(weight) = site["weight"].as_i64() {
                entry.push_str(&format!("*{weight}"));
            }
            entry
        })
        .collect();
    let names: BTreeMap<String, String> = config["dnsbl_public_names"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(zone, name)| (zone.clone(), name.as_str().unwrap().into()))
        .collect();
    Sites::parse(&entries, &names).unwrap()
}

pub(super) fn policy(config: &Value) -> Policy {
    let all: Vec<(bool, IpNet)> = vec![(true, "0.0.0.0/0".parse().unwrap()), (true, "::/0".parse().unwrap())];
    let mut addresses = all;
    if config["allowlist_interfaces"] == "all-but-alt" {
        addresses.insert(0, (false, format!("{ALT}/32").parse().unwrap()));
    }
    let number = |key: &str| config[key].as_u64().unwrap();
    let text = |key: &str| config[key].as_str().unwrap().to_owned();
    let forbidden =
        config["non_smtp_command"]["commands"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    Policy {
        hostname: text("hostname"),
        banner: text("banner"),
        denylist_action: action(&config["denylist_action"]),
        allowlist_addresses: AddressList::new(addresses),
        pregreet: Pregreet {
            teaser: text("greet_teaser"),
            wait: stress_time(&config["greet_wait"]),
            action: action(&config["greet_action"]),
            ttl: duration(&config["greet_ttl"]),
        },
        dnsbl: Dnsbl {
            sites: Arc::new(sites(config)),
            threshold: i32::try_from(config["dnsbl_threshold"].as_i64().unwrap()).unwrap(),
            allowlist_threshold: i32::try_from(config["dnsbl_allowlist_threshold"].as_i64().unwrap()).unwrap(),
            action: action(&config["dnsbl_action"]),
            min_ttl: duration(&config["dnsbl_min_ttl"]),
            max_ttl: duration(&config["dnsbl_max_ttl"]),
        },
        pipelining: deep(&config["pipelining"]),
        non_smtp_command: deep(&config["non_smtp_command"]),
        forbidden: ForbiddenCommands {
            words: forbidden.clone().filter(|word| !word.starts_with('/')).map(str::to_owned).collect(),
            patterns: forbidden.filter_map(pattern).collect(),
        },
        bare_newline: deep(&config["bare_newline"]),
        smtp: Smtp {
            helo_required: config["helo_required"].as_bool().unwrap(),
            disable_vrfy: config["disable_vrfy"].as_bool().unwrap(),
            discard_ehlo_keywords: words(&config["ehlo_discard"]),
            discard_ehlo_keywords_by_client: config["ehlo_discard_by_client"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(net, keywords)| (net.parse().unwrap(), words(keywords)))
                .collect(),
            message_size_limit: number("message_size_limit"),
            smtputf8: config["smtputf8"].as_bool().unwrap(),
            command_count_limit: u32::try_from(number("command_count_limit")).unwrap(),
            command_time_limit: stress_time(&config["command_time_limit"]),
            line_length_limit: usize::try_from(number("line_length_limit")).unwrap(),
            reject_footer: text("reject_footer"),
            soft_bounce: config["soft_bounce"].as_bool().unwrap(),
            command_rewrite: config["command_rewrite"]
                .as_array()
                .unwrap()
                .iter()
                .map(|rule| (pattern(rule[0].as_str().unwrap()).unwrap(), rule[1].as_str().unwrap().to_owned()))
                .collect(),
            session_time_limit: Duration::from_secs(1800),
            session_byte_limit: 1_000_000,
        },
        tls: match config["tls"].as_str().unwrap() {
            "none" => TlsLevel::None,
            "may" => TlsLevel::May,
            "encrypt" => TlsLevel::Encrypt,
            level => panic!("tls {level}"),
        },
        limits: Limits {
            client_connections: u32::try_from(number("client_connection_limit")).unwrap(),
            pre_queue: u32::try_from(number("pre_queue_limit")).unwrap(),
            post_queue: u32::try_from(number("post_queue_limit")).unwrap(),
            client_prefix: ClientPrefix { ipv4: 32, ipv6: 128 },
        },
        dry_run: false,
        log_style: LogStyle::Respectful,
        remember_failures: Duration::ZERO,
        retention: Duration::from_secs(7 * 86400),
        replays: false,
        remember_results: config["cache"].as_bool().unwrap(),
        pool_credit: PoolCredit::default(),
    }
}
