//! The screen of `mxscreen top`. Nothing is said by colour alone.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    symbols::{bar, border},
    text::{Line, Text},
    widgets::{Block, Clear, Paragraph, RenderDirection, Row as TableRow, Sparkline, Table, TableState, Wrap},
};

use super::{
    model::{Dialog, Model},
    rows::{Row, Tab, share},
    snapshot::Fates,
    text::{harmless, short},
};
use crate::operate::table::span;

/// The least that something can be read in.
const LEAST: (u16, u16) = (40, 10);
/// From this height on there is room for sparklines.
const TALL: u16 = 18;
/// What is written before a sparkline.
const LABEL: u16 = 26;

/// A rate: what it is called, and which connections it counts.
type Rate = (&'static str, fn(&Fates) -> u64);

/// Rates by what decides them.
const RATES: [[Rate; 2]; 3] = [
    [("kernel denied", |fates| fates.denied), ("screener passed", |fates| fates.forwarded)],
    [("kernel limited", |fates| fates.limited), ("screener rejected", |fates| fates.rejected)],
    [("kernel steered", |fates| fates.steered + fates.let_in), ("screener left", |fates| fates.deferred + fates.left)],
];

const KEYS: &str = "?:help q:quit Tab:tables /:filter s,r:sort p:pause Enter:explain d:deny a:allow";
const HELP: &str = "\
q, Control-C   quit
1 to 5, Tab    the tables: clients, networks, DNSBL zones, servers, limits
arrows, j k    select a row; PageUp, PageDown, Home, End
Enter          explain the client; of a network: show its clients
d  a  f        deny, allow, or forget the client or network; it asks first
/              show rows that hold this text, or lie in this network
Escape         show all rows again
s  r           sort by the next column; turn the order round
p              stand still; looks at the gate go on

Rates are connections a second. kernel: SYNs denied, SYNs at the limit, and
clients that it gave to the mail server. screener: sessions passed on to the
mail server, rejected, and those that left or were asked to come back.
In a flood clients and networks are those of a sample.";

/// ASCII for terminals that show nothing else.
const ASCII_BARS: bar::Set<'_> = bar::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "=",
    five_eighths: "=",
    half: "-",
    three_eighths: "-",
    one_quarter: ".",
    one_eighth: ".",
    empty: " ",
};
const ASCII_BORDER: border::Set<'_> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appearance {
    pub(super) colour: bool,
    pub(super) unicode: bool,
}

impl Appearance {
    /// As the environment says: NO_COLOR that is not empty, and the locale's encoding.
    pub(super) fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_lowercase();
        Self { colour: set("NO_COLOR").is_none(), unicode: locale.contains("utf-8") || locale.contains("utf8") }
    }

    fn alarm(self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if self.colour { style.fg(Color::Red) } else { style }
    }

    fn block(self, title: &str) -> Block<'_> {
        let border = if self.unicode { border::PLAIN } else { ASCII_BORDER };
        Block::bordered().border_set(border).title(format!(" {title} "))
    }
}

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, appearance: Appearance) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let said = format!("This terminal is too small: {}x{} at least. q quits.", LEAST.0, LEAST.1);
        return frame.render_widget(Paragraph::new(said).wrap(Wrap { trim: true }), area);
    }
    let rates = if area.height < TALL { 1 } else { 4 };
    let heights = [1, rates, 1, 1, 1].map(Constraint::Length);
    let [title, rates, queues, message, tabs, table, keys] =
        Layout::vertical(heights.into_iter().chain([Constraint::Fill(1), Constraint::Length(1)])).areas(area);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Line::styled(heading(model), bold), title);
    draw_rates(frame, model, appearance, rates);
    frame.render_widget(Line::raw(queues_line(model, queues.width)), queues);
    draw_message(frame, model, appearance, message);
    frame.render_widget(Line::styled(tabs_line(model), bold), tabs);
    draw_table(frame, model, appearance, table);
    frame.render_widget(Line::raw(KEYS), keys);
    if let Some(dialog) = &model.dialog {
        draw_dialog(frame, dialog, appearance, area);
    }
}

fn heading(model: &Model) -> String {
    let snapshot = &model.look().snapshot;
    let mut text = format!(
        "mxscreen {} on {}, up {}",
        harmless(&snapshot.version),
        harmless(&snapshot.hostname),
        span(snapshot.uptime_ms / 1000)
    );
    let marks = [
        (!snapshot.kernel, "user space only"),
        (snapshot.dry_run, "DRY RUN"),
        (snapshot.stress, "STRESS"),
        (model.paused(), "PAUSED"),
    ];
    for (_, mark) in marks.into_iter().filter(|(holds, _)| *holds) {
        text.push_str(", ");
        text.push_str(mark);
    }
    text
}

fn draw_rates(frame: &mut Frame<'_>, model: &Model, appearance: Appearance, area: Rect) {
    let rates = &model.look().rates;
    let newest = |count| short(rates.series(count).first().copied().unwrap_or(0.0));
    if area.height == 1 {
        let all = RATES.iter().flatten().map(|(name, count)| format!("{name} {}", newest(*count)));
        let line = format!("{}/s: {}", newest(Fates::sum), all.collect::<Vec<_>>().join(", "));
        return frame.render_widget(Line::raw(line), area);
    }
    let draw = |frame: &mut Frame<'_>, area: Rect, name: &str, count: fn(&Fates) -> u64| {
        let [label, line] = Layout::horizontal([Constraint::Length(LABEL), Constraint::Fill(1)]).areas(area);
        frame.render_widget(Line::raw(format!("{name:<17}{:>6}/s", newest(count))), label);
        let hundredths = rates.series(count).into_iter().map(|rate| (rate * 100.0) as u64);
        let bars = if appearance.unicode { bar::NINE_LEVELS } else { ASCII_BARS };
        let sparkline = Sparkline::default().data(hundredths).direction(RenderDirection::RightToLeft).bar_set(bars);
        frame.render_widget(sparkline, line);
    };
    let [all, lines @ ..] = Layout::vertical([Constraint::Length(1); 4]).areas::<4>(area);
    draw(frame, all, "all connections", Fates::sum);
    for (line, pair) in lines.into_iter().zip(RATES) {
        let halves = Layout::horizontal([Constraint::Fill(1); 2]).spacing(2).areas::<2>(line);
        for (half, (name, count)) in halves.into_iter().zip(pair) {
            draw(frame, half, name, count);
        }
    }
}

/// What is bounded and how full it is, as much as there is room for, and whether all is well.
fn queues_line(model: &Model, width: u16) -> String {
    let snapshot = &model.look().snapshot;
    let unwell = snapshot.parts.iter().filter(|part| !part.well).count();
    let mut text = if unwell == 0 { "all servers well".to_owned() } else { format!("{unwell} NOT WELL (see 4)") };
    for queue in &snapshot.queues {
        let limit = queue
            .limit
            .map_or_else(String::new, |limit| format!("/{} ({:.0}%)", limit, 100.0 * share(queue.now, limit)));
        let more = format!(" | {} {}{limit}", queue.name, queue.now);
        if text.len() + more.len() > usize::from(width) {
            break;
        }
        text.push_str(&harmless(&more));
    }
    text
}

fn draw_message(frame: &mut Frame<'_>, model: &Model, appearance: Appearance, area: Rect) {
    let line = match (&model.trouble, &model.said) {
        (Some((why, looks)), _) => {
            Line::styled(format!("NO ANSWER (looks: {looks}), this is old: {why}"), appearance.alarm())
        }
        (None, Some(said)) => Line::styled(said.clone(), Style::new().add_modifier(Modifier::BOLD)),
        (None, None) if model.filtering => {
            Line::raw(format!("filter: {}_   (Enter keeps it, Escape drops it)", model.filter))
        }
        (None, None) => Line::default(),
    };
    frame.render_widget(line, area);
}

fn tabs_line(model: &Model) -> String {
    let tabs = Tab::ALL.iter().zip(1..).map(|(tab, number)| {
        if *tab == model.tab { format!("[{number} {}]", tab.name()) } else { format!(" {number} {} ", tab.name()) }
    });
    let mut text = tabs.collect::<String>();
    if !model.filter.is_empty() {
        text.push_str("  filter: ");
        text.push_str(&harmless(&model.filter));
    }
    text
}

fn draw_table(frame: &mut Frame<'_>, model: &Model, appearance: Appearance, area: Rect) {
    let (rows, order) = (model.rows(), model.order());
    let columns = model.tab.columns();
    // The mark of the selected row comes first.
    let mut room = i32::from(area.width) - 2;
    let fitting = columns.iter().take_while(|(_, width)| {
        room -= i32::from(*width) + 1;
        room >= -1
    });
    let count = fitting.count().max(1);
    // What is left over goes to the column that can use it.
    let widest = if matches!(model.tab, Tab::Zones | Tab::Parts) && count == columns.len() { count - 1 } else { 0 };
    let widths = columns
        .iter()
        .take(count)
        .enumerate()
        .map(|(at, (_, width))| if at == widest { Constraint::Min(*width) } else { Constraint::Length(*width) });
    let is_text = |at: usize| columns.get(at).is_some_and(|(name, _)| at == 0 || matches!(*name, "LAST" | "STATE"));
    let aligned = |at: usize, text: String| if is_text(at) { Line::raw(text) } else { Line::raw(text).right_aligned() };
    let head = columns.iter().take(count).enumerate().map(|(at, (name, _))| {
        let mark = match (at == order.column, order.ascending) {
            (true, true) => "^",
            (true, false) => "v",
            (false, _) => "",
        };
        aligned(at, format!("{name}{mark}"))
    });
    let body = rows.iter().map(|row: &Row| {
        let cells = row.cells.iter().take(count).enumerate();
        let unwell = model.tab == Tab::Parts && row.cells.get(1).is_some_and(|cell| cell.text() == "NO");
        let shown = TableRow::new(cells.map(|(at, cell)| aligned(at, cell.text().to_owned())));
        if unwell { shown.style(appearance.alarm()) } else { shown }
    });
    let selected = (!rows.is_empty()).then(|| model.selected(&rows));
    let table = Table::new(body, widths)
        .header(TableRow::new(head).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .highlight_symbol("> ");
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(selected));
}

fn draw_dialog(frame: &mut Frame<'_>, dialog: &Dialog, appearance: Appearance, area: Rect) {
    let (title, text, scroll) = match dialog {
        Dialog::Help => ("Help: any key closes it", HELP.to_owned(), 0),
        Dialog::Explain { net, text, scroll, .. } => {
            let text = text.clone().unwrap_or_else(|| format!("{net}: asking the gate"));
            ("Explain: arrows scroll, d a f as ever, any other key closes it", text, *scroll)
        }
        Dialog::Confirm { .. } => {
            let term = if dialog.has_term() { "\nLeft, Right: for a shorter or longer time" } else { "" };
            let question = dialog.question().unwrap_or_default();
            ("Sure?", format!("{question}{term}\ny: yes    n, Escape: no"), 0)
        }
    };
    let lines = u16::try_from(text.lines().count()).unwrap_or(u16::MAX);
    let [middle] =
        Layout::vertical([Constraint::Length(lines.saturating_add(2))]).flex(ratatui::layout::Flex::Center).areas(area);
    let [inner] =
        Layout::horizontal([Constraint::Length(area.width.min(100))]).flex(ratatui::layout::Flex::Center).areas(middle);
    frame.render_widget(Clear, inner);
    let scroll = u16::try_from(scroll).unwrap_or(u16::MAX);
    frame.render_widget(Paragraph::new(Text::raw(text)).scroll((scroll, 0)).block(appearance.block(title)), inner);
}

#[cfg(test)]
mod tests;
