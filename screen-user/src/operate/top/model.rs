//! What `mxscreen top` shows and does: fed with keys, looks at the gate and answers. It does no I/O and reads no clock.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    rates::Rates,
    rows::{Order, Row, Tab},
    snapshot::Snapshot,
    text::harmless,
};

/// A key that means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Tab,
    BackTab,
    /// Control-C.
    Interrupt,
}

/// Something that has happened.
#[derive(Debug)]
pub(super) enum Heard {
    Key(Key),
    /// A look at the gate, or why there was none.
    Looked(Result<Box<Snapshot>, String>),
    /// What is known of a client.
    Explained(IpAddr, Result<String, String>),
    /// What became of a change.
    Changed(Result<String, String>),
    /// The terminal has another size.
    Resized,
    /// A signal, or the end of the terminal.
    Ended,
}

/// Something that is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    Explain(IpAddr),
    Change(Change),
}

/// A change of the run-time entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) action: Action,
    pub(super) net: IpNet,
    /// How long it holds, in seconds; without it, until it is forgotten.
    pub(super) seconds: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Deny,
    Allow,
    Forget,
}

/// How long an entry may hold: in seconds, and in words.
const TERMS: [(Option<u64>, &str); 5] = [
    (Some(600), "for 10 minutes"),
    (Some(3_600), "for an hour"),
    (Some(86_400), "for a day"),
    (Some(7 * 86_400), "for a week"),
    (None, "until it is forgotten"),
];
/// The term that is offered first.
const USUAL_TERM: usize = 1;
/// Lines of a page.
const PAGE: usize = 10;
/// Characters of a filter.
const FILTER_LENGTH: usize = 45;

/// What lies over the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dialog {
    Help,
    /// What is known of a client; `None` until the gate has answered.
    Explain {
        net: IpNet,
        address: IpAddr,
        text: Option<String>,
        scroll: usize,
    },
    /// Whether that is to be done, to the one that was selected when it was asked for.
    Confirm {
        action: Action,
        net: IpNet,
        term: usize,
    },
}

/// A look at the gate, and what led to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    pub(super) snapshot: Snapshot,
    pub(super) rates: Rates,
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct Model {
    live: Look,
    /// What is shown instead while the display stands still.
    frozen: Option<Box<Look>>,
    pub(super) tab: Tab,
    orders: [Order; 5],
    selections: [Selection; 5],
    pub(super) filter: String,
    /// Whether keys go to the filter.
    pub(super) filtering: bool,
    pub(super) dialog: Option<Dialog>,
    /// Why the gate does not answer, and how many looks have come to nothing.
    pub(super) trouble: Option<(String, u32)>,
    /// What the gate said to the last change.
    pub(super) said: Option<String>,
}

/// The selected row of a table: what it is about, and where it stood, for the time when it is no longer there.
#[derive(Debug, Clone, Default)]
struct Selection {
    key: Option<String>,
    place: usize,
}

impl Model {
    /// Begins with a first look.
    pub(super) fn new(snapshot: Snapshot) -> Self {
        let mut model = Self {
            live: Look::default(),
            frozen: None,
            tab: Tab::Clients,
            orders: Tab::ALL.map(Tab::order),
            selections: Default::default(),
            filter: String::new(),
            filtering: false,
            dialog: None,
            trouble: None,
            said: None,
        };
        model.looked(snapshot);
        model
    }

    /// Takes up what has happened, and says what is to be done.
    pub(super) fn hear(&mut self, heard: Heard) -> Option<Effect> {
        match heard {
            Heard::Key(key) => return self.key(key),
            Heard::Looked(Ok(snapshot)) => self.looked(*snapshot),
            Heard::Looked(Err(why)) => {
                let looks = self.trouble.as_ref().map_or(1, |(_, looks)| looks.saturating_add(1));
                self.trouble = Some((harmless(&why), looks));
            }
            Heard::Explained(asked, answer) => {
                // Somebody else may be explained by now.
                if let Some(Dialog::Explain { address, text, .. }) = &mut self.dialog
                    && *address == asked
                {
                    let answer = answer.unwrap_or_else(|why| why);
                    *text = Some(answer.lines().map(harmless).collect::<Vec<_>>().join("\n"));
                }
            }
            Heard::Changed(answer) => {
                let said = answer.unwrap_or_else(|why| format!("not done: {why}"));
                self.said = Some(harmless(&said.trim_end().replace('\n', "; ")));
            }
            Heard::Resized => {}
            Heard::Ended => return Some(Effect::Quit),
        }
        None
    }

    /// What is shown.
    pub(super) fn look(&self) -> &Look {
        self.frozen.as_deref().unwrap_or(&self.live)
    }

    /// Whether the display stands still.
    pub(super) const fn paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// How the table is sorted.
    pub(super) fn order(&self) -> Order {
        self.orders.get(self.tab as usize).copied().unwrap_or(self.tab.order())
    }

    /// The rows of the table.
    pub(super) fn rows(&self) -> Vec<Row> {
        let Look { snapshot, rates } = self.look();
        self.tab.rows(snapshot, rates, &self.filter, self.order())
    }

    /// Which of these rows is selected.
    pub(super) fn selected(&self, rows: &[Row]) -> usize {
        let selection = self.selections.get(self.tab as usize).cloned().unwrap_or_default();
        let there = selection.key.and_then(|key| rows.iter().position(|row| row.key == key));
        there.unwrap_or_else(|| selection.place.min(rows.len().saturating_sub(1)))
    }

    fn looked(&mut self, snapshot: Snapshot) {
        self.trouble = None;
        self.live.rates.look(&snapshot);
        self.live.snapshot = snapshot;
        let (rows, tab) = (self.rows(), self.tab as usize);
        let place = self.selected(&rows);
        // Where it stands by now, should it be gone at the next look.
        if let Some(selection) = self.selections.get_mut(tab) {
            selection.place = place;
        }
    }

    fn key(&mut self, key: Key) -> Option<Effect> {
        if key == Key::Interrupt {
            return Some(Effect::Quit);
        }
        if self.dialog.is_some() {
            return self.key_in_dialog(key);
        }
        if self.filtering {
            self.key_in_filter(key);
            return None;
        }
        self.said = None;
        match key {
            Key::Char('q') => return Some(Effect::Quit),
            Key::Char('?' | 'h') => self.dialog = Some(Dialog::Help),
            Key::Char('p' | ' ') => {
                self.frozen = if self.paused() { None } else { Some(Box::new(self.live.clone())) };
            }
            Key::Char('/') => self.filtering = true,
            Key::Escape => self.filter.clear(),
            Key::Char('s') => self.sort_by_next(),
            Key::Char('r') => self.with_order(|order| order.ascending = !order.ascending),
            Key::Char(digit @ '1'..='5') => {
                if let Some(tab) = digit.to_digit(10).and_then(|digit| Tab::ALL.get(digit as usize - 1)) {
                    self.tab = *tab;
                }
            }
            Key::Tab | Key::Right => self.turn(1),
            Key::BackTab | Key::Left => self.turn(Tab::ALL.len() - 1),
            Key::Up | Key::Char('k') => self.select(|at, _| at.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.select(|at, last| (at + 1).min(last)),
            Key::PageUp => self.select(|at, _| at.saturating_sub(PAGE)),
            Key::PageDown => self.select(|at, last| (at + PAGE).min(last)),
            Key::Home => self.select(|_, _| 0),
            Key::End => self.select(|_, last| last),
            Key::Enter => return self.enter(),
            Key::Char('d') => self.confirm(Action::Deny),
            Key::Char('a') => self.confirm(Action::Allow),
            Key::Char('f') => self.confirm(Action::Forget),
            Key::Char(_) | Key::Backspace | Key::Interrupt => {}
        }
        None
    }

    fn key_in_filter(&mut self, key: Key) {
        match key {
            Key::Enter => self.filtering = false,
            Key::Escape => {
                self.filtering = false;
                self.filter.clear();
            }
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Char(c) if !c.is_control() && self.filter.chars().count() < FILTER_LENGTH => self.filter.push(c),
            _ => {}
        }
    }

    fn key_in_dialog(&mut self, key: Key) -> Option<Effect> {
        match (self.dialog.as_mut()?, key) {
            (Dialog::Confirm { action, net, term }, Key::Char('y')) => {
                let seconds = TERMS.get(*term).and_then(|(seconds, _)| *seconds);
                let change = Change { action: *action, net: *net, seconds };
                self.dialog = None;
                return Some(Effect::Change(change));
            }
            (Dialog::Confirm { term, .. }, Key::Left) => *term = term.saturating_sub(1),
            (Dialog::Confirm { term, .. }, Key::Right) => *term = (*term + 1).min(TERMS.len() - 1),
            (Dialog::Confirm { .. }, Key::Char('n') | Key::Escape | Key::Char('q')) => self.dialog = None,
            // Whoever types on without looking confirms nothing.
            (Dialog::Confirm { .. }, _) => {}
            (Dialog::Explain { net, .. }, Key::Char(letter @ ('d' | 'a' | 'f'))) => {
                let action = match letter {
                    'd' => Action::Deny,
                    'a' => Action::Allow,
                    _ => Action::Forget,
                };
                self.dialog = Some(Dialog::Confirm { action, net: *net, term: USUAL_TERM });
            }
            (Dialog::Explain { text, scroll, .. }, Key::Up | Key::Down | Key::PageUp | Key::PageDown | Key::Home) => {
                let last = text.as_ref().map_or(0, |text| text.lines().count().saturating_sub(1));
                *scroll = match key {
                    Key::Up => scroll.saturating_sub(1),
                    Key::Down => *scroll + 1,
                    Key::PageUp => scroll.saturating_sub(PAGE),
                    Key::PageDown => *scroll + PAGE,
                    _ => 0,
                }
                .min(last);
            }
            (Dialog::Help | Dialog::Explain { .. }, _) => self.dialog = None,
        }
        None
    }

    fn enter(&mut self) -> Option<Effect> {
        let (net, address) = self.selected_visitor()?;
        if self.tab == Tab::Networks {
            self.filter = net.to_string();
            self.tab = Tab::Clients;
            return None;
        }
        self.dialog = Some(Dialog::Explain { net, address, text: None, scroll: 0 });
        Some(Effect::Explain(address))
    }

    fn confirm(&mut self, action: Action) {
        if let Some((net, _)) = self.selected_visitor() {
            self.dialog = Some(Dialog::Confirm { action, net, term: USUAL_TERM });
        }
    }

    fn selected_visitor(&self) -> Option<(IpNet, IpAddr)> {
        let rows = self.rows();
        rows.get(self.selected(&rows)).and_then(|row| row.visitor)
    }

    fn select(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        let rows = self.rows();
        let place = to(self.selected(&rows), rows.len().saturating_sub(1));
        let key = rows.get(place).map(|row| row.key.clone());
        if let Some(selection) = self.selections.get_mut(self.tab as usize) {
            *selection = Selection { key, place };
        }
    }

    fn turn(&mut self, steps: usize) {
        if let Some(tab) = Tab::ALL.get((self.tab as usize + steps) % Tab::ALL.len()) {
            self.tab = *tab;
        }
    }

    fn sort_by_next(&mut self) {
        let columns = self.tab.columns().len();
        self.with_order(|order| order.column = (order.column + 1) % columns);
    }

    fn with_order(&mut self, change: impl FnOnce(&mut Order)) {
        if let Some(order) = self.orders.get_mut(self.tab as usize) {
            change(order);
        }
    }
}

impl Dialog {
    /// What a confirmation asks.
    pub(super) fn question(&self) -> Option<String> {
        let Self::Confirm { action, net, term } = self else { return None };
        let term = TERMS.get(*term).map_or("", |(_, words)| words);
        Some(match action {
            Action::Deny => format!("Deny {net} {term}?"),
            Action::Allow => format!("Allow {net} {term}?"),
            Action::Forget => format!("Forget all that was entered for or learnt of {net}?"),
        })
    }

    /// Whether it offers several terms.
    pub(super) const fn has_term(&self) -> bool {
        matches!(self, Self::Confirm { action: Action::Deny | Action::Allow, .. })
    }
}

#[cfg(test)]
mod tests;
