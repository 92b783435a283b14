//! What keeper and screener say to each other.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::lists::{ListFile, Stamp};
use crate::{
    kernel::{Attached, HungServer, Processors},
    operate::exit::{Code, Failure},
};

/// Lines of an answer that are passed on: a table may have a problem in each of a million lines.
pub(super) const MOST_LINES: usize = 100;

/// An order of the keeper's, on a stream of its own, as there is no answer to it: stop, and if it comes again, end at once.
pub const STOP: u8 = b's';
/// An order: read the configuration again.
pub const RELOAD: u8 = b'r';
/// An order: look at the directory of block lists.
pub const LISTS: u8 = b'l';
/// An order: take no clients any more, say so, and bring the sessions to their ends. Another version of the program takes over.
pub const RETIRE: u8 = b'u';
/// An order to a screener that has retired: begin no relay any more.
pub const RELAY_NO_MORE: u8 = b'n';

/// An order: say the same letter on the same stream.
pub const DO_YOU_HEAR: u8 = b'h';

/// The keeper to the screener.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToScreener {
    /// A descriptor, which comes with it.
    Hand(Handed),
    /// Everything has been handed over: begin.
    Begin(Box<Begin>),
    /// Done.
    Done,
    /// Done, and the answer.
    Description(Description),
    /// Done, and what there is to say, in sentences.
    Said(Vec<String>),
    /// The file was put aside, under this name.
    PutAside(PathBuf),
    /// The configuration's files have been handed over anew.
    Reload {
        /// Numbers of users by name.
        users: BTreeMap<String, u32>,
    },
    /// The files in the directory of block lists; none: there is no such directory.
    Lists(Option<Vec<ListFile>>),
    /// Not done, and why.
    Failed(Reason),
}

/// What a descriptor is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Handed {
    /// Where orders come from; its end is the keeper's.
    Orders,
    /// The control socket, listening.
    Control,
    /// A socket that clients come in by, listening.
    Listener,
    /// A socket that Prometheus asks, listening.
    Metrics,
    /// The log's file or socket.
    Log,
    /// The cache file.
    Store,
    /// A segment of the journal.
    Segment,
    /// A connection to a mail server's Unix socket.
    Connection,
    /// A file in the directory of block lists.
    List(Stamp),
    /// A map of the kernel half.
    Map(String),
    /// The contents of a file that the configuration names.
    File(PathBuf),
}

/// What a screener has to know besides what it is handed.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Begin {
    /// Where the configuration is.
    pub(super) config: PathBuf,
    /// What the command line says over it.
    pub(super) overrides: Vec<(String, String)>,
    /// Numbers of users by name.
    pub(super) users: BTreeMap<String, u32>,
    /// How many values a per-processor map has under each key, where the kernel half runs.
    pub(super) processors: Option<Processors>,
    /// Whether the mail server's listeners are known to the kernel half.
    pub(super) finds_servers: bool,
    /// What there is to say to the operator.
    pub(super) notices: Vec<String>,
}

/// The screener to the keeper. Each gets one answer, before the next one is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToKeeper {
    /// The lists are in the tables and clients are awaited: let the programs decide by them.
    Activate,
    /// All that is known is in the tables.
    Ready,
    /// Strangers meet the screener no more.
    Release {
        /// Whether the programs are to be taken off.
        detach: bool,
    },
    /// How is everything attached?
    Describe,
    /// Hold the counts of connections against the table of sockets.
    Recount,
    /// Read the configuration again, with all that it names.
    Reload,
    /// The configuration that was read last is in force.
    Adopt,
    /// That is that with reading it, whatever came of it.
    Reloaded,
    /// Let another version of the program take over, if it can: the order to retire follows.
    Upgrade,
    /// No clients are taken any more, and the cache file is closed.
    Retired,
    /// Open the cache file.
    OpenStore,
    /// Put the cache file aside.
    PutStoreAside,
    /// Open the last segment of the journal, or begin one.
    OpenSegment {
        /// Begin one in any case.
        fresh: bool,
    },
    /// Connect to this Unix socket of a mail server's.
    Connect(PathBuf),
    /// Which files are in the directory of block lists?
    Lists,
    /// Open one of them.
    OpenList(String),
    /// It can't go on.
    Fail(Reason),
}

/// How the kernel half is attached at the moment.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Description {
    /// Programs and interfaces; nothing where the kernel half does not run.
    pub attached: Option<Attached>,
    /// The mail server's listeners.
    pub servers: Vec<SocketAddr>,
    /// Those of them that hang.
    pub hung: Vec<HungServer>,
}

impl Description {
    /// What is said where the keeper does not answer.
    #[must_use]
    pub fn unknown(why: &str) -> Self {
        let attached = Attached { notes: vec![why.to_owned()], ..Attached::default() };
        Self { attached: Some(attached), ..Self::default() }
    }
}

/// A failure on its way between the two.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Reason {
    code: u8,
    message: String,
}

impl From<&Failure> for Reason {
    fn from(failure: &Failure) -> Self {
        let message = failure.message.lines().take(MOST_LINES).collect::<Vec<_>>().join("\n");
        Self { code: failure.code as u8, message }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { code: Code::from_number(reason.code), message: reason.message }
    }
}
