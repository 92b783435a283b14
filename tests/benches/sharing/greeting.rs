//! What a client waits whom nobody knows: its host asks Redis before it greets.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use screen_tests::{
    fleet::{Edge, Fleet, TEASER},
    gate::Gate,
    redis::{PORT, Redis},
    smtp::Client,
};

use super::{URLS, table::Table};

/// Clients that come to each gate in a round.
const CLIENTS: u8 = 200;

pub(crate) fn measure(rounds: u16, table: &mut Table) {
    let Some(mut fleet) = Fleet::new(2, URLS) else { return };
    let _redis = Redis::start(&fleet.backplane, PORT, &[]);
    fleet.edges[0].start();
    fleet.edges[0].wait_synced();
    let [sharing, alone] = [&fleet.edges[0], &fleet.edges[1]];
    let _gate = Gate::start(alone.net(), alone.settings().clone().text("cache.backend", "embedded"));
    for round in 0..rounds {
        let mut waits = [Vec::new(), Vec::new()];
        for number in 0..CLIENTS {
            let client = IpAddr::V4(Ipv4Addr::new(198, 18, u8::try_from(round).unwrap() + 1, number));
            let mut turns = [0, 1];
            // Whoever goes first may find a cooler machine.
            if number % 2 == 1 {
                turns.reverse();
            }
            for turn in turns {
                waits[turn].push(wait(if turn == 0 { alone } else { sharing }, client));
            }
        }
        for (who, waits) in ["without Redis", "with Redis"].into_iter().zip(&mut waits) {
            waits.sort_by(f64::total_cmp);
            table.add("connect to first byte, median", who, waits[waits.len() / 2], "ms");
            table.add("connect to first byte, 99 %", who, waits[waits.len() * 99 / 100], "ms");
        }
    }
    let look_ups = sharing.redis()["lookups"].clone();
    println!("look-ups: {look_ups}");
}

/// Milliseconds until the gate says its first word to a new client.
fn wait(edge: &Edge, address: IpAddr) -> f64 {
    let host = edge.net().client();
    host.adopt(address);
    let begun = Instant::now();
    let mut client = Client::connect(host, address);
    assert_eq!(client.line(), TEASER);
    begun.elapsed().as_secs_f64() * 1e3
}
