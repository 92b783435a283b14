//! How many decisions of the kernel were not reported, for the log to say.

use crate::kernel::{Kernel, KernelError, Reason};

/// Reasons whose events become lines.
const LOGGED: [Reason; 5] = [Reason::Denied, Reason::Limited, Reason::PassOld, Reason::Allowed, Reason::LetIn];

/// Keeps account of the events that the kernel left out.
///
/// Each event says how many were left out before it on its processor, but the last ones of a flood would be told with the next
/// event on the same processor, which may be days away. The totals know at once.
pub(super) struct LeftOut {
    told: u64,
}

impl LeftOut {
    /// Begins with what was left out by now: a former gate's.
    ///
    /// # Errors
    ///
    /// The totals can't be read.
    pub(super) fn new(kernel: &Kernel) -> Result<Self, KernelError> {
        Ok(Self { told: in_all(kernel)? })
    }

    /// How many there are more than when this was asked last.
    ///
    /// # Errors
    ///
    /// The totals can't be read; what they would have said is told the next time.
    pub(super) fn since(&mut self, kernel: &Kernel) -> Result<u64, KernelError> {
        let now = in_all(kernel)?;
        Ok(now.saturating_sub(std::mem::replace(&mut self.told, now)))
    }
}

fn in_all(kernel: &Kernel) -> Result<u64, KernelError> {
    let totals = kernel.totals()?;
    Ok(totals.iter().filter(|(reason, _)| LOGGED.contains(reason)).map(|(_, total)| total.suppressed).sum())
}
