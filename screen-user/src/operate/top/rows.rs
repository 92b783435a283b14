//! The tables of `mxscreen top`: their columns and rows, filtered and in order.

use std::cmp::Ordering;

use ipnet::IpNet;

use super::{
    rates::Rates,
    snapshot::{Part, Queue, Snapshot, Visitor, Zone},
    text::{harmless, short},
};

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Clients,
    Networks,
    Zones,
    Parts,
    Limits,
}

/// A column: its head, and the least width that it needs. Columns without room are left out, the last ones first.
pub(super) type Column = (&'static str, u16);

/// A row of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// What it is about; for a client or network this is the network.
    pub(super) key: String,
    /// Who it is about, where that can be denied.
    pub(super) visitor: Option<(IpNet, std::net::IpAddr)>,
    pub(super) cells: Vec<Cell>,
}

/// What stands in a column, and what it is sorted by.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Text(String),
    Number(f64, String),
}

/// What a table is sorted by: at first its second column, the largest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) column: usize,
    pub(super) ascending: bool,
}

const VISITORS: [Column; 10] = [
    ("CLIENT", 23),
    ("CONN/S", 7),
    ("OPEN", 5),
    ("DENIED", 7),
    ("STEERED", 8),
    ("PASSED", 7),
    ("REJECTED", 9),
    ("LIMITED", 8),
    ("LEFT", 6),
    ("LAST", 10),
];

impl Tab {
    pub(super) const ALL: [Self; 5] = [Self::Clients, Self::Networks, Self::Zones, Self::Parts, Self::Limits];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Clients => "Clients",
            Self::Networks => "Networks",
            Self::Zones => "DNSBL",
            Self::Parts => "Servers",
            Self::Limits => "Limits",
        }
    }

    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Clients => &VISITORS,
            Self::Networks => &[
                ("NETWORK", 23),
                ("CONN/S", 7),
                ("DENIED", 7),
                ("STEERED", 8),
                ("PASSED", 7),
                ("REJECTED", 9),
                ("LIMITED", 8),
                ("LEFT", 6),
                ("LAST", 10),
            ],
            Self::Zones => {
                &[("ZONE", 24), ("QUERIES/S", 10), ("LISTED", 7), ("ERRORS", 7), ("LATENCY", 10), ("STATE", 14)]
            }
            Self::Parts => &[("PART", 30), ("WELL", 5), ("STATE", 30)],
            Self::Limits => &[("WHAT", 32), ("FULL", 6), ("NOW", 11), ("LIMIT", 11)],
        }
    }

    /// How it is sorted at first.
    pub(super) const fn order(self) -> Order {
        // What is not well comes first.
        Order { column: 1, ascending: matches!(self, Self::Parts) }
    }

    /// Its rows that match `filter`, in order.
    pub(super) fn rows(self, snapshot: &Snapshot, rates: &Rates, filter: &str, order: Order) -> Vec<Row> {
        let mut rows: Vec<Row> = match self {
            Self::Clients => snapshot.clients.iter().map(|client| visitor(client, true)).collect(),
            Self::Networks => snapshot.networks.iter().map(|network| visitor(network, false)).collect(),
            Self::Zones => snapshot.zones.iter().map(|shown| zone(shown, rates)).collect(),
            Self::Parts => snapshot.parts.iter().map(part).collect(),
            Self::Limits => snapshot.queues.iter().map(queue).collect(),
        };
        rows.retain(|row| row.matches(filter));
        rows.sort_by(|a, b| {
            let by_column = a.cells.get(order.column).cmp_cells(b.cells.get(order.column));
            if order.ascending { by_column } else { by_column.reverse() }.then_with(|| a.key.cmp(&b.key))
        });
        rows
    }
}

/// Cells of one column compare as numbers or as texts.
trait CompareCells {
    fn cmp_cells(self, other: Self) -> Ordering;
}

impl CompareCells for Option<&Cell> {
    fn cmp_cells(self, other: Self) -> Ordering {
        match (self, other) {
            (Some(Cell::Number(a, _)), Some(Cell::Number(b, _))) => a.total_cmp(b),
            (Some(Cell::Text(a)), Some(Cell::Text(b))) => a.cmp(b),
            _ => Ordering::Equal,
        }
    }
}

impl Cell {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(_, text) => text,
        }
    }

    fn count(number: u64) -> Self {
        Self::Number(number as f64, if number < 10_000 { number.to_string() } else { short(number as f64) })
    }

    fn percent(share: f64) -> Self {
        Self::Number(share, format!("{:.0}%", share * 100.0))
    }
}

impl Row {
    /// A network or address matches those that it contains or lies in, anything else whatever holds it as text.
    fn matches(&self, filter: &str) -> bool {
        let asked = filter
            .parse::<IpNet>()
            .ok()
            .or_else(|| filter.parse().ok().map(|address: std::net::IpAddr| address.into()));
        match (asked, self.visitor) {
            (Some(asked), Some((net, _))) => asked.contains(&net) || net.contains(&asked),
            _ => {
                let filter = filter.to_lowercase();
                self.cells.iter().any(|cell| cell.text().to_lowercase().contains(&filter))
            }
        }
    }
}

fn visitor(visitor: &Visitor, is_client: bool) -> Row {
    let net = visitor.net.to_string();
    // A client is one address, unless its prefix says more.
    let shown = if visitor.net.prefix_len() == visitor.net.max_prefix_len() {
        visitor.net.addr().to_string()
    } else {
        net.clone()
    };
    let mut cells = vec![Cell::Text(shown), Cell::Number(visitor.per_second, short(visitor.per_second))];
    if is_client {
        cells.push(visitor.open.map_or_else(|| Cell::Number(-1.0, "-".to_owned()), Cell::count));
    }
    let fates = &visitor.fates;
    let left = fates.deferred + fates.left;
    // Whom a dry run lets in is denied, and is with the mail server.
    let (denied, steered) = (fates.denied + fates.let_in, fates.steered + fates.let_in);
    let counts = [denied, steered, fates.forwarded, fates.rejected, fates.limited, left];
    cells.extend(counts.map(Cell::count));
    cells.push(Cell::Text(harmless(&visitor.last)));
    Row { key: net, visitor: Some((visitor.net, visitor.address)), cells }
}

fn zone(zone: &Zone, rates: &Rates) -> Row {
    let rate = rates.zone(&zone.name);
    let latency = rate.latency_ms.map_or_else(
        || Cell::Number(-1.0, "-".to_owned()),
        |latency| Cell::Number(latency, format!("{} ms", short(latency))),
    );
    let name = harmless(&zone.name);
    let cells = vec![
        Cell::Text(name.clone()),
        Cell::Number(rate.per_second, short(rate.per_second)),
        Cell::percent(rate.listed),
        Cell::percent(rate.failed),
        latency,
        Cell::Text(harmless(&zone.state)),
    ];
    Row { key: name, visitor: None, cells }
}

fn part(part: &Part) -> Row {
    let name = harmless(&part.name);
    let well = Cell::Number(u8::from(part.well).into(), if part.well { "yes" } else { "NO" }.to_owned());
    Row { key: name.clone(), visitor: None, cells: vec![Cell::Text(name), well, Cell::Text(harmless(&part.state))] }
}

fn queue(queue: &Queue) -> Row {
    let name = harmless(&queue.name);
    let full =
        queue.limit.map_or_else(|| Cell::Number(-1.0, "-".to_owned()), |limit| Cell::percent(share(queue.now, limit)));
    let limit = queue.limit.map_or_else(
        || Cell::Number(f64::INFINITY, "none".to_owned()),
        |limit| Cell::Number(limit as f64, limit.to_string()),
    );
    let cells = vec![Cell::Text(name.clone()), full, Cell::Number(queue.now as f64, queue.now.to_string()), limit];
    Row { key: name, visitor: None, cells }
}

/// How full something is.
pub(super) fn share(now: u64, limit: u64) -> f64 {
    if limit == 0 { 0.0 } else { now as f64 / limit as f64 }
}
