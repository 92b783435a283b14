//! From a group's neutral configuration to the gate's own: `mxscreen.toml` and the tables that it names.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::groups::{AccessEntry, AllowlistInterfaces, Config, DeepTest, Site, Time, TlsEngine, UpstreamProxy};

/// Where one group's gate and everything around it live.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Where the gate listens, every role's address.
    pub(super) listen: Vec<SocketAddr>,
    /// The server's second address, where there is one.
    pub(super) alt: Option<SocketAddr>,
    /// The mail server behind the gate.
    pub(super) backend: SocketAddr,
    /// The DNS server with the scenarios' records.
    pub(super) resolver: SocketAddr,
    /// The gate's folder.
    pub(super) folder: PathBuf,
    /// The log that all gates share.
    pub(super) log: PathBuf,
    /// A certificate and its key, PEM.
    pub(super) certificate: PathBuf,
    /// The key of that certificate.
    pub(super) key: PathBuf,
    /// Prefixes of addresses as the scenarios write them, and as they are here.
    pub(super) mapped: Vec<(String, String)>,
}

impl Place {
    /// The gate's control socket.
    pub(super) fn control(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// The gate's configuration file.
    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("mxscreen.toml")
    }

    /// An address or network of the scenarios as it is here.
    fn mapped(&self, net: &str) -> String {
        let net = net.replace(['[', ']'], "");
        for (from, to) in &self.mapped {
            if let Some(rest) = net.strip_prefix(from) {
                return format!("{to}{rest}");
            }
        }
        net
    }
}

/// The files that a gate reads: the configuration first, then the tables that it names.
pub(super) fn files(config: &Config, place: &Place) -> Vec<(PathBuf, String)> {
    let mut tables = Vec::new();
    let list = access_list(&config.access_list, place, &mut tables);
    let mut root = Table::new();
    let mut set = |key: &str, value: Value| insert(&mut root, key, value);

    set("hostname", text(&config.hostname));
    set("layout", text("front"));
    set("listen", Value::Array(place.listen.iter().map(|address| text(address.to_string())).collect()));
    // The record was made of a screener that knows no prefixes, no kernel, and has nobody remember a failure.
    set("kernel.mode", text("off"));
    set("kernel.remember_failures", text("0s"));
    set("limits.client_prefix.ipv4", Value::Integer(32));
    set("limits.client_prefix.ipv6", Value::Integer(128));
    set("forward.client_address", text("none"));
    set("forward.after_deep_tests", text("reconnect"));
    set("forward.to", Value::Array(vec![text(place.backend.to_string())]));
    set("state.directory", path(&place.folder.join("state")));
    set("control.socket", path(&place.control()));
    set("log.target", text(format!("file:{}", place.log.display())));

    set("access.list", Value::Array(list));
    set("access.mynetworks", strings(config.own_networks.iter().map(|net| place.mapped(net))));
    set("access.denylist_action", text(&config.denylist_action));
    if let (AllowlistInterfaces::AllButAlt, Some(alt)) = (config.allowlist_interfaces, place.alt) {
        set(
            "access.allowlist_addresses",
            strings([format!("!{}", alt.ip()), "0.0.0.0/0".to_owned(), "::/0".to_owned()]),
        );
    }

    set("pregreet.banner", text(&config.greet_teaser));
    set("pregreet.wait", time(&config.greet_wait.normal));
    set("pregreet.stress_wait", time(&config.greet_wait.stress));
    set("pregreet.action", text(&config.greet_action));
    set("pregreet.ttl", time(&config.greet_ttl));

    set("dnsbl.sites", strings(config.dnsbl_sites.iter().map(site)));
    set("dnsbl.threshold", Value::Integer(config.dnsbl_threshold.into()));
    set("dnsbl.allowlist_threshold", Value::Integer(config.dnsbl_allowlist_threshold.into()));
    set("dnsbl.action", text(&config.dnsbl_action));
    set("dnsbl.timeout", time(&config.dnsbl_timeout));
    set("dnsbl.min_ttl", time(&config.dnsbl_min_ttl));
    set("dnsbl.max_ttl", time(&config.dnsbl_max_ttl));
    set("dnsbl.resolvers", strings([place.resolver.to_string()]));
    set(
        "dnsbl.reply_map",
        Value::Table(config.dnsbl_public_names.iter().map(|(zone, shown)| (zone.clone(), text(shown))).collect()),
    );

    for (name, test) in [
        ("pipelining", &config.pipelining),
        ("non_smtp_command", &config.non_smtp_command),
        ("bare_newline", &config.bare_newline),
    ] {
        set(name, deep_test(test));
    }

    set("smtp.banner", text(&config.banner));
    set("smtp.helo_required", Value::Boolean(config.helo_required));
    set("smtp.disable_vrfy", Value::Boolean(config.disable_vrfy));
    set("smtp.discard_ehlo_keywords", strings(config.ehlo_discard.iter().cloned()));
    set(
        "smtp.discard_ehlo_keywords_by_client",
        Value::Table(
            config
                .ehlo_discard_by_client
                .iter()
                .map(|(net, keywords)| (place.mapped(net), strings(keywords.iter().cloned())))
                .collect(),
        ),
    );
    set("smtp.message_size_limit", number(config.message_size_limit));
    set("smtp.smtputf8", Value::Boolean(config.smtputf8));
    set("smtp.command_count_limit", number(config.command_count_limit.into()));
    set("smtp.command_time_limit", time(&config.command_time_limit.normal));
    set("smtp.stress_command_time_limit", time(&config.command_time_limit.stress));
    set("smtp.line_length_limit", number(config.line_length_limit.into()));
    set("smtp.reject_footer", text(&config.reject_footer));
    set("smtp.soft_bounce", Value::Boolean(config.soft_bounce));
    set(
        "smtp.command_rewrite",
        Value::Array(config.command_rewrite.iter().map(|(from, to)| strings([from.clone(), to.clone()])).collect()),
    );

    set("tls.level", text(&config.tls));
    if config.tls != "none" {
        set("tls.certificate", path(&place.certificate));
        set("tls.key", path(&place.key));
    }
    if config.tls_engine == TlsEngine::Unavailable {
        set("tls.sessions", number(0));
    }

    set("limits.client_connections", number(config.client_connection_limit.into()));
    set("limits.pre_queue", number(config.pre_queue_limit.into()));
    set("limits.post_queue", number(config.post_queue_limit.into()));

    if config.upstream_proxy == UpstreamProxy::ProxyProtocol {
        set("proxy_protocol.from", strings(["0.0.0.0/0".to_owned(), "::/0".to_owned()]));
    }
    set("proxy_protocol.timeout", time(&config.upstream_proxy_timeout));
    set("cache.backend", text(if config.cache { "memory" } else { "none" }));

    let mut files = vec![(place.config(), root.to_string())];
    files.append(&mut tables);
    files
}

/// The access list in the gate's words. Runs of networks become tables; what stands after the end of the list is left out.
fn access_list(entries: &[AccessEntry], place: &Place, tables: &mut Vec<(PathBuf, String)>) -> Vec<Value> {
    let mut list = Vec::new();
    let mut table = String::new();
    let mut close = |table: &mut String, list: &mut Vec<Value>| {
        if !table.is_empty() {
            let file = place.folder.join(format!("access-{}.cidr", tables.len()));
            list.push(text(format!("cidr:{}", file.display())));
            tables.push((file, std::mem::take(table)));
        }
    };
    for entry in entries {
        match entry {
            AccessEntry::Net { net, action } => table.push_str(&format!("{} {action}\n", place.mapped(net))),
            AccessEntry::OwnNetworks { own_networks } => {
                close(&mut table, &mut list);
                list.push(text(format!("{own_networks}_mynetworks")));
            }
            AccessEntry::All { all } => {
                close(&mut table, &mut list);
                if all != "dunno" {
                    list.push(text(all));
                }
                return list;
            }
        }
    }
    close(&mut table, &mut list);
    list
}

/// A site as Postfix writes it: `domain=filter*weight`.
fn site(site: &Site) -> String {
    let mut text = site.domain.clone();
    if let Some(filter) = &site.filter {
        text.push_str(&format!("={filter}"));
    }
    if let Some(weight) = site.weight {
        text.push_str(&format!("*{weight}"));
    }
    text
}

fn deep_test(test: &DeepTest) -> Value {
    let mut table = Table::new();
    table.insert("enable".to_owned(), Value::Boolean(test.enabled));
    table.insert("action".to_owned(), text(&test.action));
    table.insert("ttl".to_owned(), time(&test.ttl));
    if let Some(commands) = &test.commands {
        table.insert("forbidden".to_owned(), strings(commands.iter().cloned()));
    }
    Value::Table(table)
}

/// Enters a value under a dotted key.
fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            if let Value::Table(inner) = table.entry(first).or_insert_with(|| Value::Table(Table::new())) {
                insert(inner, rest, value);
            }
        }
    }
}

fn text(text: impl Into<String>) -> Value {
    Value::String(text.into())
}

fn path(path: &Path) -> Value {
    text(path.display().to_string())
}

fn number(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn strings(items: impl IntoIterator<Item = String>) -> Value {
    Value::Array(items.into_iter().map(Value::String).collect())
}

fn time(time: &Time) -> Value {
    match time {
        Time::Seconds(seconds) => text(format!("{seconds}s")),
        Time::WithUnit(with_unit) => text(with_unit),
    }
}

#[cfg(test)]
mod tests;
