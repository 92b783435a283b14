//! The packet decoder that runs in the kernel.

#![no_main]

use libfuzzer_sys::fuzz_target;
use screen_common::packet::{Decoded, decode};

fn is_mail(port: u16) -> bool {
    port == 25 || port == 587
}

fn is_odd(number: u32) -> bool {
    number % 2 == 1
}

fuzz_target!(|frame: &[u8]| {
    let decoded = decode(frame, is_mail, is_odd);
    assert_eq!(decoded, decode(frame, is_mail, is_odd));
    // Short frames are filled up on the wire: what follows the packet does not matter.
    let padded = [frame, &[0xa5; 64]].concat();
    if let Decoded::Opening(opening) = decoded {
        assert!(is_mail(opening.destination_port));
        assert_eq!(decode(padded.as_slice(), is_mail, is_odd), decoded, "padding changed the answer");
        assert_eq!(decode(frame, |_| false, is_odd), Decoded::NotOurs, "no port is protected");
        let ports = [opening.source_port.to_be_bytes(), opening.destination_port.to_be_bytes()].concat();
        assert!(frame.windows(4).any(|window| window == ports), "ports that are not in the frame");
    }
    for end in 0..frame.len() {
        if let cut @ Decoded::Opening(_) = decode(&frame[..end], is_mail, is_odd) {
            assert_eq!(cut, decoded, "the first {end} bytes say something else");
        }
    }
});
