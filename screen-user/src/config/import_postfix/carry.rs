//! Which parameter becomes which key.

mod maps;

use super::{
    Entry,
    main_cf::{HOSTNAME, MainCf, words},
};
use crate::{access::address_list, config::Host};

/// What a value is, in Postfix.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// Passed on as it is.
    Text,
    Host,
    Banner,
    Boolean,
    Number,
    /// A time; the unit that counts where none is given.
    Time(char),
    Action,
    Words,
    Upper,
    Networks,
}

/// Parameters that become one key.
const SIMPLE: &[(&str, &str, Form)] = &[
    ("myhostname", "hostname", Form::Host),
    ("mynetworks", "access.mynetworks", Form::Networks),
    ("postscreen_denylist_action", "access.denylist_action", Form::Action),
    ("postscreen_allowlist_interfaces", "access.allowlist_addresses", Form::Networks),
    ("postscreen_greet_wait", "pregreet.wait", Form::Time('s')),
    ("postscreen_greet_banner", "pregreet.banner", Form::Banner),
    ("postscreen_greet_action", "pregreet.action", Form::Action),
    ("postscreen_greet_ttl", "pregreet.ttl", Form::Time('d')),
    ("postscreen_dnsbl_sites", "dnsbl.sites", Form::Words),
    ("postscreen_dnsbl_threshold", "dnsbl.threshold", Form::Number),
    ("postscreen_dnsbl_allowlist_threshold", "dnsbl.allowlist_threshold", Form::Number),
    ("postscreen_dnsbl_action", "dnsbl.action", Form::Action),
    ("postscreen_dnsbl_timeout", "dnsbl.timeout", Form::Time('s')),
    ("postscreen_dnsbl_min_ttl", "dnsbl.min_ttl", Form::Time('s')),
    ("postscreen_dnsbl_max_ttl", "dnsbl.max_ttl", Form::Time('h')),
    ("postscreen_pipelining_enable", "pipelining.enable", Form::Boolean),
    ("postscreen_pipelining_action", "pipelining.action", Form::Action),
    ("postscreen_pipelining_ttl", "pipelining.ttl", Form::Time('d')),
    ("postscreen_non_smtp_command_enable", "non_smtp_command.enable", Form::Boolean),
    ("postscreen_non_smtp_command_action", "non_smtp_command.action", Form::Action),
    ("postscreen_non_smtp_command_ttl", "non_smtp_command.ttl", Form::Time('d')),
    ("postscreen_bare_newline_enable", "bare_newline.enable", Form::Boolean),
    ("postscreen_bare_newline_action", "bare_newline.action", Form::Action),
    ("postscreen_bare_newline_ttl", "bare_newline.ttl", Form::Time('d')),
    ("smtpd_banner", "smtp.banner", Form::Banner),
    ("postscreen_helo_required", "smtp.helo_required", Form::Boolean),
    ("postscreen_disable_vrfy_command", "smtp.disable_vrfy", Form::Boolean),
    ("postscreen_discard_ehlo_keywords", "smtp.discard_ehlo_keywords", Form::Upper),
    ("message_size_limit", "smtp.message_size_limit", Form::Number),
    ("smtputf8_enable", "smtp.smtputf8", Form::Boolean),
    ("postscreen_command_count_limit", "smtp.command_count_limit", Form::Number),
    ("postscreen_command_time_limit", "smtp.command_time_limit", Form::Time('s')),
    ("line_length_limit", "smtp.line_length_limit", Form::Number),
    ("soft_bounce", "smtp.soft_bounce", Form::Boolean),
    ("postscreen_client_connection_count_limit", "limits.client_connections", Form::Number),
    ("postscreen_pre_queue_limit", "limits.pre_queue", Form::Number),
    ("postscreen_post_queue_limit", "limits.post_queue", Form::Number),
    ("postscreen_upstream_proxy_timeout", "proxy_protocol.timeout", Form::Time('s')),
    ("postscreen_cache_retention_time", "cache.retention", Form::Time('d')),
    ("postscreen_tls_cert_file", "tls.certificate", Form::Text),
    ("postscreen_tls_key_file", "tls.key", Form::Text),
];

/// Times with another value under stress.
const STRESSED: [(&str, &str); 2] = [
    ("postscreen_greet_wait", "pregreet.stress_wait"),
    ("postscreen_command_time_limit", "smtp.stress_command_time_limit"),
];

/// An import on its way.
struct Carrier<'a> {
    from: &'a MainCf,
    entries: Vec<Entry>,
    warnings: &'a mut Vec<String>,
}

/// What the parameters say, as keys.
pub(super) fn carry(from: &MainCf, warnings: &mut Vec<String>) -> Vec<Entry> {
    let mut carrier = Carrier { from, entries: Vec::new(), warnings };
    for (name, key, form) in SIMPLE {
        if let Some(text) = carrier.value(name, false) {
            carrier.simple(name, key, *form, &text);
        }
    }
    for (name, key) in STRESSED {
        if let Some(text) = carrier.value(name, true) {
            carrier.simple(name, key, Form::Time('s'), &text);
        }
    }
    carrier.access_list();
    carrier.reply_map();
    carrier.forbidden();
    carrier.keywords_by_client();
    carrier.command_filter();
    carrier.footer();
    carrier.tls();
    carrier.others();
    carrier.entries
}

impl Carrier<'_> {
    fn value(&mut self, name: &str, stress: bool) -> Option<String> {
        match self.from.value(name, stress, false)? {
            Ok(text) => Some(text.trim().to_owned()),
            Err(problem) => {
                self.warn(name, &problem);
                None
            }
        }
    }

    fn warn(&mut self, name: &str, problem: &str) {
        self.warnings.push(format!("{name}: {problem}"));
    }

    fn put(&mut self, key: &'static str, value: String) {
        self.entries.push(Entry { key, value });
    }

    fn simple(&mut self, name: &str, key: &'static str, form: Form, text: &str) {
        let plain = text.replace(HOSTNAME, "");
        let value = match form {
            Form::Text if text.is_empty() || text.eq_ignore_ascii_case("none") => return,
            Form::Text => Ok(quoted(&plain)),
            Form::Host => Ok(quoted(&plain)),
            Form::Banner if text.is_empty() && key == "smtp.banner" => return,
            Form::Banner => Ok(quoted(&text.replace('$', "$$").replace(HOSTNAME, "$hostname"))),
            Form::Boolean => match text.to_ascii_lowercase().as_str() {
                "yes" => Ok("true".to_owned()),
                "no" => Ok("false".to_owned()),
                _ => Err(format!("{text:?} is neither yes nor no")),
            },
            Form::Number => {
                text.parse::<i64>().map(|number| number.to_string()).map_err(|_| format!("{text:?} is no number"))
            }
            Form::Time(unit) => time(text, unit).ok_or_else(|| format!("{text:?} is no time")),
            Form::Action => Ok(quoted(if text.eq_ignore_ascii_case("continue") { "ignore" } else { &plain })),
            Form::Words => Ok(list(words(text).iter().map(|word| quoted(word)))),
            Form::Upper => Ok(list(words(text).iter().map(|word| quoted(&word.to_ascii_uppercase())))),
            Form::Networks => Ok(self.networks(name, text)),
        };
        match value {
            Ok(value) => self.put(key, value),
            Err(problem) => self.warn(name, &problem),
        }
    }

    /// Elements that can't be read are left out one by one.
    fn networks(&mut self, name: &str, text: &str) -> String {
        let mut kept = Vec::new();
        for word in words(text) {
            match address_list::parse(&[&word], &Host::here()) {
                Ok(_) => kept.push(quoted(&word)),
                Err(problems) => {
                    let problem = problems.first().map_or("", |(_, problem)| problem.as_str());
                    self.warn(name, &format!("{word}: {problem}"));
                }
            }
        }
        list(kept.into_iter())
    }

    fn footer(&mut self) {
        match self.from.value("postscreen_reject_footer", false, true) {
            Some(Ok(text)) => self.put("smtp.reject_footer", quoted(&text)),
            Some(Err(problem)) => self.warn("postscreen_reject_footer", &problem),
            None => {}
        }
        for name in ["postscreen_reject_footer_maps", "postscreen_expansion_filter"] {
            if self.value(name, false).is_some_and(|text| !text.is_empty()) {
                self.warn(name, "there is nothing like it here");
            }
        }
    }

    fn tls(&mut self) {
        let yes = |text: Option<String>| text.is_some_and(|text| text.eq_ignore_ascii_case("yes"));
        let level = self.value("postscreen_tls_security_level", false).filter(|level| !level.is_empty());
        let (enforce, offer) =
            (yes(self.value("postscreen_enforce_tls", false)), yes(self.value("postscreen_use_tls", false)));
        let level =
            level.or_else(|| if enforce { Some("encrypt".to_owned()) } else { offer.then(|| "may".to_owned()) });
        match level.as_deref() {
            None | Some("none") => {}
            Some(level @ ("may" | "encrypt")) => self.put("tls.level", quoted(level)),
            Some(other) => self.warn("postscreen_tls_security_level", &format!("{other:?} has no counterpart")),
        }
        if let Some(files) = self.value("postscreen_tls_chain_files", false).filter(|files| !files.is_empty()) {
            // Each file holds a key and its chain; one of them is what fits here.
            let files = words(&files);
            if let Some(first) = files.first() {
                self.entries.retain(|entry| !matches!(entry.key, "tls.certificate" | "tls.key"));
                self.put("tls.certificate", quoted(first));
                self.put("tls.key", quoted(first));
            }
            if files.len() > 1 {
                self.warn("postscreen_tls_chain_files", "only the first file is used");
            }
        }
        // Postfix ignores certificates while TLS is off, and so they need not be readable.
        if !self.entries.iter().any(|entry| entry.key == "tls.level") {
            self.entries.retain(|entry| !matches!(entry.key, "tls.certificate" | "tls.key"));
        }
    }

    fn others(&mut self) {
        match self.value("postscreen_upstream_proxy_protocol", false).as_deref() {
            None | Some("") => {}
            Some("haproxy") => {
                self.put("proxy_protocol.from", "[\"0.0.0.0/0\", \"::/0\"]".to_owned());
                self.warn("postscreen_upstream_proxy_protocol", "postscreen requires the header from everybody, and so does this; name your proxies in proxy_protocol.from instead");
            }
            Some(other) => self.warn("postscreen_upstream_proxy_protocol", &format!("{other:?} is not known")),
        }
        match self.value("respectful_logging", false).as_deref() {
            Some("no") => self.put("log.style", quoted("classic")),
            Some("yes") => self.put("log.style", quoted("respectful")),
            Some(other) => self.warn("respectful_logging", &format!("{other:?} is neither yes nor no")),
            None => {}
        }
        match self.value("postscreen_cache_map", false).as_deref() {
            None => {}
            Some("") => self.put("cache.backend", quoted("none")),
            Some(_) => self.warn(
                "postscreen_cache_map",
                "what postscreen remembers is not carried over here; `postmap -s MAP | mxscreen cache import -` does it",
            ),
        }
        // These have no effect that is missing here: old names, and the cleaning of a file that cleans itself.
        for name in [
            "postscreen_blacklist_action",
            "postscreen_whitelist_interfaces",
            "postscreen_dnsbl_whitelist_threshold",
            "postscreen_dnsbl_ttl",
            "postscreen_cache_cleanup_interval",
            "postscreen_watchdog_timeout",
        ] {
            let _ = self.from.value(name, false, false);
        }
    }
}

/// A Postfix time: digits and the first letter behind them, if it is a unit (spec section 8).
fn time(text: &str, unit: char) -> Option<String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits)?;
    let unit = rest.chars().next().map_or(unit, |letter| letter.to_ascii_lowercase());
    (!number.is_empty() && "smhdw".contains(unit)).then(|| quoted(&format!("{number}{unit}")))
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            letter if letter.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(letter))),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}
