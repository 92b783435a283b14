//! What an error of Redis means. Commands that were sent together may fail one by one: the first one that did counts.

use redis::{RedisError, ServerError};

use super::server::Address;

/// An error, and what is to be done about it.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Who has the keys instead.
    pub(super) elsewhere: Option<Address>,
    /// The server is fine and says no to this: a new connection would hear the same.
    pub(super) lasts: bool,
    /// For people.
    pub(super) text: String,
}

impl Refusal {
    /// What `error`, which came from `asked`, means.
    pub(super) fn of(error: &RedisError, asked: &Address) -> Self {
        let Some(error) = first(error) else {
            return Self { elsewhere: None, lasts: false, text: error.to_string() };
        };
        let details = error.details().unwrap_or_default();
        Self {
            elsewhere: elsewhere(&error).and_then(|node| Address::of_node(node, asked)),
            lasts: matches!(error.code(), "OOM" | "NOPERM" | "ERR"),
            text: format!("{} {details}", error.code()).trim_end().to_owned(),
        }
    }

    /// Whether a server was asked for a script that it does not have.
    pub(super) fn is_no_script(error: &RedisError) -> bool {
        first(error).is_some_and(|error| error.code() == "NOSCRIPT")
    }
}

pub(super) fn first(error: &RedisError) -> Option<ServerError> {
    error.clone().into_server_errors().and_then(|errors| errors.first().map(|(_, error)| error.clone()))
}

/// `MOVED SLOT NODE` and `ASK SLOT NODE` (Redis cluster specification).
fn elsewhere(error: &ServerError) -> Option<&str> {
    let details = error.details().filter(|_| matches!(error.code(), "MOVED" | "ASK"))?;
    details.split_ascii_whitespace().nth(1)
}
