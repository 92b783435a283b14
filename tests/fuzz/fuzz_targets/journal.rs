//! Lines of a journal: whatever is read can be written and read again, and judged once more by any settings.

#![no_main]

use libfuzzer_sys::fuzz_target;
use screen_fuzz::{deep_tests, policy};
use screen_user::{
    journal::parse,
    screen::{Screen, policy::Policy, retrial::retry},
};

/// Settings by which sessions come to the dummy engine.
fn deep() -> Policy {
    let mut policy = policy();
    deep_tests(&mut policy).into_iter().for_each(|test| test.enabled = true);
    policy
}

fuzz_target!(|bytes: &[u8]| {
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(entry) = parse(line) else { continue };
        let written = entry.line().expect("a line");
        let again = written.strip_suffix(b"\n").and_then(parse);
        assert_eq!(again.as_ref(), Some(&entry));
        if let (Some(found), Some(case)) = (&entry.found, entry.case()) {
            let mut screen = Screen::new(deep());
            retry(&mut screen, &case, found.stood.standing());
            let left = screen.snapshot();
            assert_eq!((left.checking, left.forwarding, left.clients, left.records), (0, 0, 0, 0));
        }
    }
});
