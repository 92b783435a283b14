//! What can happen to a session, and what a session asks for.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{bar::Bar, log::LogLine, outcome::Outcome, record::Record};

/// The two clocks that a session needs, read once for each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, from any fixed origin: for timers and elapsed times.
    pub monotonic: Duration,
    /// Milliseconds of Unix time.
    pub unix_millis: u64,
}

impl Now {
    /// Whole seconds of Unix time: for stamps in records.
    #[must_use]
    pub const fn unix(self) -> u64 {
        self.unix_millis / 1000
    }
}

/// The two ends of a client's connection, as the client sees them (after any PROXY header).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// The client, canonical: never an IPv4-mapped IPv6 address.
    pub client: SocketAddr,
    /// The address and port that the client meant, canonical too.
    pub server: SocketAddr,
}

/// What the lists say of a client before any test (spec 1.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// No list knows it.
    Unlisted,
    /// Permitted, by the access list or by a run-time entry.
    Allowed,
    /// Rejected by the access list: `access.denylist_action` says what follows.
    Denied,
    /// Denied by a run-time entry or by a remembered failure: always turned away.
    Barred,
}

/// Something that happened to a session.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Bytes wait in the socket. They were looked at, not taken; at most [`super::PEEK_LIMIT`] of them.
    Peeked(&'a [u8]),
    /// Bytes of one read, at most [`super::READ_LIMIT`] of them.
    Received(&'a [u8]),
    /// The client ended or reset the connection.
    PeerClosed,
    /// The client can't be written to any more.
    WriteFailed,
    /// The timer went off.
    TimerFired,
    /// A DNSBL zone answered, or was given up.
    Dnsbl(&'a DnsblAnswer),
    /// The TLS handshake that [`Effect::StartTls`] asked for succeeded.
    TlsEstablished,
    /// What became of [`Effect::Forward`] or [`Effect::Replay`].
    Forwarded(ForwardResult),
}

/// One zone's answer about one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsblAnswer {
    /// Which zone: an index into [`super::dnsbl::Sites::zones`].
    pub zone: usize,
    /// What it said.
    pub reply: ZoneReply,
}

/// What a DNSBL zone said of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZoneReply {
    /// Listed with these codes, for this long where it is known.
    Listed {
        /// The A records, at least one, all of them listings.
        codes: Vec<Ipv4Addr>,
        /// The lowest TTL of the A records.
        ttl: Option<Duration>,
    },
    /// Not listed, for this long where it is known.
    NotListed {
        /// The TTL of the SOA record in the negative answer.
        ttl: Option<Duration>,
    },
    /// No usable answer: failure, time-out, error code, suspended zone.
    Failed,
}

/// What became of handing a client to the mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardResult {
    /// The mail server has taken it: the session is over for the screener.
    Accepted,
    /// No mail server could be reached.
    Unreachable,
    /// A mail server was reached and then failed: before it greeted, or before it answered what was said again.
    Failed,
    /// The client left while it waited.
    ClientLeft,
}

/// What a client said that has to be said again to the mail server, when it goes on there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Its HELO or EHLO, if it said one; without the line end, as all three.
    pub hello: Option<Box<[u8]>>,
    /// Its MAIL, if it has given a sender.
    pub mail: Option<Box<[u8]>>,
    /// Its RCPT, whose answer it waits for; none in a dry run, where it may go on before.
    pub rcpt: Option<Box<[u8]>>,
    /// What came behind that and is not answered: at most [`super::READ_LIMIT`] bytes, and in a dry run one line more.
    pub behind: Box<[u8]>,
}

/// Which input of the client a session wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// None; a hang-up is not looked for either.
    Nothing,
    /// The first that comes, left in the socket: one [`Event::Peeked`] or [`Event::PeerClosed`].
    Peek,
    /// All of it: [`Event::Received`] and [`Event::PeerClosed`].
    Read,
}

/// Something that a session wants done, in the order given.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Send these bytes.
    Send(Vec<u8>),
    /// From now on, this input matters.
    Watch(Interest),
    /// (Re)arm the session's only timer, from now.
    Arm(Duration),
    /// Ask the DNSBL zones about this client, or join whoever asks already.
    LookUp,
    /// No more interest in DNSBL answers; they may still correct the cache.
    EndLookUp,
    /// Write this line.
    Log(LogLine),
    /// Keep this record of the client.
    Remember(Record),
    /// Deny the client for a while without looking again: it failed a test whose action is `drop`.
    Bar(Box<Bar>),
    /// Drop all input read so far, then begin the TLS handshake as the server.
    StartTls,
    /// Hand the client to the mail server; answer with [`Event::Forwarded`].
    Forward,
    /// Hand the client to the mail server in the middle of its session: say there what it has said, and pass the last answer on to it,
    /// with all that follows. Answer with [`Event::Forwarded`].
    Replay(Box<Envelope>),
    /// The session is over: flush what was sent, close the connection, keep the outcome.
    /// After [`ForwardResult::Accepted`] the connection is the relay's and stays open.
    End(Box<Outcome>),
}
