//! What was measured: medians of all rounds, side by side, and their ratios.

use std::{collections::BTreeMap, fmt};

use super::contender::Kind;

/// One number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: f64,
    pub(super) unit: &'static str,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, shown(self.value), self.unit)?;
        Ok(())
    }
}

/// All numbers of a run, in the order in which they came up first.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    case: String,
    name: &'static str,
    unit: &'static str,
    values: BTreeMap<Kind, Vec<f64>>,
}

impl Table {
    /// Takes up the numbers of one round.
    pub(super) fn add(&mut self, case: &str, kind: Kind, figures: &[Figure]) {
        for figure in figures {
            let known = self.rows.iter().position(|row| row.case == case && row.name == figure.name);
            let index = known.unwrap_or(self.rows.len());
            if known.is_none() {
                let (case, name, unit) = (case.to_owned(), figure.name, figure.unit);
                self.rows.push(Row { case, name, unit, values: BTreeMap::new() });
            }
            if let Some(row) = self.rows.get_mut(index) {
                row.values.entry(kind).or_default().push(figure.value);
            }
        }
    }

    /// The table in Markdown. A ratio is ours by theirs.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            "| measurement | | mxscreen | postscreen | ratio |".to_owned(),
            "| --- | --- | ---: | ---: | ---: |".to_owned(),
        ];
        lines.extend(self.rows.iter().map(|row| {
            let middle = |kind| row.values.get(&kind).map(|values| median(values));
            let (ours, theirs) = (middle(Kind::Mxscreen), middle(Kind::Postscreen));
            let with_unit =
                |value: Option<f64>| value.map_or_else(String::new, |value| format!("{} {}", shown(value), row.unit));
            let ratio = match (ours, theirs) {
                (Some(ours), Some(theirs)) if theirs > 0.0 && ours > 0.0 => shown(ours / theirs),
                _ => String::new(),
            };
            let (ours, theirs) = (with_unit(ours), with_unit(theirs));
            format!("| {} | {} | {} | {} | {ratio} |", row.case, row.name, ours.trim_end(), theirs.trim_end())
        }));
        lines
    }
}

/// The value in the middle; of an even number, the mean of the two.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = ((sorted.len().saturating_sub(1)) / 2, sorted.len() / 2);
    (sorted.get(low).copied().unwrap_or_default() + sorted.get(high).copied().unwrap_or_default()) / 2.0
}

/// Three digits are enough, four decimals too.
pub(super) fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: f64) -> Figure {
        Figure { name: "rate", value, unit: "/s" }
    }

    #[test]
    fn medians_stand_side_by_side() {
        let mut table = Table::default();
        for value in [30.0, 10.0, 20.0] {
            table.add("case", Kind::Mxscreen, &[figure(value)]);
        }
        for value in [30.0, 50.0] {
            table.add("case", Kind::Postscreen, &[figure(value)]);
        }
        assert_eq!(table.lines()[2..], ["| case | rate | 20.0 /s | 40.0 /s | 0.500 |"]);
    }

    #[test]
    fn a_ratio_needs_both_sides() {
        let mut table = Table::default();
        table.add("case", Kind::Mxscreen, &[figure(0.0)]);
        table.add("case", Kind::Postscreen, &[figure(5.0)]);
        assert_eq!(table.lines()[2..], ["| case | rate | 0 /s | 5.00 /s |  |"]);
    }
}
