//! Addresses as map keys: sixteen bytes in network order, IPv4 as IPv4-mapped IPv6.

/// An address or a prefix's first address; IPv4 is written as `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpKey {
    /// Network order.
    pub address: [u8; 16],
}

/// How many bits of a key stand before an IPv4 address.
pub const MAPPED_BITS: u8 = 96;

impl IpKey {
    /// The key of an IPv4 address, in network order.
    #[inline(always)]
    #[must_use]
    pub const fn from_ipv4(octets: [u8; 4]) -> Self {
        Self::from_halves(0, 0xffff << 32 | u32::from_be_bytes(octets) as u64)
    }

    /// The key of an IPv6 address, in network order.
    #[inline(always)]
    #[must_use]
    pub const fn from_ipv6(octets: [u8; 16]) -> Self {
        Self { address: octets }
    }

    /// The IPv4 address, if it is one.
    #[inline(always)]
    #[must_use]
    pub const fn ipv4(&self) -> Option<[u8; 4]> {
        let (high, low) = self.halves();
        if high == 0 && low >> 32 == 0xffff { Some((low as u32).to_be_bytes()) } else { None }
    }

    /// The prefix of `bits` bits (of the 128 of the key; more means all) that holds this address.
    #[inline(always)]
    #[must_use]
    pub const fn prefix(&self, bits: u8) -> Self {
        let (high, low) = self.halves();
        Self::from_halves(high & mask(bits), low & mask(bits.saturating_sub(64)))
    }

    /// A number that two addresses rarely have in common, in all of its bits. Not a secret: whoever tries finds addresses that share it.
    #[inline(always)]
    #[must_use]
    pub const fn digest(&self) -> u64 {
        // Odd constants of random bits; the high half of a product depends on all bits of its factors.
        let (high, low) = self.halves();
        let product = (high ^ 0x9e6c_63d0_876a_3f6b).wrapping_mul(0xb5ad_4ece_da1c_e2a9);
        let product = (product ^ product >> 32 ^ low).wrapping_mul(0xd129_0b26_88ce_5d35);
        product ^ product >> 32
    }

    /// The two halves as numbers.
    #[inline(always)]
    #[must_use]
    pub const fn halves(&self) -> (u64, u64) {
        let whole = u128::from_be_bytes(self.address);
        ((whole >> 64) as u64, whole as u64)
    }

    /// The key of two numbers.
    #[inline(always)]
    #[must_use]
    pub const fn from_halves(high: u64, low: u64) -> Self {
        // One number, as the compiler for the kernel would otherwise keep sixteen on the stack.
        Self { address: ((high as u128) << 64 | low as u128).to_be_bytes() }
    }
}

/// The upper `bits` bits of 64; 64 and more are all.
#[inline(always)]
const fn mask(bits: u8) -> u64 {
    // A shift by 64 is not defined, hence the first arm.
    if bits == 0 {
        0
    } else if bits >= 64 {
        u64::MAX
    } else {
        u64::MAX << (64 - bits)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_ipv4_key_is_its_mapped_address() {
        let address = Ipv4Addr::new(192, 0, 2, 7);
        let key = IpKey::from_ipv4(address.octets());
        assert_eq!(key.address, address.to_ipv6_mapped().octets());
        assert_eq!(key.ipv4(), Some(address.octets()));
        assert_eq!(IpKey::from_ipv6(Ipv6Addr::LOCALHOST.octets()).ipv4(), None);
    }

    proptest! {
        #[test]
        fn a_prefix_keeps_its_bits_and_clears_the_rest(address: [u8; 16], bits in 0u8..=200) {
            let kept = u32::from(bits.min(128));
            let mask = u128::MAX.checked_shl(128 - kept).unwrap_or(0);
            let expected = u128::from_be_bytes(address) & mask;
            prop_assert_eq!(IpKey { address }.prefix(bits).address, expected.to_be_bytes());
        }

        #[test]
        fn halves_and_back(address: [u8; 16]) {
            let key = IpKey { address };
            let (high, low) = key.halves();
            prop_assert_eq!(IpKey::from_halves(high, low), key);
        }
    }
}
