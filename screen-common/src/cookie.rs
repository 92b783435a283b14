//! Cookies: initial sequence numbers by which the gate knows what it answered, without keeping anything (RFC 4987 section 3.6).
//!
//! A cookie says which text the client is to get. Whoever acknowledges one has received it, so that nothing is ever sent to an address
//! that somebody else wrote into a SYN, but the SYN-ACK that carries the cookie.
//!
//! | bits | hold |
//! | --- | --- |
//! | 31 to 26 | a tag: by it alone most segments of established connections are known not to be meant |
//! | 25 to 22 | the text's number |
//! | 21 | the parity of the time slot |
//! | 20 to 0 | SipHash-1-3 of both addresses and ports, time slot and text, reduced so that adding [`REACH`] does not carry |

use crate::address::IpKey;

/// The upper six bits of every cookie. Nothing secret.
const TAG: u32 = 0b10_1101;
const TAG_SHIFT: u32 = 26;
const TEXT_SHIFT: u32 = 22;
const SLOT_SHIFT: u32 = 21;
const HASH_BITS: u32 = 21;

/// How far a client's acknowledgements may run ahead of a cookie: the SYN, the longest text and the FIN fit.
pub const REACH: u32 = 256;

/// How many texts there may be.
pub const TEXTS: usize = 16;

/// Nanoseconds of `CLOCK_MONOTONIC` to time slots of 68.7 s. A cookie is good in its slot and in the next.
const SLOT_NS_SHIFT: u32 = 36;

/// The secret keys: what cookies are made with, and what they were made with before.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keys {
    /// Nobody has been asked yet: 0. Programs answer nothing then.
    pub ready: u64,
    /// The present key.
    pub present: [u64; 2],
    /// The one before.
    pub former: [u64; 2],
}

const _: () = assert!(size_of::<Keys>() == 40);

/// The connection that a cookie is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The client.
    pub source: IpKey,
    /// The address that it meant.
    pub destination: IpKey,
    /// The client's port, host order.
    pub source_port: u16,
    /// The port that it meant, host order.
    pub destination_port: u16,
}

/// What an acknowledgement number says of a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// The text's number.
    pub text: u32,
    /// The cookie.
    pub cookie: u32,
    /// How many of the numbers behind the cookie and its SYN are acknowledged: bytes of the text, and the FIN.
    pub received: u32,
}

/// The cookie for a SYN on `path` at `now_ns`, which is to be answered with the text of this number (below [`TEXTS`]).
#[inline(always)]
#[must_use]
pub fn make(key: &[u64; 2], path: &Path, text: u32, now_ns: u64) -> u32 {
    let slot = now_ns >> SLOT_NS_SHIFT;
    upper(text, slot) | hash(key, path, text, slot)
}

/// Whether `acknowledgement` may follow a cookie: a cheap question, which segments of other connections answer with no, but for one in
/// sixty-four.
#[inline(always)]
#[must_use]
pub const fn may_follow(acknowledgement: u32) -> bool {
    acknowledgement.wrapping_sub(1) >> TAG_SHIFT == TAG
}

/// What was acknowledged, if it is a cookie for this path, made within the last two slots.
#[inline(always)]
#[must_use]
pub fn check(keys: &Keys, path: &Path, acknowledgement: u32, now_ns: u64) -> Option<Acknowledged> {
    let number = acknowledgement.wrapping_sub(1);
    if keys.ready == 0 || number >> TAG_SHIFT != TAG {
        return None;
    }
    let text = (number >> TEXT_SHIFT) & (TEXTS as u32 - 1);
    let slot = now_ns >> SLOT_NS_SHIFT;
    let slot = if (slot as u32 ^ (number >> SLOT_SHIFT)) & 1 == 0 { slot } else { slot.wrapping_sub(1) };
    let low = number & ((1 << HASH_BITS) - 1);
    let mut received = low.wrapping_sub(hash(&keys.present, path, text, slot));
    if received >= REACH {
        received = low.wrapping_sub(hash(&keys.former, path, text, slot));
    }
    if received >= REACH {
        return None;
    }
    Some(Acknowledged { text, cookie: number.wrapping_sub(received), received })
}

#[inline(always)]
const fn upper(text: u32, slot: u64) -> u32 {
    TAG << TAG_SHIFT | (text & (TEXTS as u32 - 1)) << TEXT_SHIFT | (slot as u32 & 1) << SLOT_SHIFT
}

#[inline(always)]
fn hash(key: &[u64; 2], path: &Path, text: u32, slot: u64) -> u32 {
    let (source_high, source_low) = path.source.halves();
    let (destination_high, destination_low) = path.destination.halves();
    let ports = (path.source_port as u64) << 16 | path.destination_port as u64;
    let words = [source_high, source_low, destination_high, destination_low, ports << 32 | text as u64, slot];
    let hash = siphash13(key, words) as u32;
    // A multiplication instead of a division: evenly from 0 to what leaves room for `REACH`.
    ((hash as u64 * ((1u64 << HASH_BITS) - REACH as u64)) >> 32) as u32
}

/// SipHash-1-3 of six words.
#[inline(always)]
fn siphash13(key: &[u64; 2], words: [u64; 6]) -> u64 {
    let [k0, k1] = *key;
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let [a, b, c, d, e, f] = words;
    absorb(&mut state, a);
    absorb(&mut state, b);
    absorb(&mut state, c);
    absorb(&mut state, d);
    absorb(&mut state, e);
    absorb(&mut state, f);
    // The length in bytes, in the last block's upper byte.
    absorb(&mut state, 48 << 56);
    let [v0, v1, v2, v3] = &mut state;
    *v2 ^= 0xff;
    round(v0, v1, v2, v3);
    round(v0, v1, v2, v3);
    round(v0, v1, v2, v3);
    *v0 ^ *v1 ^ *v2 ^ *v3
}

#[inline(always)]
fn absorb(state: &mut [u64; 4], word: u64) {
    let [v0, v1, v2, v3] = state;
    *v3 ^= word;
    round(v0, v1, v2, v3);
    *v0 ^= word;
}

#[inline(always)]
fn round(v0: &mut u64, v1: &mut u64, v2: &mut u64, v3: &mut u64) {
    *v0 = v0.wrapping_add(*v1);
    *v1 = v1.rotate_left(13) ^ *v0;
    *v0 = v0.rotate_left(32);
    *v2 = v2.wrapping_add(*v3);
    *v3 = v3.rotate_left(16) ^ *v2;
    *v0 = v0.wrapping_add(*v3);
    *v3 = v3.rotate_left(21) ^ *v0;
    *v2 = v2.wrapping_add(*v1);
    *v1 = v1.rotate_left(17) ^ *v2;
    *v2 = v2.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLOT: u64 = 1 << SLOT_NS_SHIFT;

    fn path(source: [u8; 4], port: u16) -> Path {
        Path {
            source: IpKey::from_ipv4(source),
            destination: IpKey::from_ipv4([192, 0, 2, 1]),
            source_port: port,
            destination_port: 25,
        }
    }

    proptest! {
        #[test]
        fn a_cookie_is_known_again_for_two_slots_and_after_one_change_of_keys(
            key: [u64; 2], other: [u64; 2], source: [u8; 4], port: u16, text in 0u32..TEXTS as u32,
            now in 3 * SLOT..u64::MAX / 2, age in 0..SLOT, received in 0..REACH,
        ) {
            let path = path(source, port);
            let cookie = make(&key, &path, text, now);
            let number = cookie.wrapping_add(1).wrapping_add(received);
            prop_assert!(may_follow(number));
            let expected = Some(Acknowledged { text, cookie, received });
            // By chance, one time in 8192, the other key makes sense of it too.
            let by_chance = check(&Keys { ready: 1, present: other, former: other }, &path, number, now + age);
            prop_assume!(by_chance.is_none());
            for keys in [
                Keys { ready: 1, present: key, former: other },
                Keys { ready: 1, present: other, former: key },
            ] {
                prop_assert_eq!(check(&keys, &path, number, now + age), expected);
            }
            prop_assert_eq!(check(&Keys { ready: 0, present: key, former: key }, &path, number, now), None);
        }
    }

    #[test]
    fn guesses_are_not_taken() {
        let keys = Keys { ready: 1, present: [1, 2], former: [3, 4] };
        // 2^16 guesses with the right tag: each is right with a chance of 2 · 256 in 2^21.
        let right = (0..1u32 << 16)
            .filter(|guess| {
                let number = TAG << TAG_SHIFT | guess.wrapping_mul(0x9e37_79b9) >> 6;
                check(&keys, &path([198, 51, 100, 7], 1), number, SLOT * 5).is_some()
            })
            .count();
        assert!(right < 64, "{right}");
    }

    #[test]
    fn an_old_cookie_another_client_and_another_port_are_refused() {
        let keys = Keys { ready: 1, present: [1, 2], former: [1, 2] };
        let now = SLOT * 10;
        let here = path([198, 51, 100, 7], 40_001);
        let number = make(&keys.present, &here, 1, now).wrapping_add(1);
        assert!(check(&keys, &here, number, now + SLOT).is_some());
        for (path, now) in
            [(here, now + 2 * SLOT), (path([198, 51, 100, 8], 40_001), now), (path([198, 51, 100, 7], 40_002), now)]
        {
            assert_eq!(check(&keys, &path, number, now), None);
        }
    }

    #[test]
    fn siphash_is_siphash() {
        // The reference implementation's SipHash-1-3 is the standard library's, whose keys are zero.
        use std::hash::{DefaultHasher, Hasher};
        let words = [1u64, 2, 3, 0xdead_beef, 5, u64::MAX];
        let mut reference = DefaultHasher::new();
        words.iter().for_each(|word| reference.write(&word.to_le_bytes()));
        assert_eq!(siphash13(&[0, 0], words), reference.finish());
    }
}
