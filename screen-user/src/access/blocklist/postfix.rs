//! What a Postfix cidr table says of clients, read as a deny list.

use super::gathering::{At, Gathering};
use crate::access::{cidr, segments};

/// What an action of access(5) means to a deny list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The client is turned away for good.
    Denied,
    /// It is not, whatever later rules say.
    NotDenied,
    /// Something else, which a deny list can't do: turning the client away for good would be more than the table says.
    Other,
}

/// Reads a table: by first match, what it turns away for good.
pub(super) fn read(gathering: &mut Gathering<'_>, text: &str) {
    let (table, warnings) = cidr::Table::parse(text);
    for warning in warnings {
        gathering.refuse(At::Line(warning.line as usize), warning.message);
    }
    for (line, result) in table.rules() {
        if meaning(result) == Meaning::Other {
            let action = result.split_whitespace().next().unwrap_or_default();
            let why =
                format!("{} does not turn clients away for good: these are not denied", super::read::quoted(action));
            gathering.refuse(At::Line(line as usize), why);
        }
    }
    for net in table.networks_whose(|result| meaning(result) == Meaning::Denied) {
        gathering.add(segments::span(net));
    }
}

fn meaning(result: &str) -> Meaning {
    let action = result.split_whitespace().next().unwrap_or_default();
    let is = |words: &[&str]| words.iter().any(|word| action.eq_ignore_ascii_case(word));
    let number = !action.is_empty() && action.bytes().all(|byte| byte.is_ascii_digit());
    if is(&["reject"]) || is_reply_code(action) && action.starts_with('5') {
        Meaning::Denied
    // A number that is no reply code is what tables made from other files hold, and means OK.
    } else if is(&["ok", "permit", "dunno"]) || number && !is_reply_code(action) {
        Meaning::NotDenied
    } else {
        Meaning::Other
    }
}

/// Whether this line of a list that may be anything is a rule of a table.
pub(super) fn is_rule(line: &str) -> bool {
    // Words that nobody would put behind an address as a comment.
    const ACTIONS: [&str; 8] =
        ["reject", "ok", "dunno", "permit", "discard", "defer", "defer_if_permit", "defer_if_reject"];
    let mut words = line.split_whitespace();
    let Some(pattern) = words.next() else { return false };
    if pattern.eq_ignore_ascii_case("if") {
        return true;
    }
    let negated = pattern.starts_with('!');
    cidr::parse_network(pattern.trim_start_matches('!')).is_ok()
        && (negated
            || words.next().is_some_and(|action| {
                ACTIONS.iter().any(|known| action.eq_ignore_ascii_case(known))
                    // A number alone may count something.
                    || is_reply_code(action) && words.next().is_some()
            }))
}

fn is_reply_code(word: &str) -> bool {
    word.len() == 3 && word.starts_with(['4', '5']) && word.bytes().all(|byte| byte.is_ascii_digit())
}
