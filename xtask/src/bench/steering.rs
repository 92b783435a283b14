//! A known-good client's way to the mail server's banner: to Postfix directly, steered there by the gate, and through postscreen.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{
    contender::Setting,
    crowd::{Crowd, Manner, Until},
    gate::Gate,
    ground,
    postscreen::{Place, Postfix, Postscreen},
    table::{median, shown},
};
use crate::{process::say, sandbox};

/// Clients of one measurement, one after the other, and those before them that do not count.
const CLIENTS: u32 = 500;
const WARM_UP: u32 = 50;
/// Turns of one round: they are short, and what is to be seen is small.
const TURNS: u16 = 5;
const SETTING: Setting = Setting { greet_wait: 1, known: true, deep: &[], mail_server: true };

/// The way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Direct,
    Steered,
    Postscreen,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "Postfix alone",
            Self::Steered => "steered by mxscreen",
            Self::Postscreen => "through postscreen",
        }
    }
}

/// Measures all ways in turns and prints medians; ratios are by the direct way.
pub(super) fn run(rounds: u16) -> Result<()> {
    ground::make()?;
    sandbox::bpffs()?;
    let mut times: BTreeMap<Way, Vec<f64>> = BTreeMap::new();
    for turn in 0..rounds.saturating_mul(TURNS) {
        let mut ways = [Way::Direct, Way::Steered, Way::Postscreen];
        // Whoever goes first may find a cooler machine: the turns change.
        ways.rotate_left(usize::from(turn % 3));
        for way in ways {
            let folder = tempfile::tempdir_in("/run").context("can't make a folder")?;
            let time = measure(way, folder.path()).with_context(|| way.name())?;
            say(&format!("connect to banner, {}, turn {}: {} µs", way.name(), turn + 1, shown(time)));
            times.entry(way).or_default().push(time);
        }
    }
    let direct = times.get(&Way::Direct).map(|times| median(times)).unwrap_or_default();
    for (way, times) in &times {
        let time = median(times);
        let ratio = if *way == Way::Direct { String::new() } else { shown(time / direct) };
        say(&format!("| connect to banner | {} | {} µs | {ratio} |", way.name(), shown(time)));
    }
    Ok(())
}

/// The median of all clients, in microseconds.
fn measure(way: Way, folder: &Path) -> Result<f64> {
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).context("chmod")?;
    let postfix = folder.join("postfix");
    match way {
        Way::Postscreen => {
            let _server = Postscreen::start(SETTING, &postfix)?;
            clients()
        }
        Way::Direct => {
            let _server = Postfix::start(&postfix, SETTING, Place::Port)?;
            clients()
        }
        Way::Steered => {
            let _server = Postfix::start(&postfix, SETTING, Place::Port)?;
            let gate = Gate::start_in_place(folder)?;
            let time = clients();
            gate.leave(folder)?;
            time
        }
    }
}

fn clients() -> Result<f64> {
    let manner = |first, clients| Manner {
        first,
        clients,
        span: Duration::MAX,
        in_flight: 1,
        pause: Duration::ZERO,
        until: Until::Greeted,
    };
    let crowd = ground::as_client(|| {
        Crowd::play(manner(0, WARM_UP))?;
        Crowd::play(manner(WARM_UP, CLIENTS))
    })?;
    if crowd.lost > 0 || crowd.greeted.is_empty() {
        bail!("{} clients were lost", crowd.lost);
    }
    let times: Vec<f64> = crowd.greeted.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    Ok(median(&times))
}
