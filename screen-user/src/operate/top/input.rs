//! Keys and changes of the terminal's size.

use std::sync::mpsc::Sender;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Heard, Key};

/// Tells what comes from the terminal, until it ends.
pub(super) fn read(sender: &Sender<Heard>) {
    loop {
        let heard = match event::read() {
            Ok(Event::Key(event)) if event.kind != KeyEventKind::Release => key(event).map(Heard::Key),
            Ok(Event::Resize(..)) => Some(Heard::Resized),
            Ok(_) => None,
            Err(_) => Some(Heard::Ended),
        };
        let is_end = matches!(heard, Some(Heard::Ended));
        if heard.is_some_and(|heard| sender.send(heard).is_err()) || is_end {
            return;
        }
    }
}

fn key(event: KeyEvent) -> Option<Key> {
    let with_control = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        KeyCode::Char('c') if with_control => Key::Interrupt,
        KeyCode::Char(_) if with_control => return None,
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        _ => return None,
    })
}
