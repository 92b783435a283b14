//! Cuts input into lines and keeps the evidence of how each one ended (RFC 5321 section 2.3.8).

/// The input that is not a complete line yet. Holds at most one line's limit of bytes.
#[derive(Debug, Default)]
pub(super) struct Lines {
    held: Vec<u8>,
    /// Whether what is held was given out as a line, and goes with the next step.
    spent: bool,
}

/// One line without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The bytes before CR LF, or before LF alone. A CR that no LF follows is one of them.
    pub(super) text: &'a [u8],
    /// Whether the line ended with LF alone.
    pub(super) bare_newline: bool,
    /// The line with its end, as it came.
    pub(super) whole: &'a [u8],
}

/// What the next part of the input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A complete line.
    Line(Line<'a>),
    /// A line longer than the limit.
    TooLong,
    /// Part of a line, which is kept.
    NeedMore,
}

impl Lines {
    pub(super) fn kept_bytes(&self) -> usize {
        self.held.len()
    }

    /// The line that is not complete yet.
    pub(super) fn unfinished(&self) -> &[u8] {
        if self.spent { &[] } else { &self.held }
    }

    /// Takes the next line off `input`. `limit` counts a line's end too.
    pub(super) fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8], limit: usize) -> Step<'s> {
        if std::mem::take(&mut self.spent) {
            self.held.clear();
        }
        let end = input.iter().position(|&byte| byte == b'\n');
        let (part, rest) = input.split_at_checked(end.map_or(input.len(), |end| end + 1)).unwrap_or((input, &[]));
        if self.held.len() + part.len() > limit {
            return Step::TooLong;
        }
        *input = rest;
        if end.is_none() {
            self.held.extend_from_slice(part);
            return Step::NeedMore;
        }
        if self.held.is_empty() {
            return Step::Line(Line::of(part));
        }
        self.held.extend_from_slice(part);
        self.spent = true;
        Step::Line(Line::of(&self.held))
    }
}

impl<'a> Line<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        match bytes {
            [text @ .., b'\r', b'\n'] => Self { text, bare_newline: false, whole: bytes },
            [text @ .., b'\n'] => Self { text, bare_newline: true, whole: bytes },
            text => Self { text, bare_newline: false, whole: bytes },
        }
    }

    /// The command in the line: a NUL ends it.
    pub(super) fn command(&self) -> &'a [u8] {
        self.text.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `reads` in turn; lines as text, a bare newline marked by `!`, what is too long by `#`.
    fn lines_of(reads: &[&[u8]], limit: usize) -> Vec<String> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for read in reads {
            let mut rest = *read;
            loop {
                match lines.next(&mut rest, limit) {
                    Step::Line(line) => {
                        let mark = if line.bare_newline { "!" } else { "" };
                        seen.push(format!("{}{mark}", String::from_utf8_lossy(line.text)));
                    }
                    Step::TooLong => {
                        seen.push("#".into());
                        return seen;
                    }
                    Step::NeedMore => break,
                }
            }
            assert!(lines.kept_bytes() <= limit);
        }
        seen
    }

    #[test]
    fn line_ends() {
        assert_eq!(lines_of(&[b"a\r\nb\nc\r\r\n\r\n\nd"], 100), ["a", "b!", "c\r", "", "!"]);
        // The end of a line may itself be cut in two.
        assert_eq!(lines_of(&[b"a\r", b"\nb", b"\n\r", b"\n"], 100), ["a", "b!", ""]);
        assert_eq!(lines_of(&[b"a\rb\r\n"], 100), ["a\rb"]);
    }

    #[test]
    fn the_limit_counts_the_end() {
        assert_eq!(lines_of(&[b"abc\r\nabc\r\n"], 5), ["abc", "abc"]);
        assert_eq!(lines_of(&[b"abcd\r\n"], 5), ["#"]);
        assert_eq!(lines_of(&[b"abcde", b"f"], 5), ["#"]);
        assert_eq!(lines_of(&[b"abcde"], 5), Vec::<String>::new());
    }

    #[test]
    fn a_nul_ends_the_command() {
        let line = Line::of(b"NOOP\0QUIT\r\n");
        assert_eq!(line.command(), b"NOOP");
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_or_kept_beyond_the_limit(reads in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100), 0..8)) {
            let reads: Vec<&[u8]> = reads.iter().map(Vec::as_slice).collect();
            let whole = reads.concat();
            let seen = lines_of(&reads, 1000);
            proptest::prop_assert_eq!(seen.len(), whole.iter().filter(|&&byte| byte == b'\n').count());
        }
    }
}
