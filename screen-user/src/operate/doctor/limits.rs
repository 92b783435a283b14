//! The kernel's limits on connections that are not accepted yet.

use std::{fs, str::FromStr};

use super::finding::{Finding, Grade};
use crate::net::listener::BACKLOG;

/// What the kernel allows; `None` where it could not be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// `net.core.somaxconn`.
    somaxconn: Option<i32>,
    /// `net.ipv4.tcp_syncookies`.
    syncookies: Option<u8>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    max_syn_backlog: Option<i32>,
}

impl Limits {
    /// Of this network namespace.
    pub(super) fn read() -> Self {
        Self {
            somaxconn: sysctl("core/somaxconn"),
            syncookies: sysctl("ipv4/tcp_syncookies"),
            max_syn_backlog: sysctl("ipv4/tcp_max_syn_backlog"),
        }
    }
}

fn sysctl<T: FromStr>(name: &str) -> Option<T> {
    fs::read_to_string(format!("/proc/sys/net/{name}")).ok()?.trim().parse().ok()
}

pub(super) fn judge(limits: &Limits) -> Vec<Finding> {
    vec![somaxconn(limits.somaxconn), syncookies(limits.syncookies), max_syn_backlog(limits)]
}

const fn finding(grade: Grade, what: String, mend: Option<String>) -> Finding {
    Finding { subject: "limits", grade, what, mend }
}

fn unknown(key: &str) -> Finding {
    finding(Grade::Unknown, format!("{key} can't be read"), Some(format!("sysctl {key}")))
}

fn somaxconn(value: Option<i32>) -> Finding {
    const KEY: &str = "net.core.somaxconn";
    match value {
        None => unknown(KEY),
        Some(value) if value < BACKLOG => finding(
            Grade::Wrong,
            format!("{KEY} is {value}: it cuts the listening queue, for which the screener asks {BACKLOG}"),
            Some(format!("sysctl -w {KEY}={BACKLOG}")),
        ),
        Some(value) => finding(Grade::Fine, format!("{KEY} is {value}"), None),
    }
}

fn syncookies(value: Option<u8>) -> Finding {
    const KEY: &str = "net.ipv4.tcp_syncookies";
    match value {
        None => unknown(KEY),
        Some(0) => finding(
            Grade::Wrong,
            format!("{KEY} is 0: a flood of SYNs keeps clients out"),
            Some(format!("sysctl -w {KEY}=1")),
        ),
        Some(1) => finding(Grade::Fine, format!("{KEY} is 1"), None),
        Some(value) => finding(
            Grade::Note,
            format!("{KEY} is {value}: cookies are sent without a flood, too, which is meant for tests"),
            Some(format!("sysctl -w {KEY}=1")),
        ),
    }
}

/// The kernel looks at it only where it sends no cookies.
fn max_syn_backlog(limits: &Limits) -> Finding {
    const KEY: &str = "net.ipv4.tcp_max_syn_backlog";
    match (limits.max_syn_backlog, limits.syncookies) {
        (None, _) => unknown(KEY),
        (Some(value), Some(0)) if value < BACKLOG => finding(
            Grade::Wrong,
            format!("{KEY} is {value}: without SYN cookies no more connections than that can be in the making"),
            Some(format!("sysctl -w {KEY}={BACKLOG}")),
        ),
        (Some(value), _) => finding(Grade::Fine, format!("{KEY} is {value}"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(somaxconn: i32, syncookies: u8, max_syn_backlog: i32) -> Vec<(Grade, Option<String>)> {
        let limits =
            Limits { somaxconn: Some(somaxconn), syncookies: Some(syncookies), max_syn_backlog: Some(max_syn_backlog) };
        judge(&limits).into_iter().map(|finding| (finding.grade, finding.mend)).collect()
    }

    fn wrong(mend: &str) -> (Grade, Option<String>) {
        (Grade::Wrong, Some(mend.to_owned()))
    }

    const FINE: (Grade, Option<String>) = (Grade::Fine, None);

    #[test]
    fn a_queue_is_cut_below_what_the_screener_asks_for() {
        assert_eq!(judged(4096, 1, 4096), [FINE, FINE, FINE]);
        assert_eq!(judged(4095, 1, 4096), [wrong("sysctl -w net.core.somaxconn=4096"), FINE, FINE]);
    }

    #[test]
    fn the_backlog_of_syns_matters_without_cookies_only() {
        assert_eq!(judged(4096, 1, 128), [FINE, FINE, FINE]);
        let [cookies, backlog] =
            ["sysctl -w net.ipv4.tcp_syncookies=1", "sysctl -w net.ipv4.tcp_max_syn_backlog=4096"].map(wrong);
        assert_eq!(judged(4096, 0, 4095), [FINE, cookies.clone(), backlog]);
        assert_eq!(judged(4096, 0, 4096), [FINE, cookies, FINE]);
    }

    #[test]
    fn cookies_for_everybody_are_a_note() {
        assert_eq!(judged(4096, 2, 128)[1].0, Grade::Note);
    }

    #[test]
    fn what_can_not_be_read_is_not_guessed() {
        let unread = Limits { somaxconn: None, syncookies: None, max_syn_backlog: None };
        assert!(judge(&unread).iter().all(|finding| finding.grade == Grade::Unknown));
    }
}
