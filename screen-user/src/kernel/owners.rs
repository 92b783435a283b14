//! Listeners on the mail server's port that are somebody else's: no mail goes there, and the operator should know.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{plan::Plan, sock_diag::Listener};

/// The listeners of other users, by their cookies.
#[derive(Debug)]
pub(super) struct Owners {
    /// The ports that are the mail server's.
    ports: Vec<u16>,
    /// The user, besides root, whose listeners are the mail server's.
    trusted: u32,
    others: BTreeMap<u64, (SocketAddr, u32)>,
}

impl Owners {
    pub(super) fn new(plan: &Plan) -> Self {
        let ports = plan.steer_to.map_or_else(|| plan.ports.clone(), |address| vec![address.port()]);
        Self { ports, trusted: plan.steer_uid, others: BTreeMap::new() }
    }

    /// Takes note of who listens; returns what is new, in words.
    pub(super) fn look(&mut self, listeners: &[Listener]) -> Vec<String> {
        let before = std::mem::take(&mut self.others);
        self.others = listeners
            .iter()
            .filter(|listener| self.ports.contains(&listener.address.port()))
            .filter(|listener| listener.uid != 0 && listener.uid != self.trusted)
            .map(|listener| (listener.cookie, (listener.address, listener.uid)))
            .collect();
        self.others
            .iter()
            .filter(|(cookie, _)| !before.contains_key(cookie))
            .map(|(_, other)| in_words(other))
            .collect()
    }

    /// What there is to say at the moment.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.others.values().map(in_words)
    }
}

fn in_words((address, uid): &(SocketAddr, u32)) -> String {
    format!(
        "{address} was bound by user {uid}, who is neither root nor forward.steer_user: it is not taken for the mail server, and no \
         client is sent there"
    )
}

#[cfg(test)]
mod tests {
    use super::{super::plan::tests::plan, *};

    #[test]
    fn other_users_are_named_once() {
        let listener = |cookie, address: &str, uid| Listener {
            address: address.parse().unwrap(),
            cookie,
            waiting: 0,
            backlog: 9,
            uid,
            inode: 0,
        };
        let all = [
            listener(1, "127.0.0.1:10025", 0),
            listener(2, "127.0.0.1:10025", 105),
            listener(3, "[::1]:10025", 1_000),
            listener(4, "127.0.0.1:25", 1_000),
        ];
        let steer_to = Some("127.0.0.1:10025".parse().unwrap());
        let mut owners = Owners::new(&Plan { steer_to, steer_uid: 105, ..plan() });
        let said = owners.look(&all);
        assert!(said.len() == 1 && said[0].starts_with("[::1]:10025 was bound by user 1000,"), "{said:?}");
        assert_eq!(owners.look(&all), [""; 0]);
        assert_eq!(owners.notes().collect::<Vec<_>>(), said);
        assert_eq!((owners.look(&[]), owners.notes().count()), (vec![], 0));
    }
}
