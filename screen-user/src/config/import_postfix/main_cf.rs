//! `main.cf`: parameters, and the text that they stand for once every `$name` is replaced.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use crate::access::cidr::logical_lines;

/// How deep parameters may refer to each other.
const DEPTH_LIMIT: u32 = 50;
/// The longest text that one parameter may stand for, in bytes.
const LENGTH_LIMIT: usize = 1_000_000;
/// How many references one parameter may lead to: what each stands for may be empty, and so no limit on its length would end it.
const REFERENCE_LIMIT: u32 = 10_000;
/// Stands for the host's name where `myhostname` is not set.
pub(super) const HOSTNAME: char = '\u{1}';

/// Parameters that refer to others unless they are set (spec section 8); those that are missing here are empty by default.
const DEFAULTS: &[(&str, &str)] = &[
    ("myhostname", "\u{1}"),
    ("mail_name", "Postfix"),
    ("smtpd_banner", "$myhostname ESMTP $mail_name"),
    ("postscreen_access_list", "permit_mynetworks"),
    ("postscreen_denylist_action", "${postscreen_blacklist_action?{$postscreen_blacklist_action}:{ignore}}"),
    (
        "postscreen_allowlist_interfaces",
        "${postscreen_whitelist_interfaces?{$postscreen_whitelist_interfaces}:{static:all}}",
    ),
    (
        "postscreen_dnsbl_allowlist_threshold",
        "${postscreen_dnsbl_whitelist_threshold?{$postscreen_dnsbl_whitelist_threshold}:{0}}",
    ),
    ("postscreen_dnsbl_max_ttl", "${postscreen_dnsbl_ttl?{$postscreen_dnsbl_ttl}:{1}}h"),
    ("postscreen_greet_banner", "$smtpd_banner"),
    ("postscreen_forbidden_commands", "$smtpd_forbidden_commands"),
    ("postscreen_client_connection_count_limit", "$smtpd_client_connection_count_limit"),
    ("postscreen_post_queue_limit", "$default_process_limit"),
    ("postscreen_pre_queue_limit", "$default_process_limit"),
    ("postscreen_helo_required", "$smtpd_helo_required"),
    ("postscreen_disable_vrfy_command", "$disable_vrfy_command"),
    ("postscreen_discard_ehlo_keywords", "$smtpd_discard_ehlo_keywords"),
    ("postscreen_discard_ehlo_keyword_address_maps", "$smtpd_discard_ehlo_keyword_address_maps"),
    ("postscreen_reject_footer", "$smtpd_reject_footer"),
    ("postscreen_reject_footer_maps", "$smtpd_reject_footer_maps"),
    ("postscreen_expansion_filter", "$smtpd_expansion_filter"),
    ("postscreen_tls_security_level", "$smtpd_tls_security_level"),
    ("postscreen_use_tls", "$smtpd_use_tls"),
    ("postscreen_enforce_tls", "$smtpd_enforce_tls"),
    ("postscreen_tls_chain_files", "$smtpd_tls_chain_files"),
    ("postscreen_tls_cert_file", "$smtpd_tls_cert_file"),
    ("postscreen_tls_key_file", "$smtpd_tls_key_file"),
    ("smtpd_tls_key_file", "$smtpd_tls_cert_file"),
    ("config_directory", "/etc/postfix"),
    ("data_directory", "/var/lib/postfix"),
    ("default_database_type", "hash"),
    ("default_cache_db_type", "btree"),
];

/// The parameters of a `main.cf`.
#[derive(Debug, Default)]
pub(super) struct MainCf {
    given: BTreeMap<String, String>,
    used: RefCell<BTreeSet<String>>,
    /// Whether text of a parameter that was given has come in since it was last asked.
    touched: Cell<bool>,
    /// How many references were followed since a parameter was last asked for.
    references: Cell<u32>,
}

impl MainCf {
    /// Reads the text of the file, or what `postconf -n` prints. The last definition of a name counts.
    pub(super) fn parse(text: &str) -> (Self, Vec<String>) {
        let mut given = BTreeMap::new();
        let mut warnings = Vec::new();
        for (line, text) in logical_lines(text) {
            match text.split_once('=') {
                Some((name, value)) if is_name(name.trim()) => {
                    given.insert(name.trim().to_owned(), value.trim().to_owned());
                }
                _ => warnings.push(format!("line {line} is no \"name = value\" and is left out: {text:?}")),
            }
        }
        (Self { given, ..Self::default() }, warnings)
    }

    /// The parameters that were given and never asked for, with their text as it stands there.
    pub(super) fn unused(&self) -> Vec<(&str, &str)> {
        let used = self.used.borrow();
        self.given
            .iter()
            .filter(|(name, _)| !used.contains(*name))
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect()
    }

    /// Whether a parameter was given.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// What a parameter stands for, if it or one that it refers to was given. `raw`: its own `$` text stays (spec 4.9).
    pub(super) fn value(&self, name: &str, stress: bool, raw: bool) -> Option<Result<String, String>> {
        self.touched.set(false);
        self.references.set(0);
        let value = if raw { self.raw(name) } else { self.expand_name(name, stress, 0) };
        self.touched.get().then_some(value)
    }

    fn text(&self, name: &str) -> &str {
        self.used.borrow_mut().insert(name.to_owned());
        if let Some(text) = self.given.get(name) {
            self.touched.set(true);
            return text;
        }
        DEFAULTS.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| *text)
    }

    /// The text of a parameter; if that is one reference, the text of the other.
    fn raw(&self, name: &str) -> Result<String, String> {
        let mut text = self.text(name);
        for _ in 0..DEPTH_LIMIT {
            let inner = text
                .strip_prefix('$')
                .map(|rest| rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(rest));
            match inner.filter(|inner| {
                is_name(inner) && (self.is_given(inner) || DEFAULTS.iter().any(|(known, _)| known == inner))
            }) {
                Some(other) => text = self.text(other),
                // The default of the one is the other, which is empty by default.
                None if inner.is_some_and(|inner| inner.starts_with("smtpd_")) => return Ok(String::new()),
                None => return Ok(text.to_owned()),
            }
        }
        Err("refers to itself".to_owned())
    }

    fn expand_name(&self, name: &str, stress: bool, depth: u32) -> Result<String, String> {
        if name == "stress" && !self.is_given(name) {
            return Ok(if stress { "yes".to_owned() } else { String::new() });
        }
        self.expand(self.text(name), stress, depth + 1)
    }

    fn expand(&self, text: &str, stress: bool, depth: u32) -> Result<String, String> {
        self.references.set(self.references.get() + 1);
        if depth > DEPTH_LIMIT {
            return Err("refers to itself, or too deep".to_owned());
        }
        if self.references.get() > REFERENCE_LIMIT {
            return Err("refers to too many others".to_owned());
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some((head, tail)) = rest.split_once('$') {
            out.push_str(head);
            if let Some(after) = tail.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if tail.starts_with(['{', '(']) {
                let (inside, after) = enclosed(tail).ok_or_else(|| format!("a bracket is not closed in {text:?}"))?;
                out.push_str(&self.expand_braces(inside, stress, depth)?);
                rest = after;
            } else {
                let length = tail.bytes().take_while(|byte| is_name_byte(*byte)).count();
                let (name, after) = tail.split_at_checked(length).unwrap_or((tail, ""));
                if name.is_empty() {
                    return Err(format!("no name after \"$\" in {text:?}"));
                }
                out.push_str(&self.expand_name(name, stress, depth)?);
                rest = after;
            }
            if out.len() > LENGTH_LIMIT {
                return Err("stands for too long a text".to_owned());
            }
        }
        out.push_str(rest);
        if out.len() > LENGTH_LIMIT {
            return Err("stands for too long a text".to_owned());
        }
        Ok(out)
    }

    /// What stands between the braces: `name`, `name?text`, `name:text`, `name?{x}:{y}`.
    fn expand_braces(&self, inside: &str, stress: bool, depth: u32) -> Result<String, String> {
        let length = inside.bytes().take_while(|byte| is_name_byte(*byte)).count();
        let (name, operation) = inside.split_at_checked(length).unwrap_or((inside, ""));
        if name.is_empty() {
            return Err(format!("comparisons are not known: {inside:?}"));
        }
        let operation = operation.trim_start();
        if operation.is_empty() {
            return self.expand_name(name, stress, depth);
        }
        let filled = !self.expand_name(name, stress, depth)?.is_empty();
        let (yes, no) = if let Some(text) = operation.strip_prefix('?') {
            let text = text.trim_start();
            match enclosed(text).filter(|_| text.starts_with('{')) {
                Some((yes, after)) => {
                    let no = after.trim_start().strip_prefix(':').map(str::trim_start);
                    let no = no.map(|no| enclosed(no).filter(|_| no.starts_with('{')).map_or(no, |(inside, _)| inside));
                    (Some(yes), no)
                }
                None => (Some(text), None),
            }
        } else if let Some(text) = operation.strip_prefix(':') {
            let text = text.trim_start();
            (None, Some(enclosed(text).filter(|_| text.starts_with('{')).map_or(text, |(inside, _)| inside)))
        } else {
            return Err(format!("is not understood: {inside:?}"));
        };
        match if filled { yes } else { no } {
            Some(text) => self.expand(text.trim(), stress, depth + 1),
            None => Ok(String::new()),
        }
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| is_name_byte(byte) || byte == b'-' || byte == b'.')
}

/// What stands in the bracket that `text` begins with, and what follows it.
pub(super) fn enclosed(text: &str) -> Option<(&str, &str)> {
    let (open, close) = if text.starts_with('{') { ('{', '}') } else { ('(', ')') };
    let mut depth = 0usize;
    for (at, letter) in text.char_indices() {
        if letter == open {
            depth += 1;
        } else if letter == close {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some((text.get(1..at)?, text.get(at + 1..)?));
            }
        }
    }
    None
}

/// Words separated by commas and white space; what braces enclose belongs to one word.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut depth = 0usize;
    for letter in text.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && (letter == ',' || letter.is_ascii_whitespace()) {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(letter);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
