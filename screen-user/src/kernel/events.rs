//! Events of the kernel half, as a stream.

use std::{net::SocketAddr, os::fd::AsFd, time::Duration};

use aya::maps::{MapData, RingBuf};
use screen_common::{abi::Event, reason::Reason};
use tokio::io::unix::AsyncFd;

use super::{KernelError, clock::Expiry, prefix::address_of, prefixes::ListId};

/// How often the ring is looked at. The kernel wakes the reader only when the ring fills faster than that: a wake-up for each
/// event would cost more than the event.
const POLL: Duration = Duration::from_millis(20);

/// Something that the kernel half decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelEvent {
    /// When.
    pub time: Expiry,
    /// What: [`Reason::Denied`], [`Reason::Limited`], [`Reason::Unproven`], [`Reason::PassOld`], [`Reason::Allowed`] or
    /// [`Reason::LetIn`].
    pub reason: Reason,
    /// The client, canonical.
    pub client: SocketAddr,
    /// The address and port that it meant, canonical.
    pub server: SocketAddr,
    /// The list, for [`Reason::Denied`].
    pub list: Option<ListId>,
    /// Events of the same reason that were left out before this one.
    pub suppressed: u32,
}

/// The stream of events.
#[derive(Debug)]
pub struct KernelEvents {
    ring: AsyncFd<Ring>,
}

struct Ring(RingBuf<MapData>);

impl std::fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Ring")
    }
}

impl std::os::fd::AsRawFd for Ring {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl KernelEvents {
    /// Reads from `ring`; must be called within a tokio runtime.
    pub(super) fn new(ring: RingBuf<MapData>) -> Result<Self, KernelError> {
        // SAFETY: the ring's map is open as long as the ring lives, and it answers with the same descriptor each time.
        let ring = unsafe { AsyncFd::register(Ring(ring)) };
        let ring = ring.map_err(|error| KernelError::system("watch the ring of events", error.into()))?;
        Ok(Self { ring })
    }

    /// The next event, within 20 ms of its making. Loses nothing when cancelled.
    pub async fn next(&mut self) -> KernelEvent {
        loop {
            while let Some(bytes) = self.ring.get_mut().0.next() {
                if let Some(event) = parse(&bytes) {
                    return event;
                }
            }
            tokio::select! {
                ready = self.ring.readable() => match ready {
                    Ok(mut ready) => ready.clear_ready(),
                    // The runtime goes down; whoever waits here goes with it.
                    Err(_) => tokio::time::sleep(POLL).await,
                },
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Option<KernelEvent> {
    if bytes.len() < size_of::<Event>() {
        return None;
    }
    // SAFETY: long enough, and `Event` is made of integers: every bit pattern is one.
    let event = unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() };
    let reason = Reason::from_number(event.reason)?;
    Some(KernelEvent {
        time: Expiry::from_nanos(event.time_ns),
        reason,
        client: SocketAddr::new(address_of(&event.client), event.client_port),
        server: SocketAddr::new(address_of(&event.server), event.server_port),
        list: (reason == Reason::Denied).then_some(ListId(event.list)),
        suppressed: event.suppressed,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_none(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let event = parse(&bytes);
            prop_assert!(bytes.len() >= size_of::<Event>() || event.is_none());
        }
    }
}
