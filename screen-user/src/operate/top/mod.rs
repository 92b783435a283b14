//! `mxscreen top`: what the gate does, live, in the terminal.
//!
//! Threads wait for keys, signals and the gate, and tell `model::Model`, which says what is to be done; `view` draws it.

mod input;
mod model;
mod rates;
mod rows;
pub mod snapshot;
mod text;
mod view;

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    sync::mpsc::{self, Sender},
    thread,
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal};
use serde_json::Value;

use self::{
    model::{Action, Change, Effect, Heard, Model},
    snapshot::Snapshot,
    view::Appearance,
};
use super::{
    exit::Failure,
    explain,
    request::{self, Entry, Request},
};

/// How long a look at the gate may take before it is said that there is no answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks, at least.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Shows the gate until the operator has seen enough. Once it has begun, a gate that goes away is waited for.
///
/// # Errors
/// Standard output is no terminal (exit 64), no gate answers at the start, or the terminal is lost.
pub fn run(gate: &Path, interval: Duration) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::usage("standard output is no terminal: `mxscreen status` prints the same once"));
    }
    let mut model = Model::new(look(gate)?);
    // Before the first thread, so that only the one that waits for them is told.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().map_err(Failure::unavailable)?;
    let (sender, heard) = mpsc::channel();
    let mut terminal = ratatui::try_init().map_err(Failure::unavailable)?;
    spawn(&sender, move |sender| {
        // It only fails for what is no signal.
        let _ = signals.wait();
        let _ = sender.send(Heard::Ended);
    });
    spawn(&sender, input::read);
    let watched = gate.to_owned();
    spawn(&sender, move |sender| watch(&watched, interval.max(SHORTEST_INTERVAL), sender));
    let appearance = Appearance::of_environment(|name| std::env::var(name).ok());
    let shown = (|| {
        loop {
            terminal.draw(|frame| view::draw(frame, &model, appearance))?;
            // The channel ends with `sender`, which lives here.
            let Ok(heard) = heard.recv() else { return Ok(()) };
            match model.hear(heard) {
                Some(Effect::Quit) => return Ok(()),
                Some(effect) => carry_out(effect, gate.to_owned(), &sender),
                None => {}
            }
        }
    })();
    ratatui::restore();
    shown.map_err(|error: io::Error| Failure::unavailable(format!("the terminal: {error}")))
}

fn spawn(sender: &Sender<Heard>, work: impl FnOnce(&Sender<Heard>) + Send + 'static) {
    let sender = sender.clone();
    thread::spawn(move || work(&sender));
}

fn look(gate: &Path) -> Result<Snapshot, Failure> {
    let answer = request::ask_within(gate, &Request::Top, PATIENCE)?;
    serde_json::from_value(answer)
        .map_err(|error| Failure::unavailable(format!("the gate is another version: {error}")))
}

fn watch(gate: &Path, interval: Duration, sender: &Sender<Heard>) {
    loop {
        thread::sleep(interval);
        let looked = look(gate).map(Box::new).map_err(|failure| failure.message);
        if sender.send(Heard::Looked(looked)).is_err() {
            return;
        }
    }
}

/// Asks the gate what the operator wants to know, or to do what is wanted of it. Nobody waits for that.
fn carry_out(effect: Effect, gate: PathBuf, sender: &Sender<Heard>) {
    spawn(sender, move |sender| {
        let heard = match effect {
            Effect::Quit => Heard::Ended,
            Effect::Explain(address) => {
                Heard::Explained(address, explain::shown(&gate, address).map_err(|failure| failure.message))
            }
            Effect::Change(change) => Heard::Changed(ask(&gate, change).map_err(|failure| failure.message)),
        };
        // Whoever has left meanwhile wants no answer.
        let _ = sender.send(heard);
    });
}

fn ask(gate: &Path, Change { action, net, seconds }: Change) -> Result<String, Failure> {
    let entry = Entry { net, seconds, reason: "mxscreen top".to_owned() };
    let answer = request::ask(
        gate,
        &match action {
            Action::Deny => Request::Deny(entry),
            Action::Allow => Request::Allow(entry),
            Action::Forget => Request::Forget { net },
        },
    )?;
    let sentences = answer.as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok(sentences.collect::<Vec<_>>().join("\n"))
}
