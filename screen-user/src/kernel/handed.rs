//! Descriptors that the service manager has handed over (sd_listen_fds(3)).

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether they have an owner by now.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes them; from the second time on there are none.
///
/// # Errors
/// The environment speaks of descriptors that are not there.
pub fn handed_over() -> io::Result<Vec<OwnedFd>> {
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    // SAFETY: they were open when this program was executed, are meant for it, and nobody else takes them: not here a second time, and
    // not by another program, as their environment is not handed on.
    Ok(sd_notify::listen_fds()?.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect())
}
