//! What a denied client is told behind the code 521.

use screen_common::reply::Text;

/// What such a text must be, for messages.
pub const REPLY_TEXT: &str = "it must be one line of printable ASCII, 82 characters at most, that begins with 5.x.x and does not end with a space";

/// Whether clients can be told this text: as [`REPLY_TEXT`] says.
#[must_use]
pub fn is_reply_text(text: &str) -> bool {
    Text::new(&format!("521 {text}")).is_some() && !text.ends_with(' ') && is_enhanced(text)
}

/// Whether a text begins with an enhanced status code of a permanent failure (RFC 3463 section 2).
fn is_enhanced(text: &str) -> bool {
    let code = text.split(' ').next().unwrap_or_default();
    let mut numbers = code.split('.');
    let number = |part: Option<&str>| {
        part.is_some_and(|part| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    numbers.next() == Some("5") && number(numbers.next()) && number(numbers.next()) && numbers.next().is_none()
}
