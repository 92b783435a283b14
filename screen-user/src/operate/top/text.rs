//! Text for the terminal: what others have said is made harmless, numbers are made short.

use std::fmt::Write as _;

/// `text` without anything that could steer a terminal or turn the direction of writing: that is shown as `\u{..}`.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if c.is_control() || turns {
            // Writing to a String cannot fail.
            let _ = write!(shown, "{}", c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A rate or count in at most five characters or so: `0.3`, `27`, `1.4k`, `2.0M`.
pub(super) fn short(number: f64) -> String {
    match number {
        n if n < 0.05 => "0".to_owned(),
        n if n < 9.95 => format!("{n:.1}"),
        n if n < 9_999.5 => format!("{n:.0}"),
        n if n < 999_950.0 => format!("{:.1}k", n / 1e3),
        n => format!("{:.1}M", n / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        assert_eq!(harmless("a\u{1b}[31mb\r\n\u{9b}2J\u{202e}c"), "a\\u{1b}[31mb\\u{d}\\u{a}\\u{9b}2J\\u{202e}c");
        assert_eq!(harmless("übung.example"), "übung.example");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.26, 9.97, 1234.0, 12_345.0, 2e6].map(short), ["0", "0.3", "10", "1234", "12.3k", "2.0M"]);
    }
}
