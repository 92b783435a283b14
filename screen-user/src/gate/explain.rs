//! What `mxscreen explain` shows of one client.

use std::{net::IpAddr, sync::PoisonError, time::Duration};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Gate, dry_run::in_dry_run, unix_now};
use crate::{
    access::{
        RulePlace,
        runtime::{Entry, Roll},
    },
    journal,
    kernel::{Expiry, Kernel, ListId},
    screen::{
        event::Standing,
        found::Stood,
        record::{Client, Record, Test},
    },
};

/// Sessions of one client that are shown from memory.
const SHOWN_SESSIONS: usize = 5;

impl Gate {
    /// Everything that is known of one client.
    pub(super) fn explain(&self, address: IpAddr) -> Value {
        let now = unix_now();
        let config = self.config.load();
        let client = Client::of(address, config.policy.limits.client_prefix);
        let decision = config.access.decide(address);
        let (allow, deny, failures) = {
            let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
            let offence = lists.get(Roll::Failure, client.net()).and_then(|entry| entry.offence);
            let failures = offence.filter(|offence| offence.until > now).map_or(0, |offence| offence.failures);
            (lists.allowed(address, now).cloned(), lists.denied(address, now).cloned(), failures)
        };
        let imported =
            self.imported.read().unwrap_or_else(PoisonError::into_inner).denying(address, now).map(str::to_owned);
        let (record, credit) = {
            let screen = self.screen();
            (screen.record(client), screen.credit(address, now))
        };
        let valid = record.and_then(|record| config.policy.valid_until(&record)).filter(|&until| until > now);
        let stood = self.stood(address);
        let standing = stood.standing();
        let because = because(&stood, deny.as_ref(), valid, now);
        let in_kernel = self.kernel.is_some();
        let spared = in_dry_run(&config.policy, &standing, valid.is_some());
        let (happens, place) = match (standing, valid) {
            (Standing::Allowed, _) => ("goes to the mail server without a test", in_kernel),
            (Standing::Barred, _) => ("is turned away", in_kernel),
            (Standing::Denied, _) => {
                ("is treated as access.denylist_action says", in_kernel && self.is_fed_reject(address))
            }
            (Standing::Unlisted, Some(_)) => ("goes to the mail server, as its passes are valid", in_kernel),
            (Standing::Unlisted, None) => ("is screened", false),
        };
        let counters = self.kernel.as_ref().and_then(|kernel| kernel.counters(address).ok().flatten());
        let refused = self.kernel.as_ref().and_then(|kernel| kernel.refused(address).ok().flatten());
        json!({
            "address": address,
            "client": client.net(),
            "now": spared.unwrap_or(happens),
            "without_dry_run": config.policy.dry_run.then_some(happens),
            "because": because,
            "decided_by": if place { "kernel" } else { "screener" },
            "access_list": { "verdict": decision.verdict.to_string(), "rule": decision.rule },
            "allow_entry": allow,
            "deny_entry": deny,
            "failures_remembered": failures,
            "imported_list": imported,
            "pool_credit": credit.map(|(network, credit)| json!({
                "network": network.net(),
                "earned_by": credit.earned_by.net(),
                "seconds_left": credit.until.saturating_sub(now),
            })),
            "tests": record.map_or(Value::Null, |record| tests(&record, now)),
            "dnsbl": self.listings(client, now),
            "learnt_by": record.map(|record| self.hosts.name(record.host()).to_string()),
            "kernel_says": self.kernel.as_ref().map(|kernel| kernel_says(kernel, client, address, imported.is_some())),
            "journal": self.journal.status().kept.then(|| journal::within(&config.state_directory)),
            "last_sessions": self.history.of(client.net(), SHOWN_SESSIONS),
            "kernel_counters": counters.map(|counters| json!({
                "active": counters.active,
                "pending": counters.pending,
                "accepted": counters.accepted,
                "steered": counters.steered,
                "limited": counters.limited,
            })),
            "kernel_refused": refused.map(|refused| json!({
                "denied": refused.denied,
                "limited": refused.limited,
                "list": (refused.denied > 0).then(|| self.list_name(ListId(refused.list))),
            })),
        })
    }

    fn is_fed_reject(&self, address: IpAddr) -> bool {
        self.fed().rejects.iter().any(|net| net.contains(&address))
    }
}

/// Why the client gets what it gets.
fn because(stood: &Stood<Option<RulePlace>>, denied: Option<&Entry>, valid: Option<u64>, now: u64) -> String {
    let rule = |rule: &Option<RulePlace>| rule.as_ref().map_or_else(String::new, |rule| format!(" ({rule})"));
    let entry = || {
        let Some(Entry { reason, until, .. }) = denied else { return String::new() };
        let reason = if reason.is_empty() { "no reason was given" } else { reason };
        let left = until.map_or_else(
            || "until it is forgotten".into(),
            |until| format!("for {} s more", until.saturating_sub(now)),
        );
        format!(" ({reason}), {left}")
    };
    match stood {
        Stood::AllowEntry => "a run-time entry allows it".to_owned(),
        Stood::Permitted(place) => format!("the access list permits it{}", rule(place)),
        Stood::DenyEntry => format!("an operator denies it{}", entry()),
        Stood::Failed(_) => format!("it has failed a test{}", entry()),
        Stood::Imported(list) => format!("the block list {list} denies it"),
        Stood::Rejected(place) => format!("the access list rejects it{}", rule(place)),
        Stood::Unlisted => match valid {
            Some(until) => {
                format!("it has passed every enabled test, which counts for {} s more", until.saturating_sub(now))
            }
            None => "no list knows it, and it has no valid pass of every enabled test".to_owned(),
        },
    }
}

/// What the kernel's tables say: an allow entry wins, then a denial, then a pass. Imported lists are as long as they like: of those it is taken
/// that the kernel has what the screener has.
fn kernel_says(kernel: &Kernel, client: Client, address: IpAddr, is_imported: bool) -> &'static str {
    let live = |until: &Expiry| until.remaining() != Some(Duration::ZERO);
    let covers = |(net, until): &(IpNet, Expiry)| net.contains(&address) && live(until);
    let allows = [ListId::OPERATOR, ListId::ACCESS];
    let denies = [ListId::OPERATOR, ListId::ACCESS, ListId::FAILURE];
    if allows.iter().any(|list| kernel.allowed(*list).iter().any(covers)) {
        "allowed"
    } else if is_imported || denies.iter().any(|list| kernel.denied(*list).iter().any(covers)) {
        "denied"
    } else if kernel.passed().iter().any(|(known, until)| *known == client.address && live(until)) {
        "passed"
    } else {
        "unknown"
    }
}

fn tests(record: &Record, now: u64) -> Value {
    Test::ALL
        .iter()
        .map(|&test| {
            let stamp = record.stamp(test).0;
            let state = match stamp {
                0 => "never passed".to_owned(),
                1 => "never passed, was disabled".to_owned(),
                until if until >= now => format!("passed, valid for {} s", until - now),
                until => format!("passed, expired {} s ago", now - until),
            };
            let finding = record.finding(test);
            // Before there were versions nobody noted the time.
            let learnt = Some(finding.version.unix_millis() / 1000).filter(|&seconds| seconds > 0);
            json!({ "test": test.to_string(), "state": state, "grounds": finding.grounds.describe(), "learnt": learnt })
        })
        .collect()
}
