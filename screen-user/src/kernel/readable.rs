//! Descriptors of which the runtime says when there is something to read.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Such a descriptor. It is read by whoever has it, until there is nothing more.
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Has the runtime look after `descriptor`, which does not block. To be called within the runtime.
    ///
    /// # Errors
    ///
    /// The kernel can't say when it can be read.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is owned, and nothing here exchanges it or hands it out but on loan.
        let descriptor = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        Ok(Self(descriptor?))
    }

    /// Waits until there is something to read, of which nobody has been told yet.
    ///
    /// # Errors
    ///
    /// The runtime ends.
    pub async fn wait(&self) -> io::Result<()> {
        self.0.readable().await.map(|mut ready| ready.clear_ready())
    }
}

impl AsFd for Readable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

impl fmt::Debug for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readable").field(self.0.get_ref()).finish()
    }
}
