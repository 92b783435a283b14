//! Scenario files: what the adapter needs of them. The steps are the probe's business.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// Scenarios that share one configuration.
#[derive(Debug, Deserialize)]
pub(super) struct Group {
    /// Its name, which is the file's too.
    pub(super) group: String,
    /// The configuration in neutral terms.
    pub(super) config: Config,
    /// The scenarios.
    pub(super) scenarios: Vec<Scenario>,
}

/// One scenario, by name.
#[derive(Debug, Deserialize)]
pub(super) struct Scenario {
    /// Its name within the group.
    pub(super) name: String,
}

/// The neutral configuration ("Configuration keys" in `tests/oracle/README.md`); complete in every file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) hostname: String,
    pub(super) banner: String,
    pub(super) own_networks: Vec<String>,
    pub(super) access_list: Vec<AccessEntry>,
    pub(super) denylist_action: String,
    pub(super) greet_teaser: String,
    pub(super) greet_wait: StressTime,
    pub(super) greet_action: String,
    pub(super) greet_ttl: Time,
    pub(super) dnsbl_sites: Vec<Site>,
    pub(super) dnsbl_threshold: i32,
    pub(super) dnsbl_action: String,
    pub(super) dnsbl_allowlist_threshold: i32,
    pub(super) dnsbl_min_ttl: Time,
    pub(super) dnsbl_max_ttl: Time,
    pub(super) dnsbl_timeout: Time,
    pub(super) dnsbl_public_names: BTreeMap<String, String>,
    pub(super) pipelining: DeepTest,
    pub(super) non_smtp_command: DeepTest,
    pub(super) bare_newline: DeepTest,
    pub(super) client_connection_limit: u32,
    pub(super) pre_queue_limit: u32,
    pub(super) post_queue_limit: u32,
    pub(super) backend_sessions: u32,
    pub(super) command_count_limit: u32,
    pub(super) command_time_limit: StressTime,
    pub(super) line_length_limit: u32,
    pub(super) helo_required: bool,
    pub(super) disable_vrfy: bool,
    pub(super) ehlo_discard: Vec<String>,
    pub(super) ehlo_discard_by_client: BTreeMap<String, Vec<String>>,
    pub(super) message_size_limit: u64,
    pub(super) smtputf8: bool,
    pub(super) tls: String,
    pub(super) tls_engine: TlsEngine,
    pub(super) soft_bounce: bool,
    pub(super) reject_footer: String,
    pub(super) command_rewrite: Vec<(String, String)>,
    pub(super) upstream_proxy: UpstreamProxy,
    pub(super) upstream_proxy_timeout: Time,
    pub(super) allowlist_interfaces: AllowlistInterfaces,
    pub(super) cache: bool,
}

/// One entry of the access list.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(super) enum AccessEntry {
    /// A network and what its clients get.
    Net {
        /// An address or a prefix.
        net: String,
        /// `permit`, `reject` or `dunno`.
        action: String,
    },
    /// `own_networks`, always permitted.
    OwnNetworks {
        /// `permit`.
        own_networks: String,
    },
    /// The end of the list.
    All {
        /// `dunno`: without a decision.
        all: String,
    },
}

/// A duration: seconds, or a number with a unit.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Time {
    /// Seconds.
    Seconds(u64),
    /// For example `30d`.
    WithUnit(String),
}

/// A duration that may be another one under overload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StressTime {
    /// In quiet times.
    pub(super) normal: Time,
    /// Under overload.
    pub(super) stress: Time,
}

/// A DNS list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Site {
    /// The zone.
    pub(super) domain: String,
    /// Which returned addresses count.
    pub(super) filter: Option<String>,
    /// What a match adds.
    pub(super) weight: Option<i32>,
}

/// A test after the greeting.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeepTest {
    /// Whether it is on.
    pub(super) enabled: bool,
    /// What offenders get.
    pub(super) action: String,
    /// How long a pass lasts.
    pub(super) ttl: Time,
    /// Forbidden words, of `non_smtp_command` alone.
    pub(super) commands: Option<Vec<String>>,
}

/// Whether TLS works on the server side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TlsEngine {
    /// It does.
    Ok,
    /// Every STARTTLS fails.
    Unavailable,
}

/// What stands before the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum UpstreamProxy {
    /// Nothing.
    None,
    /// Every connection starts with a PROXY header.
    ProxyProtocol,
}

/// Where clients can become known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AllowlistInterfaces {
    /// On every address.
    All,
    /// Not on the server's second address.
    AllButAlt,
}

/// Reads the wanted groups (all, if none is named) of a folder or of one file, in order of their names.
///
/// # Errors
/// When a file is not a scenario file, when the folder has none, or when a wanted group is not there.
pub(super) fn load(path: &Path, wanted: &[String]) -> Result<Vec<Group>> {
    let mut files = Vec::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).with_context(|| format!("can't read {}", path.display()))? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "json") {
                files.push(file);
            }
        }
        files.sort();
    } else {
        files.push(path.to_path_buf());
    }
    let mut groups: Vec<Group> = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
        // DNS data may lie beside the scenarios.
        if value.get("scenarios").is_none() {
            continue;
        }
        let group: Group = serde_json::from_value(value)
            .with_context(|| format!("{} is not a scenario file that this adapter knows", file.display()))?;
        if wanted.is_empty() || wanted.contains(&group.group) {
            groups.push(group);
        }
    }
    for name in wanted {
        if !groups.iter().any(|group| group.group == *name) {
            bail!("there is no group `{name}` in {}", path.display());
        }
    }
    if groups.is_empty() {
        bail!("there are no scenarios in {}", path.display());
    }
    Ok(groups)
}
