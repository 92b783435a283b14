//! PROXY headers: what a header says does not depend on the pieces it comes in.

#![no_main]

use libfuzzer_sys::fuzz_target;
use screen_user::net::proxy::{MOST_V1, MOST_V2, Parsed, Reason, parse, unfinished};

fuzz_target!(|bytes: &[u8]| {
    // Longer input has a header at its start, or has none.
    let bytes = &bytes[..bytes.len().min(MOST_V2 + 64)];
    let mut settled: Option<Parsed> = None;
    for end in 0..=bytes.len() {
        let seen = &bytes[..end];
        let parsed = parse(seen);
        match (settled, parsed) {
            (None, Parsed::NeedMore) => {
                assert!(end < MOST_V1.max(MOST_V2), "waits beyond the longest header");
                assert!(matches!(
                    unfinished(seen),
                    Reason::Eof | Reason::MissingTerminator | Reason::ShortHeader | Reason::ShortV2Header
                ));
            }
            (None, Parsed::Header { consumed, source }) => {
                assert_eq!(consumed, end, "taken as a header a byte too late, or too early");
                if let Some((client, server)) = source {
                    assert_eq!((client.ip(), server.ip()), (client.ip().to_canonical(), server.ip().to_canonical()));
                }
                settled = Some(parsed);
            }
            (None, Parsed::Bad(_)) => settled = Some(parsed),
            (Some(Parsed::Bad(Reason::ShortHeader)), Parsed::Bad(Reason::ShortHeader | Reason::UnrecognizedHeader)) => {
            }
            (Some(before), now) => assert_eq!(before, now, "more bytes changed the answer"),
        }
    }
});
