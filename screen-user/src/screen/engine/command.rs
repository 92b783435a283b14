//! Command verbs and words (RFC 5321 section 4.1.1, RFC 2034, RFC 3030, RFC 3207).

/// A known command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Helo,
    Ehlo,
    StartTls,
    XClient,
    XForward,
    Auth,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Etrn,
    Quit,
}

/// What log lines call a command that is not known.
pub(super) const UNKNOWN: &str = "UNIMPLEMENTED";

impl Verb {
    const ALL: [Self; 15] = [
        Self::Helo,
        Self::Ehlo,
        Self::StartTls,
        Self::XClient,
        Self::XForward,
        Self::Auth,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Bdat,
        Self::Rset,
        Self::Noop,
        Self::Vrfy,
        Self::Etrn,
        Self::Quit,
    ];

    /// The command's name; verbs are not sensitive to case.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Helo => "HELO",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::XClient => "XCLIENT",
            Self::XForward => "XFORWARD",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Bdat => "BDAT",
            Self::Rset => "RSET",
            Self::Noop => "NOOP",
            Self::Vrfy => "VRFY",
            Self::Etrn => "ETRN",
            Self::Quit => "QUIT",
        }
    }

    pub(super) fn of(word: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name().as_bytes().eq_ignore_ascii_case(word))
    }
}

/// The first word of `text`, and what follows the space after it. Only the space separates words; a tab does not.
pub(super) fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let start = text.iter().position(|&byte| byte != b' ').unwrap_or(text.len());
    let text = text.get(start..).unwrap_or_default();
    match text.iter().position(|&byte| byte == b' ') {
        Some(end) => (text.get(..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default()),
        None => (text, &[]),
    }
}

/// Whether a verb looks like the start of a message header: printable ASCII, perhaps tabs, then a colon (spec 4.6.2).
pub(super) fn is_header_like(verb: &[u8]) -> bool {
    let name = verb.iter().take_while(|&&byte| byte.is_ascii_graphic() && byte != b':').count();
    let tabs = verb.iter().skip(name).take_while(|&&byte| byte == b'\t').count();
    name > 0 && verb.get(name + tabs) == Some(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_not_sensitive_to_case() {
        assert_eq!(Verb::of(b"startTLS"), Some(Verb::StartTls));
        assert_eq!(Verb::of(b"BDAT"), Some(Verb::Bdat));
        assert_eq!(Verb::of(b"QUITS"), None);
        assert_eq!(Verb::of(b""), None);
    }

    #[test]
    fn only_spaces_separate_words() {
        assert_eq!(word(b"  MAIL  FROM:<a>"), (b"MAIL".as_slice(), b" FROM:<a>".as_slice()));
        assert_eq!(word(b"MAIL\tFROM"), (b"MAIL\tFROM".as_slice(), b"".as_slice()));
        assert_eq!(word(b"   "), (b"".as_slice(), b"".as_slice()));
    }

    #[test]
    fn what_looks_like_a_header() {
        for (verb, header) in [
            ("Subject:", true),
            ("foo:bar", true),
            ("x\t\t:", true),
            (":", false),
            ("\t:", false),
            ("Subject", false),
            ("a\tb:", false),
        ] {
            assert_eq!(is_header_like(verb.as_bytes()), header, "{verb}");
        }
        assert!(!is_header_like(b"\xc3\xa9:"));
    }
}
