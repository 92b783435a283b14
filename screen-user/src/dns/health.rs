//! Whether a zone still means what it says: RFC 5782 section 5's test points, asked for at the start and now and then.
//!
//! A zone that lists 127.0.0.1 lists everybody (an expired domain, a wildcard, a resolver that lies): it is suspended, and
//! returns by itself. A zone that does not list 127.0.0.2 is reported and no more: private and allow lists often have no test
//! points, and such a zone can miss a listing but deny nobody. No answer at all changes nothing: the clients' own queries fail then
//! as well.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::sleep;

use super::{Probe, lookup::Desk, query::Answer, report::Report, zone::Zone};

/// Must not be listed.
const NEVER_LISTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));

/// Must be listed.
const ALWAYS_LISTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Probes every zone until the desk has gone.
pub(super) fn watch(desk: &Arc<Desk>, probe: Probe) {
    for zone in desk.zones() {
        tokio::spawn(follow(Arc::downgrade(desk), zone.clone(), probe));
    }
}

async fn follow(desk: Weak<Desk>, zone: Arc<Zone>, probe: Probe) {
    loop {
        // Held for one round only: the desk goes with its last user.
        let Some(desk) = desk.upgrade() else { return };
        check(&desk, &zone).await;
        drop(desk);
        let wait = if zone.suspended() { probe.suspended_interval } else { probe.interval };
        sleep(varied(wait)).await;
    }
}

/// One round for one zone.
async fn check(desk: &Desk, zone: &Zone) {
    match desk.resolver().ask(zone, NEVER_LISTED).await {
        Ok(Answer::Listed { .. }) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            if zone.suspend(Some(now)) {
                desk.report(Report::Suspended(zone.name.clone()));
            }
            return;
        }
        Ok(Answer::NotListed { .. }) => {
            if zone.suspend(None) {
                desk.report(Report::Resumed(zone.name.clone()));
            }
        }
        Err(_) => return,
    }
    let listed = match desk.resolver().ask(zone, ALWAYS_LISTED).await {
        Ok(Answer::Listed { .. }) => true,
        Ok(Answer::NotListed { .. }) => false,
        Err(_) => return,
    };
    if zone.note_test_point(listed) && !listed {
        desk.report(Report::NoTestPoint(zone.name.clone()));
    }
}

/// Within a tenth of `wait`, so that many gates do not ask at the same moment.
fn varied(wait: Duration) -> Duration {
    let fraction = RandomState::new().hash_one(0_u8) % 2_001;
    wait.mul_f64(0.9 + fraction as f64 / 10_000.0)
}
