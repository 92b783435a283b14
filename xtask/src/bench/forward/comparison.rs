//! Several ways side by side: medians of all rounds, each with its ratio to the first way's.

use crate::bench::table::{Figure, median, shown};

/// All numbers of one part, in the order in which they came up first.
#[derive(Debug)]
pub(super) struct Comparison {
    ways: Vec<&'static str>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    case: String,
    name: &'static str,
    unit: &'static str,
    /// By way.
    values: Vec<Vec<f64>>,
}

impl Comparison {
    pub(super) fn of(ways: impl Iterator<Item = &'static str>) -> Self {
        Self { ways: ways.collect(), rows: Vec::new() }
    }

    /// Takes up the numbers of one turn of the way number `way`.
    pub(super) fn add(&mut self, case: &str, way: usize, figures: &[Figure]) {
        for figure in figures {
            let known = self.rows.iter().position(|row| row.case == case && row.name == figure.name);
            let index = known.unwrap_or(self.rows.len());
            if known.is_none() {
                let values = vec![Vec::new(); self.ways.len()];
                self.rows.push(Row { case: case.to_owned(), name: figure.name, unit: figure.unit, values });
            }
            if let Some(values) = self.rows.get_mut(index).and_then(|row| row.values.get_mut(way)) {
                values.push(figure.value);
            }
        }
    }

    /// The table in Markdown.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("| measurement | | {} |", self.ways.join(" | ")),
            format!("| --- | --- |{}", " ---: |".repeat(self.ways.len())),
        ];
        lines.extend(
            self.rows.iter().map(|row| format!("| {} | {} | {} |", row.case, row.name, row.cells().join(" | "))),
        );
        lines
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let first = self.values.first().filter(|values| !values.is_empty()).map(|values| median(values));
        let cell = |(way, values): (usize, &Vec<f64>)| {
            if values.is_empty() {
                return String::new();
            }
            let value = median(values);
            let with_unit = format!("{} {}", shown(value), self.unit);
            match first {
                Some(first) if way > 0 && first > 0.0 => format!("{} ({})", with_unit.trim_end(), shown(value / first)),
                _ => with_unit.trim_end().to_owned(),
            }
        };
        self.values.iter().enumerate().map(cell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &'static str, value: f64) -> Figure {
        Figure { name, value, unit: "ms" }
    }

    #[test]
    fn every_way_is_compared_with_the_first() {
        let mut table = Comparison::of(["one", "two", "three"].into_iter());
        for value in [30.0, 10.0, 20.0] {
            table.add("case", 0, &[figure("time", value)]);
        }
        table.add("case", 1, &[figure("time", 40.0), figure("other", 7.0)]);
        assert_eq!(
            table.lines(),
            [
                "| measurement | | one | two | three |",
                "| --- | --- | ---: | ---: | ---: |",
                "| case | time | 20.0 ms | 40.0 ms (2.00) |  |",
                "| case | other |  | 7.00 ms |  |",
            ]
        );
    }
}
