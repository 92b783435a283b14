//! One thing that was looked at, and how it is told.

use std::fmt::Write as _;

use serde::Serialize;

/// What is to be thought of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Grade {
    /// As it should be.
    Fine,
    /// Worth knowing; the gate does its work.
    Note,
    /// To be mended.
    Wrong,
    /// It could not be seen.
    Unknown,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What it belongs to.
    pub(super) subject: &'static str,
    /// What is to be thought of it.
    pub(super) grade: Grade,
    /// In one sentence, without a full stop.
    pub(super) what: String,
    /// The command, or the line of the configuration, that mends it.
    pub(super) mend: Option<String>,
}

impl Grade {
    const ALL: [Self; 4] = [Self::Fine, Self::Note, Self::Wrong, Self::Unknown];

    const fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Note => "note",
            Self::Wrong => "wrong",
            Self::Unknown => "unknown",
        }
    }
}

/// What belongs together stands together; subjects in the order in which they come first.
pub(super) fn by_subject(mut findings: Vec<Finding>) -> Vec<Finding> {
    let order: Vec<&str> = findings.iter().map(|finding| finding.subject).collect();
    findings.sort_by_key(|finding| order.iter().position(|subject| *subject == finding.subject));
    findings
}

/// For people: by subject, one line a finding, and how many there are of each grade.
pub(super) fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut subject = "";
    for finding in findings {
        if finding.subject != subject {
            subject = finding.subject;
            let _ = writeln!(text, "{subject}");
        }
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {:<8}{}", finding.grade.word(), finding.what);
        if let Some(mend) = &finding.mend {
            let _ = writeln!(text, "          mend: {mend}");
        }
    }
    let counts = Grade::ALL.map(|grade| {
        let count = findings.iter().filter(|finding| finding.grade == grade).count();
        format!("{count} {}", grade.word())
    });
    let _ = writeln!(text, "{}", counts.join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_told_of_once() {
        let of = |subject, what: &str| Finding { subject, grade: Grade::Fine, what: what.into(), mend: None };
        let findings = by_subject(vec![of("zones", "1"), of("gate", "2"), of("zones", "3"), of("gate", "4")]);
        assert_eq!(findings.iter().map(|finding| finding.what.as_str()).collect::<String>(), "1324");
    }

    #[test]
    fn findings_are_told_by_subject_and_counted() {
        let finding = |subject, grade, mend: Option<&str>| Finding {
            subject,
            grade,
            what: "it is so".into(),
            mend: mend.map(Into::into),
        };
        let findings = [
            finding("limits", Grade::Fine, None),
            finding("limits", Grade::Wrong, Some("do it")),
            finding("resolver", Grade::Note, None),
        ];
        let expected = "limits\n  fine    it is so\n  wrong   it is so\n          mend: do it\nresolver\n  note    it is so\n1 fine, 1 note, 1 wrong, 0 unknown\n";
        assert_eq!(text(&findings), expected);
    }
}
