//! `docs/doctor.md` has everything that the doctor finds fault with, as far as its sources tell.

use screen_tests::documents::Page;

use super::sources::{sources, texts};

/// What stands before a text that a finding says, or a part of one; but for those that all is well.
const FINDING: &str =
    r#"(?:Grade::(?:Wrong|Note|Unknown),|let what =|let \(why, mend\) =|=> \{?\s*\(|\(why,)\s*(?:&?format!\()?\s*"#;

#[test]
fn everything_that_the_doctor_finds_is_explained() {
    let page = Page::read("docs/doctor.md").text;
    let of_the_doctor = sources().into_iter().filter(|(file, _)| file.contains("/doctor/"));
    let mut found = 0;
    let mut missing = Vec::new();
    for (file, source) in of_the_doctor {
        for text in texts(FINDING, &source) {
            found += 1;
            if !page.contains(&text) {
                missing.push(format!("{file}: {text}"));
            }
        }
    }
    assert!(found > 40, "the sources have {found} findings");
    assert_eq!(missing, [""; 0], "findings that docs/doctor.md does not have");
}
