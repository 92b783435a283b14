//! The options of a SYN's TCP header (RFC 9293 section 3.1).

use crate::packet::Frame;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const SEGMENT_SIZE: u8 = 2;
/// There is room for as many, at one byte each; the bound is for the verifier.
const MOST: usize = 40;

/// What a client takes that announces nothing (RFC 9293 section 3.7.1), over IPv4; over IPv6 it is more.
const DEFAULT_SEGMENT_SIZE: u16 = 536;

/// The most data that the client takes in a segment without options: what the options from `start` to `end` announce. As Linux does,
/// takes no notice of a size of zero.
#[inline(always)]
#[must_use]
pub fn segment_size<F: Frame + ?Sized>(frame: &F, start: usize, end: usize) -> u16 {
    let mut at = start;
    for _ in 0..MOST {
        if at + 4 > end {
            break;
        }
        let Some([kind, length, high, low]) = frame.read(at) else { break };
        match (kind, length) {
            (NO_OPERATION, _) => at += 1,
            (SEGMENT_SIZE, 4) if high | low != 0 => return u16::from_be_bytes([high, low]),
            // A length that does not even hold itself: nothing behind it can be told.
            (END, _) | (_, 0 | 1) => break,
            _ => at += length as usize,
        }
    }
    DEFAULT_SEGMENT_SIZE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(options: &[u8]) -> u16 {
        segment_size(options, 0, options.len())
    }

    #[test]
    fn what_stacks_send_is_read() {
        let linux = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
        let bsd = [2, 4, 5, 0xa0, 1, 3, 3, 6, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0];
        let windows = [2, 4, 5, 0x78, 1, 3, 3, 8, 1, 1, 4, 2];
        assert_eq!((size(&linux), size(&bsd), size(&windows)), (1460, 1440, 1400));
        assert_eq!(size(&[1, 1, 4, 2, 2, 4, 0, 48]), 48, "behind others");
        assert_eq!(size(&[[1; 36].as_slice(), &[2, 4, 0, 64]].concat()), 64, "in the last place");
    }

    #[test]
    fn without_an_announcement_it_is_the_default() {
        for options in [
            &[][..],
            &[1, 1, 1, 1],
            &[0, 0, 0, 0, 2, 4, 0, 48],
            &[8, 0, 2, 4, 0, 48, 0, 0],
            &[8, 200, 2, 4, 0, 48, 0, 0],
            &[2, 4, 0, 0],
            &[1, 2, 4, 0],
        ] {
            assert_eq!(size(options), DEFAULT_SEGMENT_SIZE, "{options:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_beyond_the_options_is_read(options in prop::collection::vec(any::<u8>(), 0..=40), beyond: [u8; 8]) {
            let frame = [&options[..], &beyond].concat();
            prop_assert_eq!(segment_size(frame.as_slice(), 0, options.len()), size(&options));
        }
    }
}
