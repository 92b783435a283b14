//! Tables in plain text, for terminals and for `cut`.

/// Lines of `rows` under `head`, every column as wide as its widest cell; the last column is not padded.
#[must_use]
pub fn render(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// A time span in the two units that matter: `45s`, `12m`, `3h 20m`, `6d 4h`.
#[must_use]
pub fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// A time in Unix seconds, as it stands in tables; UTC.
#[must_use]
pub fn instant(unix: u64) -> String {
    let time = i64::try_from(unix).ok().and_then(|unix| jiff::Timestamp::from_second(unix).ok());
    time.map_or_else(|| unix.to_string(), |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows =
            vec![vec!["192.0.2.1/32".to_owned(), "1h 0m".to_owned()], vec!["::/0".to_owned(), "for ever".to_owned()]];
        assert_eq!(
            render(&["NETWORK", "ENDS"], &rows),
            "NETWORK       ENDS\n192.0.2.1/32  1h 0m\n::/0          for ever\n"
        );
    }

    #[test]
    fn spans_use_two_units() {
        assert_eq!([59, 60, 3600, 12_000, 187_200].map(span), ["59s", "1m", "1h 0m", "3h 20m", "2d 4h"]);
    }
}
