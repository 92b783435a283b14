//! How many verdicts a second hosts can share.

use std::{fs, thread, time::Instant};

use screen_tests::{
    fleet::{Edge, Fleet},
    redis::{PORT, Redis},
};

use super::{URLS, records, table::Table};

/// Verdicts of each host: fewer than may wait to be told.
const VERDICTS: u32 = 40_000;

pub(crate) fn measure(rounds: u16, table: &mut Table) {
    for _ in 0..rounds {
        for hosts in 1..=3_u8 {
            let Some(mut fleet) = Fleet::new(hosts, URLS) else { return };
            let _redis = Redis::start(&fleet.backplane, PORT, &[]);
            fleet.start();
            let files: Vec<_> = (0..u32::from(hosts))
                .map(|host| {
                    let file = fleet.edges[host as usize].settings().directory().join("verdicts");
                    let lines =
                        records::lines(&format!("mx{host}.example.test"), host * VERDICTS..(host + 1) * VERDICTS);
                    fs::write(&file, lines).unwrap();
                    file.display().to_string()
                })
                .collect();
            let all = VERDICTS * u32::from(hosts);
            let begun = Instant::now();
            thread::scope(|scope| {
                for (edge, file) in fleet.edges.iter().zip(&files) {
                    scope.spawn(move || {
                        edge.gate().tell(&["cache", "import", file]);
                        edge.gate().wait("it knows what all have learnt, and has told its part", || knows(edge, all));
                    });
                }
            });
            let rate = f64::from(all) / begun.elapsed().as_secs_f64();
            table.add(
                "verdicts a second, told, heard and kept by all",
                &format!("by {hosts} of {hosts} hosts"),
                rate,
                "/s",
            );
        }
    }
}

fn knows(edge: &Edge, all: u32) -> bool {
    let redis = edge.redis();
    let records = &edge.gate().ask(&["status"])["screening"]["records"];
    *records == all && redis["waiting"] == 0 && redis["unconfirmed"] == 0
}
