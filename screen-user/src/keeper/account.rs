//! The account that the screener runs as.

use nix::unistd::{Gid, Uid, User, geteuid};

/// Who does nothing but that on any host.
const NOBODY: &str = "nobody";

/// An account to change to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) user: Uid,
    pub(super) group: Gid,
}

impl Account {
    /// The account `name`, or `nobody` where there is none; `None` where this process has it, or may not change to another. What is not as the configuration
    /// asks is added to `notices`.
    pub(super) fn of(name: &str, notices: &mut Vec<String>) -> Option<Self> {
        let find = |name: &str| User::from_name(name).ok().flatten();
        if !may_change() {
            if find(name).is_some_and(|user| user.uid == geteuid()) {
                return None;
            }
            notices.push(format!(
                "user: the screener runs as user {}, as this process may not change to {name}: CAP_SETUID and CAP_SETGID are missing",
                geteuid()
            ));
            return None;
        }
        let user = find(name).or_else(|| {
            notices.push(format!(
                "user: there is no account {name}, the screener runs as {NOBODY} (useradd --system --shell /usr/sbin/nologin {name})"
            ));
            find(NOBODY)
        });
        match user {
            Some(user) => Some(Self { user: user.uid, group: user.gid }),
            None => {
                notices.push(format!(
                    "user: there is no account {NOBODY} either, the screener runs as root without capabilities"
                ));
                None
            }
        }
    }
}

fn may_change() -> bool {
    use caps::{CapSet::Effective, Capability, has_cap};

    [Capability::CAP_SETUID, Capability::CAP_SETGID]
        .into_iter()
        .all(|needed| has_cap(None, Effective, needed).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_there_is_nobody() {
        let mut notices = Vec::new();
        let account = Account::of("no.such.account", &mut notices);
        assert_eq!(notices.len(), 1, "{notices:?}");
        if may_change() {
            assert_eq!(account.unwrap().user, User::from_name(NOBODY).unwrap().unwrap().uid);
            assert!(notices[0].contains("no.such.account"), "{notices:?}");
            assert_eq!(Account::of("root", &mut notices).unwrap().user, Uid::from_raw(0));
            assert_eq!(notices.len(), 1, "{notices:?}");
        } else {
            assert_eq!(account, None);
        }
    }
}
