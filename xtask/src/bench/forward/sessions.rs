//! Many sessions with short messages, from Postfix's smtp-source to Postfix's smtpd: directly, relayed and steered by the gate, through
//! postscreen, and through HAProxy. The clients are known to be good.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    Turn,
    haproxy::{Haproxy, Tuning},
};
use crate::{
    bench::{
        contender::Setting,
        gate::Gate,
        ground::{self, SERVER},
        postscreen::{DESTINATION, Place, Postfix, Postscreen},
        table::Figure,
        usage,
    },
    process,
};

/// Sessions of one measurement, and those before it that do not count.
const SESSIONS: u32 = 3000;
const WARM_UP: u32 = 100;
/// Sessions at once.
const AT_ONCE: u32 = 10;
/// Bytes of a message.
const LENGTH: u32 = 2000;
const SETTING: Setting = Setting { greet_wait: 1, known: true, deep: &[], mail_server: true };

/// The way to the mail server.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Direct,
    Relayed,
    Steered,
    Postscreen,
    Haproxy,
}

/// All ways, what is compared with first.
pub(super) const WAYS: [(&str, Way); 5] = [
    ("Postfix alone", Way::Direct),
    ("relayed by mxscreen", Way::Relayed),
    ("steered by mxscreen", Way::Steered),
    ("through postscreen", Way::Postscreen),
    ("through HAProxy", Way::Haproxy),
];

/// Measures one way.
pub(super) fn measure(way: Way, folder: &Path) -> Result<Turn> {
    let postfix = folder.join("postfix");
    let figures = match way {
        Way::Direct => {
            let _server = Postfix::start(&postfix, SETTING, Place::Port)?;
            figures(|| Ok(None))?
        }
        Way::Relayed => {
            let gate = Gate::start(SETTING, folder)?;
            figures(|| usage::cpu_time(gate.pid()?).map(Some))?
        }
        Way::Steered => {
            let _server = Postfix::start(&postfix, SETTING, Place::Port)?;
            let gate = Gate::start_in_place(folder)?;
            let figures = figures(|| usage::cpu_time(gate.pid()?).map(Some));
            gate.leave(folder)?;
            figures?
        }
        Way::Postscreen => {
            let server = Postscreen::start(SETTING, &postfix)?;
            figures(|| server.screeners()?.into_iter().map(usage::cpu_time).sum::<Result<_>>().map(Some))?
        }
        Way::Haproxy => {
            let _server = Postfix::start(&postfix, SETTING, Place::Behind)?;
            let proxy = Haproxy::start(Tuning::Plain, folder)?;
            figures(|| proxy.cpu_time().map(Some))?
        }
    };
    Ok(vec![("short messages".to_owned(), figures)])
}

/// `cpu_time`: that of what stands before the mail server, if there is anything.
fn figures(cpu_time: impl Fn() -> Result<Option<Duration>>) -> Result<Vec<Figure>> {
    deliver(WARM_UP)?;
    let before = cpu_time()?;
    let begin = Instant::now();
    deliver(SESSIONS)?;
    let time = begin.elapsed();
    let mut figures =
        vec![Figure { name: "sessions a second", value: f64::from(SESSIONS) / time.as_secs_f64(), unit: "" }];
    if let (Some(before), Some(after)) = (before, cpu_time()?) {
        let each = after.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(SESSIONS);
        figures.push(Figure { name: "CPU a session before the mail server", value: each, unit: "µs" });
    }
    Ok(figures)
}

/// Delivers so many messages, each in a session of its own. An answer that is not the expected one is an error.
fn deliver(messages: u32) -> Result<()> {
    let mut source = ground::client("smtp-source");
    source.arg("-s").arg(AT_ONCE.to_string()).arg("-m").arg(messages.to_string()).arg("-l").arg(LENGTH.to_string());
    source.args(["-f", "sender@client.example.test", "-t", &format!("user@{DESTINATION}")]);
    process::run(source.arg(format!("inet:{SERVER}")).stdin(Stdio::null()))
}
