//! `cargo xtask bench screener`: the gate beside Debian's postscreen, same namespaces, same clients, in turns.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{
    Options,
    contender::{Contender, Cpu, Kind, Setting},
    crowd::{Crowd, Manner, Until},
    ground::{self, CLIENTS},
    postscreen,
    table::{Figure, Table},
};
use crate::process::say;

/// How long new clients keep coming in the measurements of a rate.
const SPAN: Duration = Duration::from_secs(4);
/// Clients that come before anything is measured, so that code and first allocations are there.
const WARM_UP: u32 = 200;
/// Clients that are handed over in that measurement, and the pause before each: the mail server behind is the slowest part.
const HANDED_OVER: u32 = 1000;
const HAND_OVER_PAUSE: Duration = Duration::from_millis(4);
/// Well-behaved clients that come while the house is full, and the pause before each.
const GOOD: u32 = 50;
const GOOD_PAUSE: Duration = Duration::from_millis(20);
/// The greet wait in a full house: long enough that nobody's ends while it fills.
const LONG_WAIT: u16 = 15;

/// One measurement.
#[derive(Clone, Copy)]
enum Case {
    /// New clients as fast as they are let in, with so many connects in flight.
    Flood { in_flight: usize },
    /// Clients that the mail server takes over.
    HandOver,
    /// Many clients that wait, and good ones that come meanwhile.
    FullHouse { waiting: u16 },
}

impl Case {
    fn name(self) -> String {
        match self {
            Self::Flood { in_flight } => format!("flood {in_flight} in flight"),
            Self::HandOver => "hand-over".to_owned(),
            Self::FullHouse { waiting } => format!("full house of {waiting}"),
        }
    }

    fn setting(self) -> Setting {
        match self {
            Self::Flood { .. } => Setting { greet_wait: 1, known: false, deep: &["bare_newline"], mail_server: false },
            Self::HandOver => Setting { greet_wait: 1, known: false, deep: &[], mail_server: true },
            Self::FullHouse { .. } => {
                Setting { greet_wait: LONG_WAIT, known: false, deep: &["bare_newline"], mail_server: false }
            }
        }
    }
}

/// Measures everything and prints medians and ratios.
pub(super) fn run(options: &Options) -> Result<ExitCode> {
    ground::make()?;
    say(&format!(
        "mxscreen {} (layout front, kernel part off, cache in memory) beside postscreen of Postfix {}",
        env!("CARGO_PKG_VERSION"),
        postscreen::version()?
    ));
    let cases = [
        Case::Flood { in_flight: 50 },
        Case::Flood { in_flight: 400 },
        Case::HandOver,
        Case::FullHouse { waiting: options.waiting },
    ];
    let mut table = Table::default();
    for case in cases.into_iter().filter(|case| options.wants(&case.name())) {
        for round in 0..options.rounds {
            // Whoever goes first may find a cooler machine: the turns change.
            let mut turns = [Kind::Mxscreen, Kind::Postscreen];
            if round % 2 == 1 {
                turns.reverse();
            }
            for kind in turns {
                let folder = tempfile::tempdir_in("/run").context("can't make a folder")?;
                let figures = measure(case, kind, folder.path())
                    .with_context(|| format!("{} of {}, round {}", case.name(), kind.name(), round + 1))?;
                let shown = figures.iter().map(ToString::to_string).collect::<Vec<_>>();
                say(&format!("{}, round {}, {}: {}", case.name(), round + 1, kind.name(), shown.join(", ")));
                table.add(&case.name(), kind, &figures);
            }
        }
    }
    say("");
    table.lines().iter().for_each(|line| say(line));
    Ok(ExitCode::SUCCESS)
}

fn measure(case: Case, kind: Kind, folder: &Path) -> Result<Vec<Figure>> {
    // Postfix wants to reach its directories as another user.
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).context("chmod")?;
    let contender = Contender::start(kind, case.setting(), folder)?;
    let wait = Duration::from_secs(case.setting().greet_wait.into());
    match case {
        Case::Flood { in_flight } => {
            warm_up()?;
            let (crowd, mut figures) =
                crowd_figures(&contender, Manner { in_flight, ..new_clients(CLIENTS - WARM_UP) })?;
            figures.insert(0, Figure { name: "clients a second", value: rate(&crowd, wait), unit: "" });
            Ok(figures)
        }
        Case::HandOver => {
            warm_up()?;
            let paced = Manner { pause: HAND_OVER_PAUSE, span: Duration::MAX, ..new_clients(HANDED_OVER) };
            crowd_figures(&contender, paced).map(|(_, figures)| figures)
        }
        Case::FullHouse { waiting } => full_house(&contender, waiting.into(), wait),
    }
}

fn new_clients(clients: u32) -> Manner {
    Manner { first: WARM_UP, clients, span: SPAN, in_flight: 50, pause: Duration::ZERO, until: Until::Greeted }
}

fn warm_up() -> Result<()> {
    let manner = Manner { first: 0, span: Duration::MAX, ..new_clients(WARM_UP) };
    ground::as_client(|| Crowd::play(manner)).map(drop)
}

/// A crowd that comes, is screened, passes and goes, and what it cost.
fn crowd_figures(contender: &Contender, manner: Manner) -> Result<(Crowd, Vec<Figure>)> {
    let before = contender.cpu_time()?;
    let crowd = ground::as_client(|| Crowd::play(manner))?;
    let after = contender.cpu_time()?;
    let passed = crowd.greeted.len();
    if passed == 0 {
        bail!("no client passed");
    }
    let mut figures = vec![
        Figure { name: "until admitted, 99 %", value: percentile(&crowd.admitted, 99).as_secs_f64() * 1e3, unit: "ms" },
        Figure { name: "lost", value: crowd.lost as f64, unit: "" },
    ];
    figures.extend(cpu_figures(before, after, passed));
    Ok((crowd, figures))
}

/// Clients greeted a second while new ones kept coming. The first second is left out, in which nobody had waited yet, and whole seconds
/// are looked at, as postscreen's timers go off once a second.
fn rate(crowd: &Crowd, wait: Duration) -> f64 {
    let (begin, end) = (wait + Duration::from_secs(1), wait + SPAN);
    crowd.greeted_within(begin..end) as f64 / (end - begin).as_secs_f64()
}

fn cpu_figures(before: Cpu, after: Cpu, clients: usize) -> [Figure; 2] {
    let each = |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / clients as f64;
    [
        Figure { name: "CPU a client", value: each(before.screener, after.screener), unit: "µs" },
        Figure { name: "CPU a client, separate logger", value: each(before.logger, after.logger), unit: "µs" },
    ]
}

/// Fills the house, weighs it, and lets good clients come.
fn full_house(contender: &Contender, waiting: u32, wait: Duration) -> Result<Vec<Figure>> {
    // Its clients leave before their greeting.
    let few = Manner { first: 0, span: Duration::MAX, until: Until::Admitted, ..new_clients(WARM_UP) };
    ground::as_client(|| Crowd::play(few)).map(drop)?;
    std::thread::sleep(Duration::from_millis(300));
    let empty = contender.resident()?;
    let manner = Manner { span: Duration::MAX, until: Until::Admitted, ..new_clients(waiting) };
    let (house, good, full) = ground::as_client(|| {
        let house = Crowd::play(manner)?;
        let full = contender.resident()?;
        let manner = Manner {
            first: WARM_UP + waiting,
            pause: GOOD_PAUSE,
            until: Until::Greeted,
            span: Duration::MAX,
            ..new_clients(GOOD)
        };
        let good = Crowd::play(manner)?;
        Ok((house, good, full))
    })?;
    let extra = |greeted: Duration| (greeted.as_secs_f64() - wait.as_secs_f64()) * 1e3;
    let each = full.saturating_sub(empty) as f64 / f64::from(waiting);
    let filled = house.admission.as_secs_f64();
    if filled > wait.as_secs_f64() {
        say(&format!("the house took {filled:.1} s to fill: its first clients have been greeted meanwhile"));
    }
    Ok(vec![
        Figure { name: "resident memory a waiting client", value: each, unit: "B" },
        Figure { name: "resident memory, empty", value: empty as f64 / 1e6, unit: "MB" },
        Figure { name: "time to fill", value: filled, unit: "s" },
        Figure { name: "good client's extra delay, median", value: extra(percentile(&good.greeted, 50)), unit: "ms" },
        Figure { name: "good client's extra delay, worst", value: extra(percentile(&good.greeted, 100)), unit: "ms" },
        Figure { name: "lost", value: (house.lost + good.lost) as f64, unit: "" },
    ])
}

/// The value below or at which so many per cent of all are; zero for none at all.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
