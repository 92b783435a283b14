//! How long it takes from a verdict on one host until the others' kernels decide by it.

use std::net::{IpAddr, Ipv4Addr};

use screen_tests::{
    fleet::Fleet,
    redis::{PORT, Redis},
    wait::{SOON, wait_for},
};

use super::{URLS, table::Table};

/// Clients that are tested in a round.
const CLIENTS: u8 = 60;

pub(crate) fn measure(rounds: u16, table: &mut Table) {
    for _ in 0..rounds {
        let Some(mut fleet) = Fleet::new(3, URLS) else { return };
        let _redis = Redis::start(&fleet.backplane, PORT, &[]);
        fleet.configure(|settings| settings.text("pregreet.wait", "100ms"));
        fleet.start();
        let [judge, others @ ..] = fleet.edges.as_slice() else { return };
        for number in 0..CLIENTS {
            judge.tests(IpAddr::V4(Ipv4Addr::new(198, 18, 1, number + 1)));
        }
        for other in others {
            let lag = wait_for("a host has heard everything", SOON, || {
                let redis = other.redis();
                (redis["heard"].as_u64() >= Some(u64::from(CLIENTS))).then(|| redis["lag_ms"].clone())
            });
            for (which, field) in [("half of them", "p50"), ("99 of 100", "p99"), ("the longest", "max")] {
                let case = format!("from a verdict to another host's kernel, {which}");
                table.add(&case, "at most", lag[field].as_f64().unwrap(), "ms");
            }
        }
    }
}
