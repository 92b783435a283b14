//! What the protocol core decides by.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};

use ipnet::IpNet;
use regex::bytes::{Regex, RegexBuilder};

use crate::{
    access::cidr::parse_network,
    config::{
        ClientPrefix, LogStyle,
        document::{Located, Value},
        values::{Fault, Values, mismatch, unknown_word},
    },
    screen::{
        dnsbl::Sites,
        policy::{
            DeepTest, Dnsbl, EHLO_KEYWORDS, ForbiddenCommands, Limits, Policy, PoolCredit, Pregreet, Smtp, StressTime,
            TlsLevel,
        },
    },
};

use super::{INSTANT, SECOND, lists};

/// The shortest line limit: `STARTTLS` and its end must fit, with some room.
const LEAST_LINE: usize = 12;
/// The longest line limit; a line is held in memory while it comes in.
const MOST_LINE: usize = 65_536;
/// Most characters of a text in a greeting: with code and end a reply line may have 512 (RFC 5321 section 4.5.3.1.5).
const BANNER_LENGTH: usize = 500;

/// The settings of the protocol core; `remember`: whether results are remembered at all.
pub(super) fn policy(values: &mut Values<'_>, hostname: &str, remember: bool) -> Policy {
    let levels = [("none", TlsLevel::None), ("may", TlsLevel::May), ("encrypt", TlsLevel::Encrypt)];
    let styles = [("respectful", LogStyle::Respectful), ("classic", LogStyle::Classic)];
    let client_prefix = ClientPrefix {
        ipv4: values.number("limits.client_prefix.ipv4", 0..=32),
        ipv6: values.number("limits.client_prefix.ipv6", 0..=128),
    };
    Policy {
        banner: banner(values, "smtp.banner", hostname, false),
        denylist_action: values.action("access.denylist_action"),
        allowlist_addresses: lists::addresses(values, "access.allowlist_addresses"),
        pregreet: Pregreet {
            teaser: banner(values, "pregreet.banner", hostname, true),
            wait: stress_time(values, "pregreet.wait", "pregreet.stress_wait"),
            action: values.action("pregreet.action"),
            ttl: values.duration("pregreet.ttl", SECOND),
        },
        dnsbl: dnsbl(values),
        pipelining: deep_test(values, "pipelining.enable", "pipelining.action", "pipelining.ttl"),
        non_smtp_command: deep_test(
            values,
            "non_smtp_command.enable",
            "non_smtp_command.action",
            "non_smtp_command.ttl",
        ),
        forbidden: forbidden(values),
        bare_newline: deep_test(values, "bare_newline.enable", "bare_newline.action", "bare_newline.ttl"),
        smtp: smtp(values, hostname),
        tls: values.word("tls.level", &levels, TlsLevel::None),
        limits: Limits {
            client_connections: values.number("limits.client_connections", 0..=u32::MAX),
            pre_queue: queue(values, "limits.pre_queue", 10),
            post_queue: queue(values, "limits.post_queue", 5),
            client_prefix,
        },
        replays: values.word("forward.after_deep_tests", &[("continue", true), ("reconnect", false)], true),
        dry_run: values.boolean("dry_run"),
        log_style: values.word("log.style", &styles, LogStyle::Respectful),
        remember_failures: values.duration("kernel.remember_failures", Duration::ZERO),
        retention: values.duration("cache.retention", SECOND),
        remember_results: remember,
        pool_credit: PoolCredit {
            ipv4: pool_credit(values, "ipv4", 16..=32, client_prefix.ipv4),
            ipv6: pool_credit(values, "ipv6", 32..=128, client_prefix.ipv6),
        },
        hostname: hostname.to_owned(),
    }
}

/// Where the key is not given there is no credit in its family. A pool is no narrower than a client.
fn pool_credit(values: &mut Values<'_>, family: &str, lengths: RangeInclusive<u8>, client: u8) -> Option<u8> {
    let key = format!("cache.pool_credit.{family}");
    if !values.is_given(&key) {
        return None;
    }
    let length = values.number(&key, lengths);
    if length > client {
        values.fault(&key, Fault::new(format!("must not be longer than limits.client_prefix.{family}, {client}")));
    }
    Some(length)
}

fn stress_time(values: &mut Values<'_>, normal: &str, stress: &str) -> StressTime {
    StressTime { normal: values.duration(normal, INSTANT), stress: values.duration(stress, INSTANT) }
}

fn deep_test(values: &mut Values<'_>, enable: &str, action: &str, ttl: &str) -> DeepTest {
    DeepTest { enabled: values.boolean(enable), action: values.action(action), ttl: values.duration(ttl, SECOND) }
}

/// Zero, or at least `least`.
fn queue(values: &mut Values<'_>, key: &str, least: u32) -> u32 {
    let limit = values.number(key, 0..=u32::MAX);
    if (1..least).contains(&limit) {
        values.fault(key, Fault::new(format!("{limit} is out of range: 0 (no limit), or at least {least}")));
    }
    limit
}

/// A text with `$hostname` or `${hostname}` replaced, and `$$` for a dollar sign.
fn expand(text: &str, hostname: &str) -> Result<String, Fault> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once('$') {
        out.push_str(head);
        let known = [("$", "$"), ("{hostname}", hostname), ("hostname", hostname)];
        let found = known.into_iter().find_map(|(name, value)| tail.strip_prefix(name).map(|after| (value, after)));
        let goes_on = |after: &str| after.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_');
        match found {
            Some((value, after)) if !(tail.starts_with("hostname") && goes_on(after)) => {
                out.push_str(value);
                rest = after;
            }
            _ => {
                return Err(Fault::new(format!("unknown name after \"$\" in {text:?}"))
                    .hint("only $hostname is known; a dollar sign is written \"$$\""));
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn banner(values: &mut Values<'_>, key: &str, hostname: &str, may_be_empty: bool) -> String {
    values
        .read(key, |value| {
            let Value::Text(text) = value else { return Err(mismatch("a text", value)) };
            let text = expand(text, hostname)?;
            if text.is_empty() && !may_be_empty {
                return Err(Fault::new("must not be empty"));
            }
            if text.chars().any(char::is_control) {
                return Err(Fault::new("must be one line without control characters"));
            }
            if text.len() > BANNER_LENGTH {
                return Err(Fault::new(format!("is too long: at most {BANNER_LENGTH} bytes")));
            }
            Ok(text)
        })
        .unwrap_or_default()
}

fn dnsbl(values: &mut Values<'_>) -> Dnsbl {
    let sites = sites(values);
    let dnsbl = Dnsbl {
        sites: Arc::new(sites),
        threshold: values.number("dnsbl.threshold", 1..=i32::MAX),
        allowlist_threshold: values.number("dnsbl.allowlist_threshold", i32::MIN..=i32::MAX),
        action: values.action("dnsbl.action"),
        min_ttl: values.duration("dnsbl.min_ttl", SECOND),
        max_ttl: values.duration("dnsbl.max_ttl", SECOND),
    };
    if dnsbl.min_ttl > dnsbl.max_ttl {
        let place = values.place(if values.is_given("dnsbl.min_ttl") { "dnsbl.min_ttl" } else { "dnsbl.max_ttl" });
        values.warnings.push(crate::config::Problem {
            place,
            message: "dnsbl.min_ttl is longer than dnsbl.max_ttl: the latter wins".to_owned(),
            suggestion: None,
        });
    }
    dnsbl
}

fn sites(values: &mut Values<'_>) -> Sites {
    let mut reply_map = BTreeMap::new();
    for (zone, Located { value, place }) in values.table("dnsbl.reply_map") {
        match value {
            Value::Text(shown) if shown.chars().all(|letter| letter.is_ascii_graphic()) && !shown.is_empty() => {
                reply_map.insert(zone, shown);
            }
            Value::Text(_) => {
                values.fault_at(place, "dnsbl.reply_map", Fault::new("the name shown must be one printable word"));
            }
            other => values.fault_at(place, "dnsbl.reply_map", mismatch("a table of texts", &other)),
        }
    }
    let texts = values.located_texts("dnsbl.sites");
    let mut entries = Vec::new();
    for (text, place) in texts {
        // Postfix separates sites by commas and white space; a list copied from there works as it is.
        for site in text.split([',', ' ', '\t', '\r', '\n']).filter(|site| !site.is_empty()) {
            match Sites::parse(&[site.to_owned()], &reply_map) {
                Ok(_) => entries.push(site.to_owned()),
                Err(error) => values.fault_at(place.clone(), "dnsbl.sites", Fault::new(error.to_string())),
            }
        }
    }
    Sites::parse(&entries, &reply_map).unwrap_or_else(|error| {
        values.fault("dnsbl.sites", Fault::new(error.to_string()));
        Sites::default()
    })
}

/// A pattern written `/regex/` or `/regex/i`; patterns match without regard to case, as SMTP's words do, with or without the `i`.
fn pattern(text: &str) -> Result<Regex, Fault> {
    let inner = text.strip_prefix('/').and_then(|rest| rest.rsplit_once('/'));
    let source = match inner {
        Some((source, "" | "i")) => source,
        Some((_, flags)) => {
            return Err(Fault::new(format!("unknown flags {flags:?} after the pattern; only \"i\" is known")));
        }
        None => text,
    };
    RegexBuilder::new(source).unicode(false).case_insensitive(true).build().map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Fault::new(format!("bad pattern {text:?}: {reason}"))
    })
}

fn forbidden(values: &mut Values<'_>) -> ForbiddenCommands {
    let mut commands = ForbiddenCommands::default();
    for (entry, place) in values.located_texts("non_smtp_command.forbidden") {
        if entry.starts_with('/') {
            match pattern(&entry) {
                Ok(pattern) => commands.patterns.push(pattern),
                Err(fault) => values.fault_at(place, "non_smtp_command.forbidden", fault),
            }
        } else if entry.is_empty() || entry.contains(|letter: char| letter.is_whitespace() || letter == ',') {
            values.fault_at(place, "non_smtp_command.forbidden", Fault::new(format!("{entry:?} is not one word")));
        } else {
            commands.words.push(entry);
        }
    }
    commands
}

fn smtp(values: &mut Values<'_>, hostname: &str) -> Smtp {
    Smtp {
        helo_required: values.boolean("smtp.helo_required"),
        disable_vrfy: values.boolean("smtp.disable_vrfy"),
        discard_ehlo_keywords: values.list("smtp.discard_ehlo_keywords", keyword),
        discard_ehlo_keywords_by_client: keywords_by_client(values),
        message_size_limit: values.number("smtp.message_size_limit", 0..=i64::MAX as u64),
        smtputf8: values.boolean("smtp.smtputf8"),
        command_count_limit: values.number("smtp.command_count_limit", 1..=u32::MAX),
        command_time_limit: stress_time(values, "smtp.command_time_limit", "smtp.stress_command_time_limit"),
        line_length_limit: values.number("smtp.line_length_limit", LEAST_LINE as u32..=MOST_LINE as u32) as usize,
        reject_footer: footer(values, hostname),
        soft_bounce: values.boolean("smtp.soft_bounce"),
        command_rewrite: values.list("smtp.command_rewrite", rewrite),
        session_time_limit: values.duration("smtp.session_time_limit", SECOND),
        session_byte_limit: values.number("smtp.session_byte_limit", 1024..=i64::MAX as u64),
    }
}

fn keyword(value: &Value) -> Result<String, Fault> {
    let Value::Text(word) = value else { return Err(mismatch("a list of EHLO keywords", value)) };
    let upper = word.to_ascii_uppercase();
    if EHLO_KEYWORDS.contains(&upper.as_str()) {
        Ok(upper)
    } else {
        Err(unknown_word(&upper, EHLO_KEYWORDS.into_iter()))
    }
}

fn keywords_by_client(values: &mut Values<'_>) -> Vec<(IpNet, Vec<String>)> {
    let key = "smtp.discard_ehlo_keywords_by_client";
    let mut out = Vec::new();
    for (network, located) in values.table(key) {
        let mut note = |fault| values.fault_at(located.place.clone(), key, fault);
        let network = parse_network(&network).map_err(|message| note(Fault::new(message))).ok();
        let Value::List(items) = &located.value else {
            note(mismatch("a table of lists", &located.value));
            continue;
        };
        let words = items.iter().filter_map(|item| keyword(&item.value).map_err(&mut note).ok()).collect();
        out.extend(network.map(|network| (network, words)));
    }
    out
}

/// The footer's own names stay for the reply; `$hostname` is accepted for `$server_name`.
fn footer(values: &mut Values<'_>, hostname: &str) -> String {
    values
        .read("smtp.reject_footer", |value| match value {
            Value::Text(text) if text.chars().any(char::is_control) => Err(Fault::new("holds control characters")
                .hint("lines are separated by a backslash and an n; write the text in single quotes")),
            Value::Text(text) => Ok(text.replace("${hostname}", hostname).replace("$hostname", hostname)),
            _ => Err(mismatch("a text", value)),
        })
        .unwrap_or_default()
}

fn rewrite(value: &Value) -> Result<(Regex, String), Fault> {
    let wanted = "a list of pairs such as [\"^helo$\", \"HELO unknown\"]";
    let Value::List(pair) = value else { return Err(mismatch(wanted, value)) };
    match pair.as_slice() {
        [Located { value: Value::Text(from), .. }, Located { value: Value::Text(to), .. }] => {
            if to.chars().any(char::is_control) {
                return Err(Fault::new("a replacement holds no control characters"));
            }
            Ok((pattern(from)?, to.clone()))
        }
        _ => Err(Fault::new(format!("must be {wanted}"))),
    }
}
