//! The last look-ups, for whoever asks what the zones say of a client: that costs no question.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use tokio::sync::watch;

use crate::screen::event::DnsblAnswer;

/// Look-ups that are kept.
const CAPACITY: usize = 4096;

/// What the zones have said of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Who was looked up, canonical.
    pub client: IpAddr,
    /// When the zones were asked, in Unix seconds.
    pub asked: u64,
    /// What is in so far, in the order of arrival; a zone that is not in it has not answered yet.
    pub answers: Vec<DnsblAnswer>,
}

/// The last look-ups, those under way too.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    client: IpAddr,
    asked: u64,
    /// Where the answers come in.
    answers: watch::Receiver<Vec<DnsblAnswer>>,
}

impl Recent {
    /// Keeps a look-up that begins at `asked`, in Unix seconds; the oldest makes room.
    pub(super) fn add(&self, client: IpAddr, asked: u64, answers: watch::Receiver<Vec<DnsblAnswer>>) {
        let mut kept = self.kept();
        if kept.len() == CAPACITY {
            kept.pop_front();
        }
        kept.push_back(Kept { client, asked, answers });
    }

    /// The last look-up of a client in `net`.
    pub(super) fn of(&self, net: IpNet) -> Option<Said> {
        let kept = self.kept();
        let last = kept.iter().rev().find(|kept| net.contains(&kept.client))?;
        Some(Said { client: last.client, asked: last.asked, answers: last.answers.borrow().clone() })
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        // The queue is whole between any two statements that change it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::event::ZoneReply;

    fn failed() -> DnsblAnswer {
        DnsblAnswer { zone: 0, reply: ZoneReply::Failed }
    }

    #[test]
    fn the_last_look_up_of_a_network_is_found_and_the_oldest_go() {
        let recent = Recent::default();
        let clients = ["192.0.2.1", "2001:db8::1", "2001:db8::2"].map(|client| client.parse().unwrap());
        let (answers, receiver) = watch::channel(Vec::new());
        for asked in 0..CAPACITY as u64 + 1 {
            recent.add(clients[usize::from(asked > 0) + usize::from(asked > 9)], asked, receiver.clone());
        }
        let asked = |net: &str| recent.of(net.parse().unwrap()).map(|said| (said.client, said.asked));
        assert_eq!(asked("192.0.2.1/32"), None, "it was the oldest");
        assert_eq!(asked("2001:db8::/64"), Some((clients[2], CAPACITY as u64)));
        assert_eq!(asked("2001:db8::1/128"), Some((clients[1], 9)));

        // Whoever asks while it runs hears what is in.
        let net = "2001:db8::2/128".parse().unwrap();
        assert_eq!(recent.of(net).unwrap().answers, []);
        answers.send_modify(|all| all.push(failed()));
        drop(answers);
        assert_eq!(recent.of(net).unwrap().answers, [failed()]);
    }
}
