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
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    Probe, SetupError,
    lookup::Desk,
    query::{Answer, Resolver},
    report::{Failure, Report},
    zone::{Zone, ZoneName},
};
use crate::{config, unix_time::unix_now};

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
            if zone.suspend(Some(unix_now())) {
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

/// What a zone's test points say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Listed is what has to be, and not listed what must not; the slower answer took so long.
    Sound(Duration),
    /// Nothing is listed that has to be: it has no test points, or lists nobody.
    NoTestPoint,
    /// It lists everybody.
    ListsEverybody,
    /// It can't be told.
    Failed(Failure),
}

/// Asks each of `zones` for both of its test points, all at once. Must be called in a tokio runtime.
///
/// # Errors
/// A zone can't be asked, or there is no resolver.
pub async fn checkup(zones: Vec<ZoneName>, config: &config::Resolver) -> Result<Vec<(ZoneName, Health)>, SetupError> {
    let resolver = Arc::new(Resolver::new(config, true)?);
    let zones = zones.into_iter().map(|name| Zone::new(0, name, 2)).collect::<Result<Vec<Zone>, SetupError>>()?;
    let asked: Vec<_> = zones
        .into_iter()
        .map(|zone| {
            let resolver = Arc::clone(&resolver);
            tokio::spawn(async move {
                let begun = Instant::now();
                let (never, always) =
                    tokio::join!(resolver.ask(&zone, NEVER_LISTED), resolver.ask(&zone, ALWAYS_LISTED));
                let health = match (never, always) {
                    (Ok(Answer::Listed { .. }), _) => Health::ListsEverybody,
                    (Err(failure), _) | (_, Err(failure)) => Health::Failed(failure),
                    (_, Ok(Answer::NotListed { .. })) => Health::NoTestPoint,
                    (_, Ok(Answer::Listed { .. })) => Health::Sound(begun.elapsed()),
                };
                (zone.name, health)
            })
        })
        .collect();
    let mut healths = Vec::with_capacity(asked.len());
    for health in asked {
        // A task that panicked says nothing of its zone.
        healths.extend(health.await.ok());
    }
    Ok(healths)
}

/// Within a tenth of `wait`, so that many gates do not ask at the same moment.
fn varied(wait: Duration) -> Duration {
    let fraction = RandomState::new().hash_one(0_u8) % 2_001;
    wait.mul_f64(0.9 + fraction as f64 / 10_000.0)
}
