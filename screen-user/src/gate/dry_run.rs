//! What a dry run lets in, for `status` and `explain`.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Gate, unix_now, view::words};
use crate::{
    config::{Layout, Steer},
    kernel::Reason,
    screen::{
        event::Standing,
        policy::{Action, Policy},
        record::Client,
    },
};

impl Gate {
    /// Whom a dry run has spared since the start, by reason: sessions of the screener, and what the kernel has let through by itself.
    pub(super) fn would_have_blocked(&self) -> Value {
        let sessions = self.history.objections().into_iter();
        let mut rows: Vec<Value> =
            sessions.map(|(reason, sessions)| json!({ "sessions": sessions, "reason": words(reason) })).collect();
        let totals = self.kernel.as_ref().and_then(|kernel| kernel.totals().ok()).unwrap_or_default();
        for (reason, total) in totals.into_iter().filter(|(_, total)| total.packets > 0) {
            match reason {
                Reason::LetIn => rows.push(json!({ "connections": total.packets, "reason": "denied (kernel)" })),
                Reason::Spared => rows.push(json!({ "syns": total.packets, "reason": "denied or limited (kernel)" })),
                _ => {}
            }
        }
        rows.into()
    }

    /// Whether the kernel gives this client's connections to the mail server by itself, so that no session follows that could tell of them.
    pub(super) fn is_steered(&self, client: IpAddr) -> bool {
        let config = self.config.load();
        let to_nobody = config.layout == Layout::Front && config.forward.steer_to.is_none();
        if config.kernel.steer == Steer::Off || to_nobody {
            return false;
        }
        match self.standing(client) {
            Standing::Allowed => true,
            Standing::Unlisted => {
                let record = self.screen().record(Client::of(client, config.policy.limits.client_prefix));
                record.and_then(|record| config.policy.valid_until(&record)).is_some_and(|until| until > unix_now())
            }
            Standing::Barred | Standing::Denied => false,
        }
    }
}

/// What happens in a dry run to a client of this standing; `None` if that is what happens without it. `is_known`: its passes are valid.
pub(super) fn in_dry_run(policy: &Policy, standing: &Standing, is_known: bool) -> Option<&'static str> {
    match standing {
        _ if !policy.dry_run => None,
        Standing::Barred => Some("goes to the mail server, as nobody is turned away"),
        Standing::Denied if policy.denylist_action == Action::Drop => {
            Some("goes to the mail server, as nobody is turned away")
        }
        Standing::Unlisted if !is_known => Some("is screened, and goes to the mail server whatever comes of it"),
        Standing::Denied => Some("is screened, and goes to the mail server whatever comes of it"),
        Standing::Allowed | Standing::Unlisted => None,
    }
}
