//! The values put together, and checked for how they fit.

mod cache;
mod forward;
mod kernel;
mod lists;
mod policy;
mod postfix;
mod tls;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Config, Journal, Layout, Log, LogTarget, ProxyProtocol, Resolver,
    document::Value,
    values::{Fault, Values, mismatch},
};
use crate::{access::cidr::parse_network, screen::policy::Policy};

/// The shortest wait: zero would mean that there is none.
const INSTANT: Duration = Duration::from_millis(1);
/// What is stamped with Unix time counts in whole seconds.
const SECOND: Duration = Duration::from_secs(1);
/// Where the screener listens by default in layout `in-place`.
const SCREENER_PORT: u16 = 2526;
/// Where the system's resolvers stand.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The longest path of a socket (unix(7): 108 bytes with its end).
const LONGEST_PATH: usize = 107;
/// DNS (RFC 1035 section 4.2).
const DNS_PORT: u16 = 53;

/// The configuration; `None` only after a problem was noted. `directory` is where relative names start from.
pub(super) fn config(values: &mut Values<'_>, directory: &Path) -> Option<Config> {
    let hostname = hostname(values);
    let layout = values.word("layout", &[("in-place", Layout::InPlace), ("front", Layout::Front)], Layout::InPlace);
    let ports = ports(values);
    let access = lists::access(values, directory);
    let backend = cache::backend(values);
    let mut policy = policy::policy(values, &hostname, backend != cache::Backend::None);
    let kernel = kernel::kernel(values, layout);
    let forward = forward::forward(values, layout, kernel.enabled);
    postfix::come_back(values, &forward, &mut policy);
    if policy.dry_run {
        dry_run(values, &mut policy);
    }
    let tls = tls::tls(values, policy.tls);
    let cache = cache::cache(values, backend, &hostname);
    Some(Config {
        access,
        spf: lists::spf(values),
        blocklists: lists::blocklists(values, directory),
        listen: listen(values, layout, &ports),
        resolver: resolver(values),
        tls,
        proxy_protocol: ProxyProtocol {
            from: values.list("proxy_protocol.from", |value| match value {
                Value::Text(text) => parse_network(text).map_err(Fault::new),
                _ => Err(mismatch("a list of networks", value)),
            }),
            timeout: values.duration("proxy_protocol.timeout", INSTANT),
        },
        cache,
        journal: journal(values),
        forward,
        kernel,
        state_directory: path(values, "state.directory")?,
        control_socket: path(values, "control.socket")?,
        user: user(values)?,
        log: Log { target: log_target(values)?, name: log_name(values)?, style: policy.log_style },
        metrics_listen: values.list("metrics.listen", |value| socket_address(value, None)),
        policy,
        ports,
        layout,
    })
}

fn resolver(values: &mut Values<'_>) -> Resolver {
    let servers = values.list("dnsbl.resolvers", |value| socket_address(value, Some(DNS_PORT)));
    // Where it can't be read there is no resolver, which matters only if there are zones to ask.
    let system =
        if servers.is_empty() { values.host.read(Path::new(RESOLV_CONF)).unwrap_or_default() } else { Vec::new() };
    Resolver { servers, system, timeout: values.duration("dnsbl.timeout", INSTANT) }
}

/// In a dry run nobody is asked to come back: where that is what the deep tests lead to, they are left out.
fn dry_run(values: &mut Values<'_>, policy: &mut Policy) {
    values.notices.push("dry_run: nobody is turned away".to_owned());
    let deep = [&mut policy.pipelining, &mut policy.non_smtp_command, &mut policy.bare_newline];
    if policy.replays || deep.iter().all(|test| !test.enabled) {
        return;
    }
    deep.into_iter().for_each(|test| test.enabled = false);
    values.notices.push(
        "dry_run: the deep tests are left out, as who passes them would be asked to come back (forward.after_deep_tests)"
            .to_owned(),
    );
}

/// Less than a megabyte would be a few hundred sessions in each segment.
fn journal(values: &mut Values<'_>) -> Journal {
    let max_size = values.number("journal.max_size", 0..=1_u64 << 40);
    if (1..1 << 20).contains(&max_size) {
        values.fault("journal.max_size", Fault::new("is 0, for no journal, or at least 1048576"));
    }
    Journal { max_size, retention: values.duration("journal.retention", SECOND) }
}

fn user(values: &mut Values<'_>) -> Option<String> {
    values.filled_text("user")
}

fn hostname(values: &mut Values<'_>) -> String {
    let name = values.read("hostname", |value| match value {
        Value::Text(name) if is_hostname(name) => Ok(name.clone()),
        Value::Text(name) => Err(Fault::new(format!("{name:?} is no host name"))),
        _ => Err(mismatch("a text", value)),
    });
    name.unwrap_or_else(|| values.host.fqdn())
}

/// Letters, digits, `_` and `-`, in labels of 1 to 63, at most 255 in all.
fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 255 && name.split('.').all(label)
}

fn ports(values: &mut Values<'_>) -> Vec<u16> {
    let ports = values.list("ports", |value| match value {
        Value::Integer(number) => u16::try_from(*number)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| Fault::new(format!("{number} is no port: 1 to 65535"))),
        _ => Err(mismatch("a list of ports", value)),
    });
    let twice = ports.iter().enumerate().find(|(at, port)| ports.iter().take(*at).any(|other| other == *port));
    if let Some((_, port)) = twice {
        values.fault("ports", Fault::new(format!("{port} is listed twice")));
    }
    if values.value("ports").is_some_and(|located| matches!(&located.value, Value::List(items) if items.is_empty())) {
        values.fault("ports", Fault::new("at least one port is needed"));
    }
    ports
}

/// An address with a port; `port` is what counts where none is given.
fn socket_address(value: &Value, port: Option<u16>) -> Result<SocketAddr, Fault> {
    let Value::Text(text) = value else { return Err(mismatch("an address with a port, as a text", value)) };
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text).parse();
    match (bare, port) {
        (Ok(address), Some(port)) => Ok(SocketAddr::new(address, port)),
        (Ok(address), None) => {
            Err(Fault::new(format!("{text:?} has no port")).hint(format!("write \"{}\"", SocketAddr::new(address, 25))))
        }
        (Err(_), _) => Err(Fault::new(format!("{text:?} is no address with a port"))
            .hint("write it like \"192.0.2.1:25\" or \"[2001:db8::1]:25\"")),
    }
}

/// The path of a Unix socket, which is absolute.
fn socket_path(path: &str) -> Result<PathBuf, Fault> {
    if path.len() > LONGEST_PATH {
        return Err(Fault::new(format!("the path of a socket has at most {LONGEST_PATH} bytes")));
    }
    Ok(PathBuf::from(path))
}

fn listen(values: &mut Values<'_>, layout: Layout, ports: &[u16]) -> Vec<SocketAddr> {
    if !values.is_given("listen") {
        return match layout {
            Layout::InPlace => vec![
                SocketAddr::from((Ipv4Addr::LOCALHOST, SCREENER_PORT)),
                SocketAddr::from((Ipv6Addr::LOCALHOST, SCREENER_PORT)),
            ],
            Layout::Front => ports.iter().map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port))).collect(),
        };
    }
    let before = values.problems.len();
    let listen = values.list("listen", |value| socket_address(value, None));
    if listen.is_empty() && values.problems.len() == before {
        values.fault("listen", Fault::new("at least one address is needed"));
    }
    listen
}

/// A path that must not be empty.
fn path(values: &mut Values<'_>, key: &str) -> Option<PathBuf> {
    values.filled_text(key).map(PathBuf::from)
}

/// A path that may be missing, but not empty.
fn path_if_given(values: &mut Values<'_>, key: &str) -> Option<PathBuf> {
    values.is_given(key).then(|| path(values, key)).flatten()
}

/// A program's name for syslog (RFC 5424 section 6.2.5: at most 48 printable characters), and for tools that look for `name[pid]: `.
fn log_name(values: &mut Values<'_>) -> Option<String> {
    values.read("log.name", |value| {
        let Value::Text(text) = value else { return Err(mismatch("a text", value)) };
        let fits = |byte: u8| byte.is_ascii_graphic() && !b"[]:".contains(&byte);
        if (1..=48).contains(&text.len()) && text.bytes().all(fits) {
            Ok(text.clone())
        } else {
            Err(Fault::new("1 to 48 letters, digits or signs, without spaces, colons and brackets"))
        }
    })
}

fn log_target(values: &mut Values<'_>) -> Option<LogTarget> {
    values.read("log.target", |value| {
        let Value::Text(text) = value else { return Err(mismatch("a text", value)) };
        match text.as_str() {
            "stderr" => Ok(LogTarget::Stderr),
            "journald" => Ok(LogTarget::Journald),
            "syslog" => Ok(LogTarget::Syslog),
            other => match other.strip_prefix("file:") {
                Some("") => Err(Fault::new("a path must follow \"file:\"")),
                Some(path) => Ok(LogTarget::File(PathBuf::from(path))),
                None => {
                    let words = ["stderr", "journald", "syslog", "file:PATH"];
                    Err(super::values::unknown_word(other, words.into_iter()))
                }
            },
        }
    })
}
