//! Made-up sources, the same for the program that sends and for the lists that deny them: number `n` of a kind, no two alike.

/// Kinds of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// No list: any address of 64.0.0.0/3.
    Any = 0,
    /// Single addresses.
    Exact = 1,
    /// Prefixes as block lists have them: of ten, eight /24, one /20 and one /28.
    Prefixes = 2,
    /// Prefixes of the kind that costs most: /25 to /31.
    Long = 3,
}

impl Kind {
    /// The kind with this number.
    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    #[must_use]
    pub(crate) const fn of(number: u32) -> Self {
        match number {
            1 => Self::Exact,
            2 => Self::Prefixes,
            3 => Self::Long,
            _ => Self::Any,
        }
    }
}

/// Mixes the places up; odd, so that no two numbers come to the same place whatever bits are cut off above.
const SPREAD: u32 = 0x9e37_79b1;

/// Prefix number `number` of a kind: its address and its bits.
#[inline(always)]
#[must_use]
pub(crate) const fn prefix(kind: Kind, number: u32) -> (u32, u32) {
    // Not 0.0.0.0, which some take for no address.
    let place = number.wrapping_add(1).wrapping_mul(SPREAD);
    match kind {
        Kind::Any => (0x4000_0000, 3),
        Kind::Exact => (place, 32),
        Kind::Prefixes => match number % 10 {
            // In a half of their own, so that no prefix holds another: some can't have that.
            0 => ((place << 12) & 0x7fff_f000, 20),
            1 => ((place << 8) | 0x8000_0000, 28),
            _ => ((place << 8) | 0x8000_0000, 24),
        },
        Kind::Long => (place << 7, 25 + number % 7),
    }
}

/// An address in prefix number `number` of a kind, by the lowest bits of `random`.
#[inline(always)]
#[must_use]
pub(crate) const fn address(kind: Kind, number: u32, random: u32) -> u32 {
    let (network, bits) = prefix(kind, number);
    // A shift by all 32 bits is none for the processor.
    if bits >= 32 { network } else { network | (random & (u32::MAX >> bits)) }
}
