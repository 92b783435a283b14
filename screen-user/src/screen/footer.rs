//! The reject footer (spec 4.9).

use std::{fmt::Write as _, net::SocketAddr};

use jiff::{Timestamp, tz::TimeZone};

use super::log::{LogLine, address_text};

/// What the footer's variables stand for.
pub(super) struct Scope<'a> {
    /// `$client_address` and `$client_port`.
    pub(super) client: SocketAddr,
    /// `$server_name`.
    pub(super) server_name: &'a str,
    /// `$localtime`, in Unix seconds.
    pub(super) unix: u64,
    /// Where `$localtime` is local.
    pub(super) time_zone: &'a TimeZone,
}

/// Appends the footer to `reply`, one reply without its line end, and returns what there is to warn of.
/// A template with a syntax error adds nothing.
pub(super) fn append(reply: &mut String, template: &str, scope: &Scope<'_>) -> Vec<LogLine> {
    let mut warnings = Vec::new();
    let (glued, template) = template.strip_prefix("\\c").map_or((false, template), |rest| (true, rest));
    let Some(text) = expand(template, scope, &mut warnings) else {
        return Vec::new();
    };
    let mut pieces = text.split("\\n");
    let prefix = prefix_of(reply);
    let mut last_line = 0;
    if glued && let Some(first) = pieces.next() {
        reply.push_str(first);
    }
    for piece in pieces {
        // The line that was the last one so far is continued: its separator after the three digits becomes `-` (RFC 5321 section 4.2.1).
        if reply.is_char_boundary(last_line + 3)
            && reply.is_char_boundary(last_line + 4)
            && last_line + 4 <= reply.len()
        {
            reply.replace_range(last_line + 3..last_line + 4, "-");
        }
        reply.push_str("\r\n");
        last_line = reply.len();
        reply.push_str(&prefix);
        reply.push_str(piece);
    }
    warnings
}

/// The reply code with a space, and the enhanced status code with a space if there is one.
fn prefix_of(reply: &str) -> String {
    let mut words = reply.splitn(3, ' ');
    let code = words.next().unwrap_or_default();
    match words.next() {
        Some(word) if is_enhanced_code(word) => format!("{code} {word} "),
        _ => format!("{code} "),
    }
}

/// `class.subject.detail` (RFC 3463 section 2).
fn is_enhanced_code(word: &str) -> bool {
    let mut parts = word.split('.');
    let class = parts.next().is_some_and(|class| matches!(class, "2" | "4" | "5"));
    let number = |part: Option<&str>| {
        part.is_some_and(|part| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))
    };
    class && number(parts.next()) && number(parts.next()) && parts.next().is_none()
}

/// Replaces `$name` and `${name}`; nothing if a brace is not closed or a name is missing.
fn expand(template: &str, scope: &Scope<'_>, warnings: &mut Vec<LogLine>) -> Option<String> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        let from = from.get(1..)?;
        if let Some(after) = from.strip_prefix('$') {
            text.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match from.strip_prefix('{') {
            Some(braced) => braced.split_once('}')?,
            None => from.split_at(from.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(from.len())),
        };
        if name.is_empty() {
            return None;
        }
        value_of(name, scope, &mut text, warnings);
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

fn value_of(name: &str, scope: &Scope<'_>, text: &mut String, warnings: &mut Vec<LogLine>) {
    // Writing to a String cannot fail.
    let _ = match name {
        "client_address" => write!(text, "{}", address_text(scope.client.ip())),
        "client_port" => write!(text, "{}", scope.client.port()),
        "server_name" => text.write_str(scope.server_name),
        "localtime" => text.write_str(&local_time(scope)),
        _ => {
            warnings.push(LogLine::UnknownMacro { name: name.into() });
            Ok(())
        }
    };
}

fn local_time(scope: &Scope<'_>) -> String {
    let seconds = i64::try_from(scope.unix).unwrap_or(i64::MAX);
    let Ok(timestamp) = Timestamp::from_second(seconds) else {
        return String::new();
    };
    timestamp.to_zoned(scope.time_zone.clone()).strftime("%b %d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appended(reply: &str, template: &str) -> (String, Vec<String>) {
        let scope = Scope {
            client: "[2001:db8::9]:33115".parse().unwrap(),
            server_name: "mx.example.test",
            unix: 1_704_382_920,
            time_zone: &TimeZone::UTC,
        };
        let mut text = reply.to_owned();
        let warnings = append(&mut text, template, &scope);
        (text.replace("\r\n", "|"), warnings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn templates() {
        let rows = [
            ("421 4.7.0 Error", "one", "421-4.7.0 Error|421 4.7.0 one"),
            ("421 4.7.0 Error", r"one\ntwo\n", "421-4.7.0 Error|421-4.7.0 one|421-4.7.0 two|421 4.7.0 "),
            ("501 Syntax: HELO hostname", "one", "501-Syntax: HELO hostname|501 one"),
            ("421 mx.example.test Service", "one", "421-mx.example.test Service|421 one"),
            ("450 4.3.2 Later", r"\c. Call $server_name", "450 4.3.2 Later. Call mx.example.test"),
            ("450 4.3.2 Later", r"\c!\nmore", "450-4.3.2 Later!|450 4.3.2 more"),
            ("450 4.3.2 L", "${client_address}:$client_port", "450-4.3.2 L|450 4.3.2 2001:db8::9:33115"),
            ("450 4.3.2 L", "$localtime.", "450-4.3.2 L|450 4.3.2 Jan 04 15:42:00."),
            ("450 4.3.2 L", "$$5", "450-4.3.2 L|450 4.3.2 $5"),
            // A template that can't be read adds nothing.
            ("450 4.3.2 L", "${client_address", "450 4.3.2 L"),
            ("450 4.3.2 L", "5 $ 6", "450 4.3.2 L"),
        ];
        for (reply, template, text) in rows {
            assert_eq!(appended(reply, template), (text.to_owned(), Vec::new()), "{template}");
        }
    }

    #[test]
    fn unknown_names_are_warned_of() {
        let (text, warnings) = appended("450 4.3.2 L", "a${nonsense}b");
        assert_eq!(text, "450-4.3.2 L|450 4.3.2 ab");
        assert_eq!(warnings, ["unknown macro name \"nonsense\" in expansion request"]);
    }
}
