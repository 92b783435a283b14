//! How long a good client's first message takes with the deep tests on: the gate goes on in the same session, postscreen has the client come
//! back. How long a sender waits before it does is its own affair, and not measured.

use std::{path::Path, time::Duration};

use anyhow::{Result, bail};

use super::{Turn, visit::Visit};
use crate::bench::{
    contender::Setting,
    gate::Gate,
    ground::{self, client_address},
    postscreen::{Place, Postfix, Postscreen},
    table::{Figure, median},
};

/// Clients of one measurement, one after the other, and those before them that do not count.
const CLIENTS: u32 = 200;
const WARM_UP: u32 = 20;
/// Visits after which nobody tries again.
const MOST_VISITS: u32 = 3;
const DEEP: &[&str] = &["pipelining", "non_smtp_command", "bare_newline"];
const SETTING: Setting = Setting { greet_wait: 0, known: false, deep: DEEP, mail_server: true };

/// The way to the mail server.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Direct,
    Mxscreen,
    Postscreen,
}

/// All ways, what is compared with first.
pub(super) const WAYS: [(&str, Way); 3] =
    [("Postfix alone", Way::Direct), ("mxscreen", Way::Mxscreen), ("postscreen", Way::Postscreen)];

/// Measures one way.
pub(super) fn measure(way: Way, folder: &Path) -> Result<Turn> {
    let postfix = folder.join("postfix");
    let figures = match way {
        Way::Direct => {
            let _server = Postfix::start(&postfix, SETTING, Place::Port)?;
            figures()?
        }
        Way::Mxscreen => {
            let _gate = Gate::start(SETTING, folder)?;
            figures()?
        }
        Way::Postscreen => {
            let _server = Postscreen::start(SETTING, &postfix)?;
            figures()?
        }
    };
    Ok(vec![("first message of a good client".to_owned(), figures)])
}

fn figures() -> Result<Vec<Figure>> {
    let deliveries =
        ground::as_client(|| (0..WARM_UP + CLIENTS).map(deliver).skip(WARM_UP as usize).collect::<Result<Vec<_>>>())?;
    let of = |number: fn(&(u32, Duration)) -> f64| median(&deliveries.iter().map(number).collect::<Vec<_>>());
    Ok(vec![
        Figure { name: "visits", value: of(|(visits, _)| f64::from(*visits)), unit: "" },
        Figure { name: "time of all visits", value: of(|(_, time)| time.as_secs_f64() * 1e3), unit: "ms" },
    ])
}

/// Comes from an address of its own until the message is taken. Returns the number of visits, and how long they took.
fn deliver(client: u32) -> Result<(u32, Duration)> {
    let mut so_far = Duration::ZERO;
    for visit in 1..=MOST_VISITS {
        match Visit::make(client_address(client))? {
            Visit::Taken(time) => return Ok((visit, so_far + time)),
            Visit::ToComeAgain(time) => so_far += time,
        }
    }
    bail!("client {client} was told to come again {MOST_VISITS} times")
}
