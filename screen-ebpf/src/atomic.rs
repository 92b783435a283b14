//! Additions that several processors may do at once; the compiler has none for this target.

use core::arch::asm;

/// Adds `value` to the counter at `counter`.
#[inline(always)]
pub(crate) fn add(counter: *mut u64, value: u64) {
    // SAFETY: callers pass a field of a map value that the verifier has seen looked up.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {value}", counter = in(reg) counter, value = in(reg) value);
    }
}

/// Adds `value` to the counter at `counter` and returns what it was before.
#[inline(always)]
pub(crate) fn fetch_add(counter: *mut u64, value: u64) -> u64 {
    let mut before = value;
    // SAFETY: as above.
    unsafe {
        asm!(
            "{before} = atomic_fetch_add((u64 *)({counter} + 0), {before})",
            counter = in(reg) counter,
            before = inout(reg) before,
        );
    }
    before
}

/// Takes one from the counter at `counter`, unless it is zero.
#[inline(always)]
pub(crate) fn take_one(counter: *mut u64) {
    // SAFETY: as above. Two processors may both see one and take two; readers count what is below zero as zero.
    if unsafe { counter.read_volatile() } != 0 {
        add(counter, u64::MAX);
    }
}
