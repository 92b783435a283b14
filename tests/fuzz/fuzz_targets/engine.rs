//! Line splitter and dummy engine: however the input is cut into reads, it means the same.

#![no_main]

use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use screen_fuzz::{Watched, World, deep_tests, policy};
use screen_user::screen::{
    READ_LIMIT,
    event::{Event, Standing},
    policy::{Action, Policy, TlsLevel},
};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    soft_bounce: bool,
    helo_required: bool,
    tls: bool,
    short_lines: bool,
    cuts: [u8; 4],
    bytes: &'a [u8],
}

/// Without the pipelining test, which is about pieces, and without drops, after which the rest is not looked at.
fn rules(input: &Input<'_>) -> Policy {
    let mut policy = policy();
    policy.pregreet.teaser.clear();
    for test in deep_tests(&mut policy) {
        test.enabled = true;
        test.action = Action::Ignore;
    }
    policy.pipelining.enabled = false;
    policy.tls = if input.tls { TlsLevel::May } else { TlsLevel::None };
    policy.smtp.soft_bounce = input.soft_bounce;
    policy.smtp.helo_required = input.helo_required;
    if input.short_lines {
        policy.smtp.line_length_limit = 64;
    }
    policy
}

fn hear<'a>(rules: &Policy, pieces: impl IntoIterator<Item = &'a [u8]>) -> (String, Vec<String>, bool) {
    let mut world = World::new(rules.clone());
    let mut watched = Watched::connect(&mut world, "192.0.2.9:33115", Standing::Unlisted);
    let mut heard = String::new();
    for read in pieces.into_iter().flat_map(|piece| piece.chunks(READ_LIMIT)) {
        heard.push_str(&watched.tell(&mut world, Event::Received(read)));
    }
    let (logged, ended) = (watched.logged().to_vec(), watched.has_ended());
    watched.offer_recipient(&mut world, b"<inbox@example.test>");
    watched.run_out(&mut world);
    world.assert_empty();
    (heard, logged, ended)
}

fuzz_target!(|input: Input<'_>| {
    let rules = rules(&input);
    let whole = hear(&rules, [input.bytes]);
    let mut pieces = Vec::new();
    let mut rest = input.bytes;
    for cut in input.cuts {
        let (piece, after) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    assert_eq!(whole, hear(&rules, pieces), "as it was cut");
    assert_eq!(whole, hear(&rules, input.bytes.split_inclusive(|byte| *byte == b'\n')), "line by line");
    assert_eq!(whole, hear(&rules, input.bytes.chunks(1)), "byte by byte");
});
