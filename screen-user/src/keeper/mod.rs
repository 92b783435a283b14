//! The keeper: the process that has the privileges, and reads nothing from the network.
//!
//! It reads the configuration, opens sockets and files, loads and attaches the kernel half, follows interfaces, and starts the screener,
//! to which it hands what that one needs as descriptors. When a screener ends before its time, the next one takes its place: the
//! sockets that clients come in by stay open meanwhile, and the kernel half goes on by the tables that it has.

mod account;
mod channel;
mod connect;
mod equip;
mod heir;
mod interfaces;
mod kernel;
mod link;
mod lists;
mod message;
mod post;
mod recount;
mod shift;
mod systemd;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    heir::{Heirlooms, Relieved, Successor},
    post::Post,
    shift::{End, Served, Shift},
};
pub use self::{
    link::{Equipment, Keeper, Reread},
    lists::{ListFile, Stamp},
    message::{DO_YOU_HEAR, Description, LISTS, RELAY_NO_MORE, RELOAD, RETIRE, STOP},
};
use crate::{
    config::{self, Facts, Host, Loaded},
    operate::{
        exit::{Failure, chain},
        log::{Log, Target, Writer},
        trace,
    },
};

/// A screener that lasts this long has not failed at what it began with.
const SETTLED: Duration = Duration::from_secs(10);
/// How long relieved screeners are waited for when the gate stops: their sessions have half a minute.
const DRAINING: Duration = Duration::from_secs(35);
/// The longest pause before the next try, when one screener after the other ends early.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where the configuration comes from.
#[derive(Debug, Clone)]
struct Source {
    path: PathBuf,
    overrides: Vec<(String, String)>,
}

impl Source {
    /// Reads it, and everything that it names.
    fn read(&self) -> Result<(Loaded, Facts), Failure> {
        let host = Host::here();
        let loaded = config::load(&host, &self.path, &self.overrides).map_err(Failure::usage)?;
        Ok((loaded, host.facts()))
    }

    /// As the command line says it.
    fn words(&self) -> Vec<String> {
        let set = |(key, value): &(String, String)| ["--set".to_owned(), format!("{key}={value}")];
        let config = ["--config".to_owned(), self.path.display().to_string()];
        config.into_iter().chain(self.overrides.iter().flat_map(set)).collect()
    }
}

/// What an operator can want of a running gate by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Stop,
    Reload,
}

/// The signals that are orders.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(Failure::unavailable);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// The next order.
    async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::Stop,
            _ = self.interrupt.recv() => Order::Stop,
            _ = self.hang_up.recv() => Order::Reload,
        }
    }
}

/// How the keeper ends.
enum Ended {
    Stopped,
    /// Another version of the program takes over.
    Succeeded(Box<Successor>),
}

/// Runs the gate in the foreground until it is told to stop. With `heir`, another version of it has left its sockets.
///
/// # Errors
/// The configuration is wrong (exit 64), something that it needs is not there (69), or a privilege is missing (77). Nothing
/// has been started or changed then.
pub fn run(path: &Path, overrides: &[(String, String)], heir: bool) -> Result<(), Failure> {
    take_descriptors();
    let heirlooms = if heir { Some(Heirlooms::receive()?) } else { None };
    let source = Source { path: path.to_owned(), overrides: overrides.to_vec() };
    let (loaded, facts) = source.read()?;
    let target = Target::open(&loaded.config.log).map_err(|error| Failure::of_system(&error))?;
    let (log, writer) = Log::start(target).map_err(|error| Failure::of_system(&error))?;
    trace::into_log(log.clone(), loaded.config.kernel.debug);
    let heirlooms = heirlooms.unwrap_or_else(|| Heirlooms::of_systemd(&log));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::unavailable)?;
    let ended = runtime.block_on(keep(source, loaded, facts, log, heirlooms));
    drop(runtime);
    Writer::finish(writer);
    match ended? {
        Ended::Stopped => Ok(()),
        Ended::Succeeded(successor) => Err(successor.execute()),
    }
}

/// As many descriptors as may be had, for the screener too: a waiting client takes one. What is usual is for programs that use select(2).
fn take_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // With fewer it works as well.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// One screener after the other, until one has ended as it was told to.
async fn keep(
    source: Source,
    loaded: Loaded,
    facts: Facts,
    log: Log,
    mut heirlooms: Heirlooms,
) -> Result<Ended, Failure> {
    let mut signals = Signals::new()?;
    let mut post = Post::open(source, loaded, facts, log.clone(), &mut heirlooms).await?;
    post.relieved = heirlooms.relieved;
    // Screeners in a row that did not last.
    let mut short_lived = 0;
    let mut begun = false;
    loop {
        let Served { end, installation, active_since } = Shift::start(&mut post)?.serve(&mut post, &mut signals).await;
        begun |= active_since.is_some();
        let why = match end {
            End::Stopped => {
                post.relieved.iter_mut().for_each(Relieved::stop);
                heir::wait_for(std::mem::take(&mut post.relieved), DRAINING).await;
                return Ok(Ended::Stopped);
            }
            End::Retired(screener) => {
                if let Some(installation) = &installation {
                    installation.leave();
                }
                log.info("another version takes over");
                let successor = Successor::prepare(post, *screener).map_err(Failure::unavailable)?;
                return Ok(Ended::Succeeded(Box::new(successor)));
            }
            End::Failed(failure) if !begun => return Err(failure),
            End::Failed(failure) => failure.message,
            End::Died(why) => why,
        };
        let settled = active_since.is_some_and(|since| since.elapsed() > SETTLED);
        short_lived = if settled { 0 } else { short_lived + 1 };
        let pause = pause_after(short_lived);
        // The next one gets its time, too.
        systemd::alive();
        log.warn(format!("{why}; the next one begins in {} s", pause.as_secs()));
        if let Some(installation) = &installation {
            // The denied stay denied, the known good reach the mail server.
            installation.leave();
            if !pause.is_zero() {
                // Strangers get what `kernel.on_screener_down` says; meanwhile they would wait in the sockets' queues.
                if let Err(error) = installation.unregister_listeners() {
                    log.warn(chain(&error));
                }
            }
        }
        drop(installation);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop_asked(&mut signals) => return Ok(Ended::Stopped),
        }
    }
}

async fn stop_asked(signals: &mut Signals) {
    while signals.next().await != Order::Stop {
        // Nobody is there to read the configuration; whoever has ordered it is not to wait for ever.
        systemd::reloading();
        systemd::ready();
    }
}

/// The first accident costs no pause; from then on it is a second, and twice as long each time.
fn pause_after(short_lived: u32) -> Duration {
    match short_lived {
        0 | 1 => Duration::ZERO,
        more => Duration::from_secs(1 << (more - 2).min(5)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_half_a_minute() {
        let pauses = [0, 1, 2, 3, 4, 6, 7, 8, u32::MAX].map(|count| pause_after(count).as_secs());
        assert_eq!(pauses, [0, 0, 1, 2, 4, 16, 30, 30, 30]);
    }
}
