//! What the service manager is told (sd_notify(3)), and the sockets that it has handed over (sd_listen_fds(3)). Without one, nothing is said to
//! nobody.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpListener,
    os::unix::net::UnixStream,
    time::Duration,
};

use sd_notify::NotifyState;

use super::message::DO_YOU_HEAR;
use crate::{kernel::handed_over, net::listener, operate::log::Log};

/// What says in the environment which descriptors were handed over: to this process, not to those that come after it.
pub(super) const SOCKETS: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// How many times the screener is asked within the watchdog's limit.
const QUESTIONS: u32 = 4;

/// Everything that is known is in force.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The configuration is read again; [`ready`] follows, whatever comes of it.
pub(super) fn reloading() {
    // Without the time the service manager can't tell it from an answer to an earlier order.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
}

/// Clients are taken no more.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// The gate does its work.
pub(super) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

fn notify(states: &[NotifyState<'_>]) {
    // Nobody may be there, and to one that does not listen there is nothing to say.
    let _ = sd_notify::notify(states);
}

/// How often the screener is to be asked whether it hears, where the service manager watches.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / QUESTIONS)
}

/// The TCP sockets that the service manager has opened, ready to accept by.
pub(super) fn sockets(log: &Log) -> Vec<TcpListener> {
    let unused = |error: io::Error| log.warn(format!("sockets of the service manager's are not used: {error}"));
    let sockets = handed_over().map_err(unused).unwrap_or_default();
    sockets.into_iter().filter_map(|socket| listener::adopt(socket).map_err(unused).ok()).collect()
}

/// Whether the screener hears, by what it answers to one question after the other.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    asked: bool,
}

impl Pulse {
    /// Whether it has answered the last question. If so, and at first, the next one is asked.
    pub(super) fn take(&mut self, orders: &mut UnixStream) -> bool {
        let answered = matches!(orders.read(&mut [0]), Ok(1));
        if answered || !self.asked {
            // One that is gone is noticed by its end.
            self.asked = matches!(orders.write(&[DO_YOU_HEAR]), Ok(1));
        }
        answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screener_that_does_not_answer_has_no_pulse() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut pulse = Pulse::default();
        for _ in 0..3 {
            assert!(!pulse.take(&mut ours));
        }
        let mut question = [0; 8];
        // It was asked once, and not again while it owes an answer.
        assert_eq!((theirs.read(&mut question).unwrap(), question[0]), (1, DO_YOU_HEAR));
        theirs.write_all(&question[..1]).unwrap();
        assert!(pulse.take(&mut ours));
        assert!(!pulse.take(&mut ours));
        assert_eq!(theirs.read(&mut question).unwrap(), 1);
        drop(theirs);
        assert!(!pulse.take(&mut ours));
    }
}
