//! Bulk through the gate's relay and through HAProxy, and directly.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{
    Turn,
    haproxy::{Haproxy, Tuning},
    pump::{Flow, Sink, pump},
};
use crate::bench::{gate::Gate, ground::SERVER, postscreen::BACKEND, table::Figure, usage};

/// How long bytes move in each measurement, and before the first one.
const SPAN: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_millis(200);
/// Connections at once.
const CONNECTIONS: [usize; 2] = [1, 8];

/// The way that the bytes take.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Haproxy(Tuning),
    Relayed,
    Direct,
}

/// All ways, what is compared with first.
pub(super) const WAYS: [(&str, Way); 5] = [
    ("HAProxy", Way::Haproxy(Tuning::Plain)),
    ("HAProxy, splice-auto", Way::Haproxy(Tuning::SpliceAuto)),
    ("HAProxy, 64 KiB buffers", Way::Haproxy(Tuning::LargeBuffers)),
    ("mxscreen", Way::Relayed),
    ("direct", Way::Direct),
];

/// What stands between client and sink.
enum Between {
    Haproxy(Haproxy),
    Gate(Gate),
    Nothing,
}

impl Between {
    fn cpu_time(&self) -> Result<Option<Duration>> {
        match self {
            Self::Haproxy(proxy) => proxy.cpu_time().map(Some),
            Self::Gate(gate) => usage::cpu_time(gate.pid()?).map(Some),
            Self::Nothing => Ok(None),
        }
    }
}

/// Measures one way, with one connection and several, in either direction.
pub(super) fn measure(way: Way, folder: &Path) -> Result<Turn> {
    let address = if matches!(way, Way::Direct) { SERVER } else { BACKEND.parse().context("no address")? };
    let _sink = Sink::open(address)?;
    let between = match way {
        Way::Haproxy(tuning) => Between::Haproxy(Haproxy::start(tuning, folder)?),
        Way::Relayed => Between::Gate(Gate::start_as_relay(folder)?),
        Way::Direct => Between::Nothing,
    };
    pump(Flow::Up, 1, WARM_UP)?;
    let mut turn = Turn::new();
    for (flow, name) in [(Flow::Up, "to the mail server"), (Flow::Down, "to the client")] {
        for connections in CONNECTIONS {
            let figures = figures(&between, flow, connections)?;
            let plural = if connections == 1 { "" } else { "s" };
            turn.push((format!("{connections} connection{plural} {name}"), figures));
        }
    }
    Ok(turn)
}

fn figures(between: &Between, flow: Flow, connections: usize) -> Result<Vec<Figure>> {
    let cpu = || Ok::<_, anyhow::Error>((between.cpu_time()?, usage::own_cpu_time()?));
    let before = cpu()?;
    let (bytes, time) = pump(flow, connections, SPAN)?;
    let after = cpu()?;
    if bytes == 0 {
        bail!("nothing got through");
    }
    let gigabytes = bytes as f64 / 1e9;
    let each = |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e3 / gigabytes;
    let mut figures = vec![Figure { name: "throughput", value: gigabytes / time.as_secs_f64(), unit: "GB/s" }];
    if let (Some(before), Some(after)) = (before.0, after.0) {
        figures.push(Figure { name: "its CPU a gigabyte", value: each(before, after), unit: "ms" });
    }
    figures.push(Figure { name: "CPU a gigabyte, client and sink", value: each(before.1, after.1), unit: "ms" });
    Ok(figures)
}
