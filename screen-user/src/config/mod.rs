//! The configuration: its keys, their defaults, and how a file becomes a [`Config`].
//!
//! A [`Config`] is complete and checked: every default is filled in, every file that it names has been read.
//!
//! The way from text to [`Config`]: `document` finds the values and where they stand, `keys` knows which there may be, `values` reads
//! one by one, `build` puts them together and checks how they fit.

mod build;
mod document;
mod duration;
mod host;
pub mod import_postfix;
mod keys;
mod load;
mod manual;
mod problem;
mod redis;
mod reference;
mod reply_text;
mod settings;
mod values;

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    access::{AccessList, spf::Widest},
    screen::policy::Policy,
};

pub use duration::{DurationError, format_duration, parse_duration};
pub use host::{Facts, Host};
pub use load::{Loaded, load, load_text};
pub use manual::manual;
pub use problem::{Place, Problem, Problems};
pub use redis::{HostPort, Redis, RedisServers, RedisTls, Secret};
pub use reference::{markdown, reference};
pub use reply_text::{REPLY_TEXT, is_reply_text};
pub use settings::Settings;

/// A complete, checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the screener's protocol core decides by.
    pub policy: Policy,
    /// The permanent list (`access.list`), first match decides.
    pub access: AccessList,
    /// How the domains of the permanent list are asked.
    pub spf: Spf,
    /// Lists that others keep.
    pub blocklists: Blocklists,
    /// The protected ports.
    pub ports: Vec<u16>,
    /// Who owns the protected port.
    pub layout: Layout,
    /// Where the screener listens.
    pub listen: Vec<SocketAddr>,
    /// DNSBL resolution, apart from scoring.
    pub resolver: Resolver,
    /// STARTTLS.
    pub tls: Tls,
    /// Peers whose PROXY header is read and required, and how long it may take.
    pub proxy_protocol: ProxyProtocol,
    /// Where results are kept.
    pub cache: Cache,
    /// What is kept of sessions.
    pub journal: Journal,
    /// How clients that passed reach the mail server.
    pub forward: Forward,
    /// The kernel half.
    pub kernel: Kernel,
    /// Files of the running gate.
    pub state_directory: PathBuf,
    /// The control socket.
    pub control_socket: PathBuf,
    /// The account that the screener runs as.
    pub user: String,
    /// Log lines.
    pub log: Log,
    /// Where Prometheus text is served, if anywhere.
    pub metrics_listen: Vec<SocketAddr>,
}

/// Who owns the protected port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The mail server keeps its port; the kernel gives strangers to the screener.
    InPlace,
    /// The screener owns the port; the mail server listens elsewhere.
    Front,
}

/// How the domains of `access.list` are asked for their networks (`access.spf`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spf {
    /// An answer lasts at least this long; after a failure the domain is asked again so soon.
    pub min_ttl: Duration,
    /// An answer lasts at most this long.
    pub max_ttl: Duration,
    /// The widest networks that a domain may publish.
    pub widest: Widest,
}

/// Lists that others keep (`blocklists`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocklists {
    /// The largest share of an address space that a list may deny unless it is forced, in percent.
    pub max_share: u8,
    /// Whose files are lists, if there is such a directory.
    pub directory: Option<PathBuf>,
}

/// How DNSBL zones are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    /// The recursors; empty: the system's.
    pub servers: Vec<SocketAddr>,
    /// The system's configuration, as resolv.conf(5) has it; empty where there are servers.
    pub system: Vec<u8>,
    /// The limit on one look-up.
    pub timeout: Duration,
}

/// STARTTLS as the screener offers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, PEM.
    pub certificate: Option<PathBuf>,
    /// The private key, PEM.
    pub key: Option<PathBuf>,
    /// TLS sessions at a time; further clients are told 454 and may go on without.
    pub sessions: u32,
}

/// PROXY headers that come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Peers whose header is read and required.
    pub from: Vec<IpNet>,
    /// How long a whole header may take.
    pub timeout: Duration,
}

/// Where results are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// The store behind the one in RAM.
    pub backend: CacheBackend,
    /// How long an expired result is kept, so that its client is not new.
    pub retention: Duration,
    /// What this host is called where results are kept.
    pub host: String,
}

/// What is kept of sessions (`journal`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Journal {
    /// Most bytes of all segments; zero: nothing is kept.
    pub max_size: u64,
    /// How long a segment is kept after its last line.
    pub retention: Duration,
}

/// The store behind the one in RAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheBackend {
    /// RAM alone; nothing outlives the process.
    Memory,
    /// A file under the state directory.
    Embedded,
    /// Redis, for all hosts that share it.
    Redis(Box<Redis>),
}

/// How clients that passed reach the mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// In which way.
    pub mode: Mode,
    /// Layout front: the mail server's listener for known-good clients.
    pub steer_to: Option<SocketAddr>,
    /// The user, besides root, whose listeners are taken for the mail server's.
    pub steer_uid: u32,
    /// The mail servers, in order of preference; in mode `postfix` the one socket of smtpd's `pass` service.
    pub to: Vec<Backend>,
    /// The share of each of them in the clients, where there are shares; zero: it takes nobody new. Empty: the first that is well takes all.
    pub weights: Vec<u16>,
    /// Most relayed connections to one of them at a time; zero: no limit.
    pub most_connections: u32,
    /// How the mail server learns who the client is; in mode `postfix` that of `replay_to`.
    pub client_address: ClientAddress,
    /// Mode `postfix`: where sessions are replayed that went through deep tests; none: they are asked to come back.
    pub replay_to: Option<SocketAddr>,
}

impl Forward {
    /// The socket of smtpd's `pass` service, in mode `postfix`.
    #[must_use]
    pub fn pass_service(&self) -> Option<&Path> {
        match (self.mode, self.to.as_slice()) {
            (Mode::Postfix, [Backend::Socket(path)]) => Some(path),
            _ => None,
        }
    }

    /// The mail servers that the screener itself connects to: in mode `postfix` the one for sessions that are replayed, if there is one.
    #[must_use]
    pub fn relayed_to(&self) -> Cow<'_, [Backend]> {
        match self.mode {
            Mode::Relay => Cow::Borrowed(&self.to),
            Mode::Postfix => Cow::Owned(self.replay_to.map(Backend::At).into_iter().collect()),
        }
    }
}

/// In which way a client reaches the mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Over a connection of the screener's own.
    Relay,
    /// Its live socket is given to Postfix.
    Postfix,
}

/// A mail server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// The address and port that the client meant, on this host.
    Local,
    /// A fixed address.
    At(SocketAddr),
    /// A Unix stream socket, which the keeper connects to.
    Socket(PathBuf),
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::At(address) => address.fmt(f),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

/// How the mail server learns the true client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// Its own `getpeername()` says so, by cgroup hooks.
    Kernel,
    /// PROXY protocol, binary header.
    ProxyV2,
    /// PROXY protocol, text header.
    ProxyV1,
    /// Not at all.
    None,
}

/// The kernel half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// `auto` or `off`.
    pub enabled: bool,
    /// Interfaces that the gate attaches to; empty: those with a global address.
    pub interfaces: Vec<String>,
    /// How it attaches.
    pub xdp: XdpMode,
    /// What a deny-listed client gets.
    pub deny_reply: KernelReply,
    /// What a client over its limit gets.
    pub limit_reply: KernelReply,
    /// What follows the code 521 for clients that a list denies, by the list's name.
    pub reply_texts: BTreeMap<String, String>,
    /// How long a client that failed with `drop` stays denied in the kernel; zero: not at all.
    pub remember_failures: Duration,
    /// The longest that a repeated failure counts because it is repeated.
    pub repeat_limit: Duration,
    /// Unknown clients while no screener runs.
    pub on_screener_down: ScreenerDown,
    /// Where maps and links are pinned.
    pub pin_path: PathBuf,
    /// Whether the programs' debug messages are loaded with them, and logged.
    pub debug: bool,
    /// Whether known-good clients reach the mail server's own listener in the kernel.
    pub steer: Steer,
}

/// `forward.steer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// Where it works.
    Auto,
    /// Fail where it does not work.
    On,
    /// Never; every client meets the screener.
    Off,
}

/// How the gate attaches to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// The best way that the interface takes.
    Auto,
    /// XDP in the driver.
    Native,
    /// XDP after the driver.
    Generic,
    /// TC ingress, in the best way that the kernel has.
    Tc,
    /// TC ingress as kernels before 6.6 have it, whatever this one has. No configuration asks for it.
    Clsact,
}

/// What the kernel answers to a client that it turns away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelReply {
    /// A reply code and an orderly end.
    Reject,
    /// Silence.
    Drop,
}

/// Unknown clients while no screener runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScreenerDown {
    /// Not accepted.
    Refuse,
    /// Given to the mail server unscreened.
    Pass,
}

/// Log lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Where they go.
    pub target: LogTarget,
    /// What the program is called in them.
    pub name: String,
    /// Their words for list decisions.
    pub style: LogStyle,
}

#[cfg(test)]
impl Log {
    /// What goes to `target` when nothing else is configured.
    pub(crate) fn to(target: LogTarget) -> Self {
        Self { target, name: "mxscreen".into(), style: LogStyle::Respectful }
    }
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error.
    Stderr,
    /// The journal's native socket.
    Journald,
    /// `/dev/log`.
    Syslog,
    /// A file, reopened on reload.
    File(PathBuf),
}

/// Words for list decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStyle {
    /// `ALLOWLISTED`, `DENYLISTED`, `ALLOWLIST VETO`.
    Respectful,
    /// `WHITELISTED`, `BLACKLISTED`, `WHITELIST VETO`.
    Classic,
}

/// What counts as one client, in limits and in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientPrefix {
    /// Prefix length for IPv4, 0 to 32.
    pub ipv4: u8,
    /// Prefix length for IPv6, 0 to 128.
    pub ipv6: u8,
}

/// Secret zone name to the name that clients are shown.
pub type ReplyMap = BTreeMap<String, String>;

/// Addresses as `access.allowlist_addresses` and `access.mynetworks` list them: first match decides, `!` negates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressList {
    entries: Vec<(bool, IpNet)>,
}

impl AddressList {
    /// A list of `(listed, network)` pairs in order; no match means not listed.
    #[must_use]
    pub fn new(entries: Vec<(bool, IpNet)>) -> Self {
        Self { entries }
    }

    /// The entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[(bool, IpNet)] {
        &self.entries
    }

    /// Whether the first entry that covers `address` lists it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.entries.iter().find(|(_, net)| net.contains(&address)).is_some_and(|(listed, _)| *listed)
    }
}
