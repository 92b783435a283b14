//! The decisions that both halves must take alike, as functions of plain values.

use crate::abi::{Bucket, HalfOpen};

/// What a class byte says of an IPv4 /24.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Nothing in it is denied.
    Clear,
    /// All of it is denied, for good, by this class.
    Listed(u8),
    /// Some of it is denied, or all of it for a time: single addresses and prefixes tell.
    Further,
}

/// The byte of [`Class::Further`].
pub const FURTHER: u8 = 0xff;
/// The highest class number.
pub const MAX_CLASS: u8 = FURTHER - 1;

impl Class {
    /// The meaning of a byte of the table.
    #[inline(always)]
    #[must_use]
    pub const fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Clear,
            FURTHER => Self::Further,
            class => Self::Listed(class),
        }
    }
}

/// Whether something that expires at `expires_ns` still holds.
#[inline(always)]
#[must_use]
pub const fn holds(expires_ns: u64, now_ns: u64) -> bool {
    expires_ns > now_ns
}

/// How long an admitted SYN counts as a connection to come.
///
/// A handshake over the slowest path takes less; SYNs that come to nothing (spoofed ones above all) must be forgotten soon.
pub const PENDING_NS: u64 = 3_000_000_000;

/// The least time after which the same SYN counts as sent again. The first retransmission comes after one second (RFC 6298
/// section 2.1); a duplicate made on the way comes at once.
pub const REPEAT_MIN_NS: u64 = 500_000_000;
/// The most time after which the same SYN counts as sent again.
pub const REPEAT_MAX_NS: u64 = 30_000_000_000;

/// SYNs of a client that still count as connections to come.
#[inline(always)]
#[must_use]
pub const fn pending(half_open: &HalfOpen, now_ns: u64) -> u64 {
    // Two processors that take one away at once leave a number below zero.
    if now_ns.saturating_sub(half_open.last_syn_ns) > PENDING_NS || half_open.pending > i64::MAX as u64 {
        0
    } else {
        half_open.pending
    }
}

/// What becomes of a SYN under the limit on a client's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may become a connection.
    Admit,
    /// The client has all the connections that it may have, made or to come.
    Limited,
    /// The client has as many unanswered SYNs as a stranger may have; if it is real it sends this one again.
    Unproven,
}

/// Decides on a SYN of a client with `active` connections and `pending` to come, under `limit` (0: none).
///
/// Every admitted SYN takes one of the client's `limit` places until its connection is made or [`PENDING_NS`] have passed, so that
/// a burst of SYNs ahead of the first ACK does not overshoot: `active + pending` never exceeds the limit. But a SYN proves nothing
/// of its source: someone else could fill a victim's places with SYNs in its name. Therefore SYNs seen for the first time may take
/// at most half of the places (at least one); the other half is for SYNs that were seen before (`seen_before`): a real client
/// repeats its SYN a second later, a blind flood does not. A client that opens more than half its limit at once pays a second.
#[inline(always)]
#[must_use]
pub fn admission(active: u64, pending: u64, limit: u32, seen_before: impl FnOnce() -> bool) -> Admission {
    if limit == 0 {
        return Admission::Admit;
    }
    if active.saturating_add(pending) >= limit as u64 {
        return Admission::Limited;
    }
    if pending >= unproven_share(limit) && !seen_before() {
        return Admission::Unproven;
    }
    Admission::Admit
}

/// How many places of `limit` SYNs may take that were seen for the first time.
#[inline(always)]
#[must_use]
pub const fn unproven_share(limit: u32) -> u64 {
    let half = limit as u64 / 2;
    if half == 0 { 1 } else { half }
}

/// Whether a SYN first seen at `first_ns` and now again was sent again by its source.
#[inline(always)]
#[must_use]
pub const fn repeated(first_ns: u64, now_ns: u64) -> bool {
    let age = now_ns.saturating_sub(first_ns);
    age >= REPEAT_MIN_NS && age <= REPEAT_MAX_NS
}

const SECOND_NS: u64 = 1_000_000_000;

impl Bucket {
    /// Takes a token for an event; `rate` tokens a second come in, and a second's worth is kept at most. Returns how many events
    /// were left out before this one, or `None` if this one is left out too.
    #[inline(always)]
    pub fn take(&mut self, now_ns: u64, rate: u32) -> Option<u32> {
        let elapsed = now_ns.saturating_sub(self.refilled_ns);
        if elapsed >= SECOND_NS {
            self.tokens = rate as u64;
            self.refilled_ns = now_ns;
        } else {
            let fresh = elapsed * rate as u64 / SECOND_NS;
            // The clock is set on only when tokens came of it, or a slow rate would never get any.
            if fresh > 0 {
                let filled = self.tokens + fresh;
                self.tokens = if filled > rate as u64 { rate as u64 } else { filled };
                self.refilled_ns = now_ns;
            }
        }
        if self.tokens == 0 {
            self.suppressed += 1;
            return None;
        }
        self.tokens -= 1;
        let left_out = self.suppressed;
        self.suppressed = 0;
        Some(if left_out > u32::MAX as u64 { u32::MAX } else { left_out as u32 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn class_bytes() {
        assert_eq!(Class::of(0), Class::Clear);
        assert_eq!(Class::of(1), Class::Listed(1));
        assert_eq!(Class::of(MAX_CLASS), Class::Listed(254));
        assert_eq!(Class::of(FURTHER), Class::Further);
    }

    #[test]
    fn the_limit_counts_made_and_coming_connections() {
        assert_eq!(admission(50, 0, 50, || true), Admission::Limited);
        assert_eq!(admission(49, 1, 50, || true), Admission::Limited);
        assert_eq!(admission(49, 0, 50, || false), Admission::Admit);
        assert_eq!(admission(1_000_000, 1_000_000, 0, || false), Admission::Admit);
        assert_eq!(admission(0, 0, 1, || false), Admission::Admit);
        assert_eq!(admission(0, 1, 1, || true), Admission::Limited);
    }

    #[test]
    fn unproven_syns_leave_half_of_the_places_to_repeated_ones() {
        assert_eq!(admission(0, 24, 50, || false), Admission::Admit);
        assert_eq!(admission(0, 25, 50, || false), Admission::Unproven);
        assert_eq!(admission(0, 25, 50, || true), Admission::Admit);
        assert_eq!(admission(25, 25, 50, || true), Admission::Limited);
    }

    #[test]
    fn pending_is_forgotten() {
        let half_open = HalfOpen { pending: 7, last_syn_ns: 10 };
        assert_eq!(pending(&half_open, 10 + PENDING_NS), 7);
        assert_eq!(pending(&half_open, 11 + PENDING_NS), 0);
        assert_eq!(pending(&half_open, 0), 7);
        assert_eq!(pending(&HalfOpen { pending: u64::MAX, last_syn_ns: 10 }, 10), 0);
    }

    #[test]
    fn a_duplicate_is_not_a_repetition() {
        assert!(!repeated(1_000, 1_000));
        assert!(repeated(0, REPEAT_MIN_NS) && repeated(0, REPEAT_MAX_NS));
        assert!(!repeated(0, REPEAT_MAX_NS + 1));
    }

    proptest! {
        #[test]
        fn bursts_never_overshoot(limit in 1u32..200, steps in prop::collection::vec((any::<bool>(), any::<bool>()), 0..600)) {
            let (mut active, mut pending) = (0u64, 0u64);
            for (syn, seen) in steps {
                if syn {
                    if admission(active, pending, limit, || seen) == Admission::Admit {
                        pending += 1;
                    }
                } else if pending > 0 {
                    pending -= 1;
                    active += 1;
                }
                prop_assert!(active + pending <= limit as u64);
            }
        }

        #[test]
        fn a_bucket_accounts_for_every_event(rate in 0u32..50, gaps in prop::collection::vec(0u64..400_000_000, 0..300)) {
            let mut bucket = Bucket::default();
            let (mut now, mut sent, mut reported) = (5 * SECOND_NS, 0u64, 0u64);
            for gap in &gaps {
                now += gap;
                if let Some(left_out) = bucket.take(now, rate) {
                    sent += 1;
                    reported += left_out as u64;
                }
            }
            prop_assert_eq!(sent + reported + bucket.suppressed, gaps.len() as u64);
            let seconds = (now - 5 * SECOND_NS) / SECOND_NS;
            prop_assert!(sent <= rate as u64 * (seconds + 2));
        }
    }
}
