//! The list of sites, `domain=filter*weight` each (spec 3.4).

use std::{collections::BTreeMap, fmt};

use super::filter::{Filter, FilterError};

/// The zones to ask, and what their answers weigh.
#[derive(Debug, Clone, Default)]
pub struct Sites {
    zones: Vec<Zone>,
    weighings: Vec<Weighing>,
}

/// One zone: asked once for each client, however often it is listed.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone {
    domain: String,
    shown: String,
    label: String,
}

/// What an answer of one zone is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighing {
    /// Which zone: an index into [`Sites::zones`].
    pub zone: usize,
    /// The codes that count; `None`: all.
    pub filter: Option<Filter>,
    /// Added to the score.
    pub weight: i32,
}

/// What is wrong with a site, in postscreen's words. A secret zone's name is not in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    /// The weight is no number.
    #[error("bad DNSBL weight factor \"{weight}\" in \"{entry}\"")]
    Weight {
        /// What stands behind the `*`.
        weight: String,
        /// The whole site.
        entry: String,
    },
    /// The filter is no pattern.
    #[error("bad DNSBL filter syntax: {0}")]
    Filter(FilterError),
    /// The domain is no host name.
    #[error("bad DNSBL domain name \"{domain}\" in \"{entry}\"")]
    Domain {
        /// What should be a domain.
        domain: String,
        /// The whole site.
        entry: String,
    },
}

impl Zone {
    /// The name that is asked for. It can hold a customer's key: for the resolver only, never for a log or a reply.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The name that may be shown.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The name that may be shown, made unique: several secret zones may be shown by one name.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zone").field(&self.shown).finish()
    }
}

impl Sites {
    /// Reads sites. `names` says which name is shown for a zone (`dnsbl.reply_map`); for a zone that is not in it, a label that looks
    /// like a customer's key is left out of the shown name.
    ///
    /// # Errors
    /// The first thing that is wrong with the first bad site.
    pub fn parse(entries: &[impl AsRef<str>], names: &BTreeMap<String, String>) -> Result<Self, SiteError> {
        let mut sites = Self::default();
        for entry in entries {
            sites.add(entry.as_ref(), names)?;
        }
        Ok(sites)
    }

    /// Reads one more site.
    ///
    /// # Errors
    /// The first thing that is wrong with it; nothing is added then.
    pub fn add(&mut self, entry: &str, names: &BTreeMap<String, String>) -> Result<(), SiteError> {
        let (rest, weight) = entry.split_once('*').map_or((entry, None), |(rest, weight)| (rest, Some(weight)));
        let (domain, filter) = rest.split_once('=').map_or((rest, None), |(domain, filter)| (domain, Some(filter)));
        let shown = names.get(domain).cloned().unwrap_or_else(|| without_key(domain).to_owned());
        let masked = || entry.strip_prefix(domain).map_or_else(|| shown.clone(), |tail| format!("{shown}{tail}"));
        let weight = match weight {
            None => 1,
            Some(text) => {
                parse_weight(text).ok_or_else(|| SiteError::Weight { weight: text.to_owned(), entry: masked() })?
            }
        };
        let filter = filter.map(Filter::parse).transpose().map_err(SiteError::Filter)?;
        if !is_hostname(domain) {
            return Err(SiteError::Domain { domain: shown.clone(), entry: masked() });
        }
        let zone = self.zones.iter().position(|zone| zone.domain == domain).unwrap_or_else(|| {
            let label = label(domain, &shown);
            self.zones.push(Zone { domain: domain.to_owned(), shown, label });
            self.zones.len() - 1
        });
        self.weighings.push(Weighing { zone, filter, weight });
        Ok(())
    }

    /// The zones, each once, in the order of their first mention.
    #[must_use]
    pub fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// What the answers of one zone are worth, in the order of the sites.
    pub(in crate::screen) fn weighings(&self, zone: usize) -> impl Iterator<Item = &Weighing> {
        self.weighings.iter().filter(move |weighing| weighing.zone == zone)
    }
}

/// A zone that is shown as what it is needs no more; of another one a hash of its domain (FNV-1a) tells it from those of its name.
fn label(domain: &str, shown: &str) -> String {
    if domain == shown {
        return domain.to_owned();
    }
    let hash = domain.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{shown}#{hash:08x}")
}

fn parse_weight(text: &str) -> Option<i32> {
    text.parse().ok()
}

/// Letters, digits, `_`, `-` inside of labels; labels of 1 to 63, at most 255 in all, not all numeric.
fn is_hostname(name: &str) -> bool {
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    name.len() <= 255 && name.split('.').all(label_ok) && !name.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Providers that put a customer's key in front of their zones.
const KEYED: [&str; 2] = [".dq.spamhaus.net", ".mail.abusix.zone"];

/// Shortest label of letters and digits together that is taken for a key; no public zone has one.
const KEY_LENGTH: usize = 20;

/// `domain` without a first label that is a customer's key, or looks like one.
fn without_key(domain: &str) -> &str {
    let Some((first, rest)) = domain.split_once('.') else {
        return domain;
    };
    // KEY.zen.dq.spamhaus.net, but not zen.dq.spamhaus.net.
    let keyed = KEYED.iter().any(|suffix| rest.strip_suffix(suffix).is_some_and(|zone| !zone.is_empty()));
    let looks_like_a_key = first.len() >= KEY_LENGTH
        && first.bytes().all(|b| b.is_ascii_alphanumeric())
        && first.bytes().any(|b| b.is_ascii_digit())
        && first.bytes().any(|b| b.is_ascii_alphabetic());
    if keyed || looks_like_a_key { rest } else { domain }
}
