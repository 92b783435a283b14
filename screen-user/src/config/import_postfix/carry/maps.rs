//! Parameters whose values are tables.

use regex::RegexBuilder;

use super::{
    super::{
        main_cf::words,
        tables::{self, Lines},
    },
    Carrier, list, quoted,
};
use crate::access::cidr::parse_network;

impl Carrier<'_> {
    pub(super) fn access_list(&mut self) {
        let name = "postscreen_access_list";
        let text = self.value(name, false);
        let uses_mynetworks = text.as_deref().is_none_or(|text| text.contains("permit_mynetworks"));
        if uses_mynetworks && !self.from.is_given("mynetworks") {
            self.warn("mynetworks", "is not set in the file; permit_mynetworks stands for loopback here, while Postfix may take more (see postconf mynetworks)");
        }
        let Some(text) = text else { return };
        let mut elements = Vec::new();
        for word in words(&text) {
            if !word.contains(':') {
                elements.push(quoted(&word.to_ascii_lowercase()));
                continue;
            }
            if let (Some(path), Ok(_)) = (word.strip_prefix("cidr:/"), tables::read(&word)) {
                elements.push(quoted(&format!("cidr:/{path}")));
                continue;
            }
            match tables::read(&word) {
                Ok(Lines::Cidr(lines)) => elements.push(inline(&lines)),
                Ok(Lines::Pairs(pairs)) => {
                    let lines: Vec<String> =
                        pairs.iter().filter_map(|(key, value)| self.exact(name, &word, key, value)).collect();
                    elements.push(inline(&lines));
                }
                Ok(Lines::Static(result)) => {
                    elements.push(inline(&[format!("0.0.0.0/0 {result}"), format!("::/0 {result}")]));
                }
                Ok(Lines::Patterns(_)) => {
                    self.warn(name, &format!("{word}: patterns on addresses have no counterpart; write a cidr table"));
                }
                Err(problem) => self.warn(name, &format!("{word}: {problem}")),
            }
        }
        self.put("access.list", list(elements.into_iter()));
    }

    /// A line of an exact-match table as a line of a cidr table. Postscreen looks up whole addresses only (spec 1.9).
    fn exact(&mut self, name: &str, table: &str, key: &str, value: &str) -> Option<String> {
        match key.parse::<std::net::IpAddr>() {
            Ok(address) => Some(format!("{address} {value}")),
            Err(_) => {
                self.warn(name, &format!("{table}: {key:?} is no address; postscreen never finds it"));
                None
            }
        }
    }

    pub(super) fn reply_map(&mut self) {
        let name = "postscreen_dnsbl_reply_map";
        let Some(table) = self.value(name, false).filter(|table| !table.is_empty()) else { return };
        let pairs = match tables::read(&table) {
            Ok(Lines::Pairs(pairs)) => pairs,
            Ok(Lines::Patterns(patterns)) => self.zones().iter().filter_map(|zone| shown(&patterns, zone)).collect(),
            Ok(Lines::Static(value)) => self.zones().into_iter().map(|zone| (zone, value.clone())).collect(),
            Ok(Lines::Cidr(_)) => return self.warn(name, &format!("{table}: zone names are no addresses")),
            Err(problem) => return self.warn(name, &format!("{table}: {problem}")),
        };
        let entries: Vec<String> =
            pairs.iter().map(|(zone, name)| format!("{} = {}", quoted(zone), quoted(name))).collect();
        self.put("dnsbl.reply_map", format!("{{ {} }}", entries.join(", ")));
    }

    /// The zones that are configured, without filters and weights.
    fn zones(&mut self) -> Vec<String> {
        let sites = self.value("postscreen_dnsbl_sites", false).unwrap_or_default();
        let zone = |site: &String| site.split(['=', '*']).next().unwrap_or_default().to_owned();
        let mut zones: Vec<String> = words(&sites).iter().map(zone).collect();
        zones.sort();
        zones.dedup();
        zones
    }

    pub(super) fn forbidden(&mut self) {
        let name = "postscreen_forbidden_commands";
        let Some(text) = self.value(name, false) else { return };
        let mut entries = Vec::new();
        for word in words(&text) {
            if !word.contains(':') && !word.starts_with(['/', '!']) {
                entries.push(quoted(&word));
                continue;
            }
            match tables::read(&word) {
                Ok(Lines::Patterns(patterns)) => entries.extend(patterns.iter().map(|(pattern, _)| quoted(pattern))),
                Ok(Lines::Pairs(pairs)) => entries.extend(pairs.iter().map(|(key, _)| quoted(key))),
                Ok(Lines::Cidr(_) | Lines::Static(_)) => self.warn(name, &format!("{word}: is no table of commands")),
                Err(problem) => self.warn(name, &format!("{word}: {problem}")),
            }
        }
        self.put("non_smtp_command.forbidden", list(entries.into_iter()));
    }

    pub(super) fn keywords_by_client(&mut self) {
        let name = "postscreen_discard_ehlo_keyword_address_maps";
        let Some(text) = self.value(name, false) else { return };
        let mut entries: Vec<String> = Vec::new();
        for table in words(&text) {
            let lines: Vec<(String, String)> = match tables::read(&table) {
                Ok(Lines::Pairs(pairs)) => pairs,
                Ok(Lines::Cidr(lines)) => {
                    let pair = |line: &String| {
                        line.split_once(char::is_whitespace).map(|(key, value)| (key.to_owned(), value.to_owned()))
                    };
                    lines.iter().filter_map(pair).collect()
                }
                Ok(Lines::Static(value)) => vec![("0.0.0.0/0".to_owned(), value.clone()), ("::/0".to_owned(), value)],
                Ok(Lines::Patterns(_)) => {
                    self.warn(name, &format!("{table}: patterns on addresses have no counterpart"));
                    continue;
                }
                Err(problem) => {
                    self.warn(name, &format!("{table}: {problem}"));
                    continue;
                }
            };
            for (network, keywords) in lines {
                let prefix = format!("{} = ", quoted(&network));
                match parse_network(&network) {
                    Ok(_) if entries.iter().any(|entry| entry.starts_with(&prefix)) => {}
                    Ok(_) => {
                        let keywords = words(&keywords);
                        entries.push(format!(
                            "{prefix}{}",
                            list(keywords.iter().map(|word| quoted(&word.to_ascii_uppercase())))
                        ));
                    }
                    Err(problem) => self.warn(name, &format!("{table}: {problem}")),
                }
            }
        }
        if !entries.is_empty() {
            self.put("smtp.discard_ehlo_keywords_by_client", format!("{{ {} }}", entries.join(", ")));
        }
    }

    pub(super) fn command_filter(&mut self) {
        let name = "postscreen_command_filter";
        let Some(table) = self.value(name, false).filter(|table| !table.is_empty()) else { return };
        match tables::read(&table) {
            Ok(Lines::Patterns(patterns)) => {
                let pairs = patterns.iter().map(|(pattern, result)| {
                    format!("[{}, {}]", quoted(pattern), quoted(&result.replace("$(", "${").replace(')', "}")))
                });
                let value = list(pairs);
                self.put("smtp.command_rewrite", value);
            }
            Ok(Lines::Pairs(pairs)) => {
                let pairs = pairs.iter().map(|(from, to)| {
                    format!("[{}, {}]", quoted(&format!("^{}$", regex::escape(from))), quoted(&to.replace('$', "$$")))
                });
                let value = list(pairs);
                self.put("smtp.command_rewrite", value);
            }
            Ok(Lines::Cidr(_) | Lines::Static(_)) => self.warn(name, &format!("{table}: is no table of commands")),
            Err(problem) => self.warn(name, &format!("{table}: {problem}")),
        }
    }
}

/// What the first pattern that matches a zone shows instead of it.
fn shown(patterns: &[(String, String)], zone: &str) -> Option<(String, String)> {
    patterns.iter().find_map(|(pattern, result)| {
        let source = pattern.strip_prefix('/')?.strip_suffix('/')?;
        let regex = RegexBuilder::new(source).case_insensitive(true).build().ok()?;
        let captures = regex.captures(zone)?;
        let mut name = String::new();
        captures.expand(&result.replace("$(", "${").replace(')', "}"), &mut name);
        Some((zone.to_owned(), name))
    })
}

/// A table in place.
fn inline(lines: &[String]) -> String {
    format!("{{ cidr = {} }}", list(lines.iter().map(|line| quoted(line))))
}
