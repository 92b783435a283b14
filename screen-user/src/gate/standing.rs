//! What the lists say of a client: the only place that knows who comes before whom.

use std::{net::IpAddr, sync::PoisonError};

use super::{Gate, unix_now};
use crate::{
    access::{
        RulePlace, Verdict,
        runtime::{Entry, Origin},
    },
    screen::{event::Standing, found::Stood, record::Test},
};

impl Gate {
    /// What the lists say of a client: a run-time allow entry first, then the access list's permits, then what denies.
    pub fn standing(&self, client: IpAddr) -> Standing {
        self.stood(client).standing()
    }

    /// As [`Gate::standing`], with the list that says so.
    pub fn stood(&self, client: IpAddr) -> Stood<Option<RulePlace>> {
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        let now = unix_now();
        if lists.allowed(client, now).is_some() {
            return Stood::AllowEntry;
        }
        let decision = self.config.load().access.decide(client);
        if decision.verdict == Verdict::Permit {
            return Stood::Permitted(decision.rule);
        }
        if let Some(entry) = lists.denied(client, now) {
            return match entry.origin {
                Origin::Operator => Stood::DenyEntry,
                Origin::Failure => Stood::Failed(failed(entry)),
            };
        }
        if let Some(list) = self.imported.read().unwrap_or_else(PoisonError::into_inner).denying(client, now) {
            return Stood::Imported(list.into());
        }
        match decision.verdict {
            Verdict::Reject => Stood::Rejected(decision.rule),
            Verdict::Permit | Verdict::Undecided => Stood::Unlisted,
        }
    }
}

/// The test that an entry is about, by its reason: it begins with the test's name.
fn failed(entry: &Entry) -> Option<Test> {
    let (name, _) = entry.reason.split_once(':')?;
    Test::ALL.into_iter().find(|test| test.to_string() == name)
}
