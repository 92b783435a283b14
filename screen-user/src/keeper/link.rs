//! The screener's end: what it is handed at the start, and what it asks for later.

use std::{
    fs::File,
    io::{self, Read as _},
    net::TcpListener,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    channel::Channel,
    lists::{ListFile, Stamp},
    message::{Begin, Description, Handed, ToKeeper, ToScreener},
};
use crate::{
    cache::Disk,
    config::{Facts, Host},
    journal::Open,
    kernel::Maps,
    operate::exit::Failure,
};

/// What a screener works with.
#[derive(Debug)]
pub struct Equipment {
    /// Whom to ask.
    pub keeper: Keeper,
    /// Where orders come from.
    pub orders: UnixStream,
    /// The control socket.
    pub control: UnixListener,
    /// The sockets that clients come in by.
    pub listeners: Vec<TcpListener>,
    /// The sockets that Prometheus asks.
    pub metrics: Vec<TcpListener>,
    /// The log's file or socket, unless that is standard error.
    pub log: Option<OwnedFd>,
    /// The kernel half's maps, if it runs.
    pub maps: Option<Maps>,
    /// Whether the mail server's listeners are known to it.
    pub finds_servers: bool,
    /// What the configuration takes from the host.
    pub host: Host,
    /// Where the configuration is.
    pub config: PathBuf,
    /// What the command line says over it.
    pub overrides: Vec<(String, String)>,
    /// What there is to say to the operator.
    pub notices: Vec<String>,
}

/// The keeper, as the screener sees it. Clones are the same; each call waits for its answer.
#[derive(Debug, Clone)]
pub struct Keeper {
    channel: Arc<Mutex<Channel>>,
}

/// A configuration that was read anew.
#[derive(Debug)]
pub struct Reread {
    /// What it takes from the host, or what is wrong with it.
    pub host: Result<Host, Failure>,
    /// The log file, opened again, whatever comes of the configuration.
    pub log: Option<OwnedFd>,
}

impl Equipment {
    /// Takes what the keeper hands over, by the socket that it has put in the place of standard input.
    ///
    /// # Errors
    /// There is no keeper, or it has ended.
    pub fn receive() -> Result<Self, Failure> {
        let lost = |error: io::Error| {
            Failure::usage(format!("the screener is started by `mxscreen run` and by nobody else ({error})"))
        };
        let channel = Channel::from(io::stdin().as_fd().try_clone_to_owned().map_err(lost)?);
        let (mut pile, begin) = Pile::receive(&channel).map_err(lost)?;
        let Begin { config, overrides, users, processors, finds_servers, notices } = begin;
        pile.facts.users = users;
        let missing = |what: &str| Failure::bug(format!("the keeper has not handed over {what}"));
        Ok(Self {
            keeper: Keeper { channel: Arc::new(Mutex::new(channel)) },
            orders: pile.orders.ok_or_else(|| missing("where orders come from"))?,
            control: pile.control.ok_or_else(|| missing("the control socket"))?,
            listeners: pile.listeners,
            metrics: pile.metrics,
            log: pile.log,
            maps: processors.map(|processors| {
                let mut maps = Maps::new(processors);
                pile.maps.into_iter().for_each(|(name, map)| maps.insert(name, map));
                maps
            }),
            finds_servers,
            host: Host::remembered(pile.facts),
            config,
            overrides,
            notices,
        })
    }
}

/// What has been handed over so far.
#[derive(Debug, Default)]
struct Pile {
    orders: Option<UnixStream>,
    control: Option<UnixListener>,
    listeners: Vec<TcpListener>,
    metrics: Vec<TcpListener>,
    log: Option<OwnedFd>,
    maps: Vec<(String, OwnedFd)>,
    facts: Facts,
}

impl Pile {
    /// Everything up to the word to begin.
    fn receive(channel: &Channel) -> io::Result<(Self, Begin)> {
        let mut pile = Self::default();
        loop {
            match next(channel)? {
                (ToScreener::Hand(handed), Some(descriptor)) => pile.add(handed, descriptor)?,
                (ToScreener::Begin(begin), None) => return Ok((pile, *begin)),
                _ => return Err(out_of_turn()),
            }
        }
    }

    fn add(&mut self, handed: Handed, descriptor: OwnedFd) -> io::Result<()> {
        match handed {
            Handed::Orders => self.orders = Some(descriptor.into()),
            Handed::Control => self.control = Some(descriptor.into()),
            Handed::Listener => self.listeners.push(descriptor.into()),
            Handed::Metrics => self.metrics.push(descriptor.into()),
            Handed::Log => self.log = Some(descriptor),
            Handed::Map(name) => self.maps.push((name, descriptor)),
            Handed::File(path) => {
                let mut contents = Vec::new();
                File::from(descriptor).read_to_end(&mut contents)?;
                self.facts.files.insert(path, contents);
            }
            Handed::Store | Handed::Segment | Handed::Connection | Handed::List(_) => return Err(out_of_turn()),
        }
        Ok(())
    }
}

impl Keeper {
    /// Has the programs decide by the tables, which have all lists.
    ///
    /// # Errors
    /// They could not be put in their places.
    pub fn activate(&self) -> Result<(), Failure> {
        self.done(&ToKeeper::Activate)
    }

    /// Says that everything that is known of clients has been taken up.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn ready(&self) -> Result<(), Failure> {
        self.done(&ToKeeper::Ready)
    }

    /// Gives the port back: strangers meet the screener no more. With `detach` the programs are taken off.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn release(&self, detach: bool) -> Result<(), Failure> {
        self.done(&ToKeeper::Release { detach })
    }

    /// How the kernel half is attached at the moment.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn describe(&self) -> Result<Description, Failure> {
        self.ask(&ToKeeper::Describe, |answer, _| match answer {
            ToScreener::Description(description) => Some(description),
            _ => None,
        })
    }

    /// Holds the kernel's counts of connections against its table of sockets, and has what is wrong corrected; returns what was found, in
    /// sentences.
    ///
    /// # Errors
    /// The kernel half does not run, or can't look at sockets, or the keeper is gone.
    pub fn recount(&self) -> Result<Vec<String>, Failure> {
        self.ask(&ToKeeper::Recount, |answer, _| match answer {
            ToScreener::Said(said) => Some(said),
            _ => None,
        })
    }

    /// Has another version of the program take over, if it is one and understands the configuration; returns what there is to say. The order
    /// to [retire](Keeper::retired) follows.
    ///
    /// # Errors
    /// It can't take over, and why; or the keeper is gone.
    pub fn upgrade(&self) -> Result<Vec<String>, Failure> {
        self.ask(&ToKeeper::Upgrade, |answer, _| match answer {
            ToScreener::Said(said) => Some(said),
            _ => None,
        })
    }

    /// Says that no clients are taken any more. There is no answer: the keeper becomes another one.
    pub fn retired(&self) {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        // A keeper that is gone needs not to know.
        let _ = channel.send(&ToKeeper::Retired, None);
    }

    /// Has the configuration and all that it names read again, and the log file opened again. What comes of it counts for the next
    /// screener once it is [adopted](Keeper::adopt).
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn reload(&self) -> Result<Reread, Failure> {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = |error: io::Error| Failure::unavailable(format!("the keeper does not answer: {error}"));
        channel.send(&ToKeeper::Reload, None).map_err(gone)?;
        let mut pile = Pile::default();
        loop {
            match next(&channel).map_err(gone)? {
                (ToScreener::Hand(handed), Some(descriptor)) => pile.add(handed, descriptor).map_err(gone)?,
                (ToScreener::Reload { users }, None) => {
                    pile.facts.users = users;
                    return Ok(Reread { host: Ok(Host::remembered(pile.facts)), log: pile.log });
                }
                (ToScreener::Failed(reason), None) => return Ok(Reread { host: Err(reason.into()), log: pile.log }),
                _ => return Err(gone(out_of_turn())),
            }
        }
    }

    /// The configuration that was read last is in force. Returns the log's file or socket, if anything is new about the log.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn adopt(&self) -> Result<Option<OwnedFd>, Failure> {
        self.ask(&ToKeeper::Adopt, |answer, descriptor| match (answer, descriptor) {
            (ToScreener::Hand(Handed::Log), Some(descriptor)) => Some(Some(descriptor)),
            (ToScreener::Done, None) => Some(None),
            _ => None,
        })
    }

    /// Says that reading the configuration has come to its end, well or not.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn reloaded(&self) -> Result<(), Failure> {
        self.done(&ToKeeper::Reloaded)
    }

    /// Connects to the Unix stream socket at `path`, one of those that `forward.to` names: the mail server's directory is closed to the screener.
    /// The connection does not block, and neither does the keeper: it waits for nobody who has no room for it.
    ///
    /// # Errors
    /// Nobody listens there, or their queue is full, or the configuration in force does not name it, or the keeper is gone. The message is the
    /// reason alone.
    pub fn connect(&self, path: &Path) -> Result<UnixStream, Failure> {
        self.ask(&ToKeeper::Connect(path.to_owned()), |answer, descriptor| match (answer, descriptor) {
            (ToScreener::Hand(Handed::Connection), Some(descriptor)) => Some(descriptor.into()),
            _ => None,
        })
    }

    /// The files in the directory of block lists, by name; none: the configuration in force has no such directory.
    ///
    /// # Errors
    /// It can't be read, or the keeper is gone. The message is the reason alone.
    pub fn lists(&self) -> Result<Option<Vec<ListFile>>, Failure> {
        self.ask(&ToKeeper::Lists, |answer, _| match answer {
            ToScreener::Lists(files) => Some(files),
            _ => None,
        })
    }

    /// One of them, open; none: it is being written.
    ///
    /// # Errors
    /// It can't be read, or is too long, or the keeper is gone. The message is the reason alone.
    pub fn open_list(&self, name: &str) -> Result<Option<(File, Stamp)>, Failure> {
        self.ask(&ToKeeper::OpenList(name.to_owned()), |answer, descriptor| match (answer, descriptor) {
            (ToScreener::Hand(Handed::List(stamp)), Some(descriptor)) => Some(Some((descriptor.into(), stamp))),
            (ToScreener::Done, None) => Some(None),
            _ => None,
        })
    }

    /// Says why the screener can't go on.
    pub fn fail(&self, failure: &Failure) {
        // If the keeper is gone, nobody wants to know.
        let _ = self.done(&ToKeeper::Fail(failure.into()));
    }

    /// The cache file at `path`, which the keeper opens.
    #[must_use]
    pub fn store(&self, path: PathBuf) -> impl Disk + 'static {
        KeptStore { keeper: self.clone(), path }
    }

    /// The journal's segments, which the keeper opens.
    #[must_use]
    pub fn segments(&self) -> impl Open + 'static {
        KeptSegments(self.clone())
    }

    /// One that has ended.
    #[cfg(test)]
    pub(crate) fn gone() -> Self {
        let (channel, _) = Channel::pair().unwrap();
        Self { channel: Arc::new(Mutex::new(channel)) }
    }

    fn done(&self, request: &ToKeeper) -> Result<(), Failure> {
        self.ask(request, |answer, _| matches!(answer, ToScreener::Done).then_some(()))
    }

    /// Asks, and reads the answer by `read`.
    fn ask<T>(
        &self,
        request: &ToKeeper,
        read: impl FnOnce(ToScreener, Option<OwnedFd>) -> Option<T>,
    ) -> Result<T, Failure> {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = |error: io::Error| Failure::unavailable(format!("the keeper does not answer: {error}"));
        channel.send(request, None).map_err(gone)?;
        match next(&channel).map_err(gone)? {
            (ToScreener::Failed(reason), _) => Err(reason.into()),
            (answer, descriptor) => read(answer, descriptor).ok_or_else(|| gone(out_of_turn())),
        }
    }
}

/// The cache file, by way of the keeper.
#[derive(Debug)]
struct KeptStore {
    keeper: Keeper,
    path: PathBuf,
}

impl Disk for KeptStore {
    fn open(&self) -> io::Result<File> {
        let asked = self.keeper.ask(&ToKeeper::OpenStore, |answer, descriptor| match (answer, descriptor) {
            (ToScreener::Hand(Handed::Store), Some(descriptor)) => Some(descriptor.into()),
            _ => None,
        });
        asked.map_err(|failure| io::Error::other(failure.message))
    }

    fn put_aside(&self) -> io::Result<PathBuf> {
        let asked = self.keeper.ask(&ToKeeper::PutStoreAside, |answer, _| match answer {
            ToScreener::PutAside(path) => Some(path),
            _ => None,
        });
        asked.map_err(|failure| io::Error::other(failure.message))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// The journal's segments, by way of the keeper.
#[derive(Debug)]
struct KeptSegments(Keeper);

impl Open for KeptSegments {
    fn open(&self, fresh: bool) -> io::Result<File> {
        let asked = self.0.ask(&ToKeeper::OpenSegment { fresh }, |answer, descriptor| match (answer, descriptor) {
            (ToScreener::Hand(Handed::Segment), Some(descriptor)) => Some(descriptor.into()),
            _ => None,
        });
        asked.map_err(|failure| io::Error::other(failure.message))
    }
}

fn next(channel: &Channel) -> io::Result<(ToScreener, Option<OwnedFd>)> {
    channel.receive()?.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the keeper has ended"))
}

fn out_of_turn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message out of turn")
}
