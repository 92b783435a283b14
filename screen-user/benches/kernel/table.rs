//! What was measured: medians of all rounds, and ratios within the run.

/// All numbers of a run, in the order in which they came up first.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

#[derive(Debug)]
struct Row {
    case: String,
    who: String,
    unit: &'static str,
    values: Vec<f64>,
    /// Whether it was given up, and took longer than what stands here.
    more: bool,
}

impl Table {
    /// Takes up a number of one round, and says it.
    pub(crate) fn add(&mut self, case: &str, who: &str, value: f64, unit: &'static str) {
        println!("{case}, {who}: {value:.3} {unit}");
        self.put(case, who, value, unit, false);
    }

    /// Takes up that something was given up after that long.
    pub(crate) fn give_up(&mut self, case: &str, who: &str, value: f64, unit: &'static str) {
        println!("{case}, {who}: more than {value:.3} {unit}");
        self.put(case, who, value, unit, true);
    }

    /// Whether it was given up in a round before.
    pub(crate) fn gave_up(&self, case: &str, who: &str) -> bool {
        self.0.iter().any(|row| row.case == case && row.who == who && row.more)
    }

    fn put(&mut self, case: &str, who: &str, value: f64, unit: &'static str, more: bool) {
        if let Some(row) = self.0.iter_mut().find(|row| row.case == case && row.who == who) {
            row.values.push(value);
            row.more |= more;
        } else {
            self.0.push(Row { case: case.to_owned(), who: who.to_owned(), unit, values: vec![value], more });
        }
    }

    /// The table in Markdown. Each ratio is by the first row of its case.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec!["| measurement | | median | ratio |".to_owned(), "| --- | --- | ---: | ---: |".to_owned()];
        let first = |case: &str| self.0.iter().find(|row| row.case == case);
        lines.extend(self.0.iter().map(|row| {
            let ratio = match first(&row.case) {
                Some(first) if first.who != row.who => shown(median(&row.values) / median(&first.values)),
                _ => String::new(),
            };
            let more = if row.more { "> " } else { "" };
            let value = shown(median(&row.values));
            format!("| {} | {} | {more}{value} {} | {ratio} |", row.case, row.who, row.unit)
        }));
        lines
    }
}

/// The value in the middle; of an even number, the mean of the two.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    f64::midpoint(sorted.get(low).copied().unwrap_or_default(), sorted.get(high).copied().unwrap_or_default())
}

/// Three digits are enough.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
