//! Log lines, to the letter of spec 9.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::config::LogStyle;

use super::text::Elapsed;

/// The mark at the end of a line for which a client would be turned away, or told to come back, were it not for the dry run.
pub const DRY_RUN: &str = " (dry run)";

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Ordinary business.
    Info,
    /// Something that the operator should look at; the log target puts `warning: ` in front.
    Warning,
}

/// A peer as it stands in log lines: `[ADDRESS]:PORT`, IPv4 in brackets too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]:{}", address_text(self.0.ip()), self.0.port())
    }
}

/// An address without a zone index (spec 0.6).
pub(super) fn address_text(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// In which of its two phases a session was when the client hung up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the greeting.
    Early,
    /// In the dummy engine.
    Deep,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Early => "tests before SMTP handshake",
            Self::Deep => "tests after SMTP handshake",
        })
    }
}

/// Which limit of the dummy engine was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitReached {
    /// One command line took too long.
    CommandTime,
    /// Too many commands.
    CommandCount,
    /// A command line is too long.
    CommandLength,
    /// The whole session took too long; not known to postscreen.
    SessionTime,
    /// The whole session sent too much; not known to postscreen.
    SessionBytes,
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandTime => "COMMAND TIME LIMIT",
            Self::CommandCount => "COMMAND COUNT LIMIT",
            Self::CommandLength => "COMMAND LENGTH LIMIT",
            Self::SessionTime => "SESSION TIME LIMIT",
            Self::SessionBytes => "SESSION BYTE LIMIT",
        })
    }
}

/// One line, without the prefix that the log target adds. Texts from the network are sanitised already.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the placeholders of the line that each variant names")]
pub enum LogLine {
    /// `CONNECT from [CA]:CP to [SA]:SP`
    Connect { client: SocketAddr, server: SocketAddr },
    /// `NOQUEUE: reject: CONNECT from [CA]:CP: too many connections`
    TooManyConnections { client: SocketAddr },
    /// `NOQUEUE: reject: CONNECT from [CA]:CP: all server ports busy`
    ServerPortsBusy { client: SocketAddr },
    /// `reject: connect from [CA]:CP: all screening ports busy`
    ScreeningPortsBusy { client: SocketAddr },
    /// `ALLOWLISTED [CA]:CP` or `WHITELISTED [CA]:CP`
    Allowlisted { client: SocketAddr, style: LogStyle },
    /// `DENYLISTED [CA]:CP` or `BLACKLISTED [CA]:CP`
    Denylisted { client: SocketAddr, style: LogStyle },
    /// `ALLOWLIST VETO [CA]:CP` or `WHITELIST VETO [CA]:CP`
    Veto { client: SocketAddr, style: LogStyle },
    /// `PASS NEW [CA]:CP`
    PassNew { client: SocketAddr },
    /// `PASS OLD [CA]:CP`
    PassOld { client: SocketAddr },
    /// `PREGREET N after DT from [CA]:CP: TEXT`
    Pregreet { client: SocketAddr, length: usize, after: Duration, text: Box<str> },
    /// `DNSBL rank N for [CA]:CP`
    DnsblRank { client: SocketAddr, score: i32 },
    /// `HANGUP after DT from [CA]:CP in TESTS`
    Hangup { client: SocketAddr, after: Duration, phase: Phase },
    /// `BARE NEWLINE from [CA]:CP after TEXT`
    BareNewline { client: SocketAddr, text: Box<str> },
    /// `NON-SMTP COMMAND from [CA]:CP after PREVCMD: VERB REST`
    NonSmtpCommand { client: SocketAddr, after: &'static str, verb: Box<str>, rest: Box<str> },
    /// `COMMAND PIPELINING from [CA]:CP after VERB: TEXT`
    Pipelining { client: SocketAddr, verb: Box<str>, text: Box<str> },
    /// `NOQUEUE: reject: RCPT from [CA]:CP: REPLY; from=<S>, to=<R>, proto=P, helo=<H>`
    RejectRcpt(Box<RejectRcpt>),
    /// `VERB without valid RCPT from [CA]:CP`, of DATA and BDAT
    WithoutRcpt { client: SocketAddr, verb: &'static str },
    /// `COMMAND TIME LIMIT from [CA]:CP after LASTCMD` and the other limits
    Limit { client: SocketAddr, limit: LimitReached, after: &'static str },
    /// `[CA]:CP: replacing command "OLD" with "NEW"`
    ReplacedCommand { client: SocketAddr, old: Box<str>, new: Box<str> },
    /// `[CA]CP: discarding EHLO keywords: WORDS`: postscreen leaves the colon out, and log tools know it so (spec B.9)
    DiscardedKeywords { client: SocketAddr, words: Box<str> },
    /// `DISCONNECT [CA]:CP`
    Disconnect { client: SocketAddr },
    /// `entering STRESS mode with N connections`
    EnteringStress { connections: u32 },
    /// `leaving STRESS mode with N connections`
    LeavingStress { connections: u32 },
    /// `unknown macro name "NAME" in expansion request`
    UnknownMacro { name: Box<str> },
    /// A line with [`DRY_RUN`]
    DryRun(Box<LogLine>),
}

/// The parts of a recipient's reject line (spec 4.4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectRcpt {
    /// Who was rejected.
    pub client: SocketAddr,
    /// The reply, softened where `smtp.soft_bounce` says so, without any footer.
    pub reply: String,
    /// The envelope sender in external form.
    pub sender: String,
    /// The recipient in external form.
    pub recipient: String,
    /// Whether the client said EHLO.
    pub esmtp: bool,
    /// The name that the client gave, or nothing.
    pub helo: String,
}

impl LogLine {
    /// How much the line matters.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::DryRun(line) => line.severity(),
            Self::UnknownMacro { .. } => Severity::Warning,
            Self::Connect { .. }
            | Self::TooManyConnections { .. }
            | Self::ServerPortsBusy { .. }
            | Self::ScreeningPortsBusy { .. }
            | Self::Allowlisted { .. }
            | Self::Denylisted { .. }
            | Self::Veto { .. }
            | Self::PassNew { .. }
            | Self::PassOld { .. }
            | Self::Pregreet { .. }
            | Self::DnsblRank { .. }
            | Self::Hangup { .. }
            | Self::BareNewline { .. }
            | Self::NonSmtpCommand { .. }
            | Self::Pipelining { .. }
            | Self::RejectRcpt(_)
            | Self::WithoutRcpt { .. }
            | Self::Limit { .. }
            | Self::ReplacedCommand { .. }
            | Self::DiscardedKeywords { .. }
            | Self::Disconnect { .. }
            | Self::EnteringStress { .. }
            | Self::LeavingStress { .. } => Severity::Info,
        }
    }
}

const fn worded(style: LogStyle, respectful: &'static str, classic: &'static str) -> &'static str {
    match style {
        LogStyle::Respectful => respectful,
        LogStyle::Classic => classic,
    }
}

impl LogLine {
    /// The client that the line is about, if it is about one.
    #[must_use]
    pub fn client(&self) -> Option<SocketAddr> {
        match self {
            Self::DryRun(line) => line.client(),
            Self::Connect { client, .. }
            | Self::TooManyConnections { client }
            | Self::ServerPortsBusy { client }
            | Self::ScreeningPortsBusy { client }
            | Self::Allowlisted { client, .. }
            | Self::Denylisted { client, .. }
            | Self::Veto { client, .. }
            | Self::PassNew { client }
            | Self::PassOld { client }
            | Self::Pregreet { client, .. }
            | Self::DnsblRank { client, .. }
            | Self::Hangup { client, .. }
            | Self::BareNewline { client, .. }
            | Self::NonSmtpCommand { client, .. }
            | Self::Pipelining { client, .. }
            | Self::WithoutRcpt { client, .. }
            | Self::Limit { client, .. }
            | Self::ReplacedCommand { client, .. }
            | Self::DiscardedKeywords { client, .. }
            | Self::Disconnect { client } => Some(*client),
            Self::RejectRcpt(line) => Some(line.client),
            Self::EnteringStress { .. } | Self::LeavingStress { .. } | Self::UnknownMacro { .. } => None,
        }
    }

    /// The kind of line, as one word that stays the same in both wordings.
    #[must_use]
    pub fn event(&self) -> &'static str {
        match self {
            Self::DryRun(line) => line.event(),
            Self::Connect { .. } => "connect",
            Self::TooManyConnections { .. } => "too-many-connections",
            Self::ServerPortsBusy { .. } => "server-ports-busy",
            Self::ScreeningPortsBusy { .. } => "screening-ports-busy",
            Self::Allowlisted { .. } => "allowlisted",
            Self::Denylisted { .. } => "denylisted",
            Self::Veto { .. } => "veto",
            Self::PassNew { .. } => "pass-new",
            Self::PassOld { .. } => "pass-old",
            Self::Pregreet { .. } => "pregreet",
            Self::DnsblRank { .. } => "dnsbl-rank",
            Self::Hangup { .. } => "hangup",
            Self::BareNewline { .. } => "bare-newline",
            Self::NonSmtpCommand { .. } => "non-smtp-command",
            Self::Pipelining { .. } => "pipelining",
            Self::RejectRcpt(_) => "reject-rcpt",
            Self::WithoutRcpt { .. } => "without-rcpt",
            Self::Limit { .. } => "limit",
            Self::ReplacedCommand { .. } => "replaced-command",
            Self::DiscardedKeywords { .. } => "discarded-keywords",
            Self::Disconnect { .. } => "disconnect",
            Self::EnteringStress { .. } => "entering-stress",
            Self::LeavingStress { .. } => "leaving-stress",
            Self::UnknownMacro { .. } => "unknown-macro",
        }
    }

    /// What a structured log keeps beside the text.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![("MXSCREEN_EVENT", self.event().to_owned())];
        if let Some(client) = self.client() {
            fields.push(("MXSCREEN_CLIENT", address_text(client.ip()).to_string()));
            fields.push(("MXSCREEN_CLIENT_PORT", client.port().to_string()));
        }
        if let Self::DryRun(_) = self {
            fields.push(("MXSCREEN_DRY_RUN", "1".to_owned()));
        }
        fields
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { client, server } => {
                write!(f, "CONNECT from {client} to {server}", client = Peer(*client), server = Peer(*server))
            }
            Self::TooManyConnections { client } => {
                write!(f, "NOQUEUE: reject: CONNECT from {client}: too many connections", client = Peer(*client))
            }
            Self::ServerPortsBusy { client } => {
                write!(f, "NOQUEUE: reject: CONNECT from {client}: all server ports busy", client = Peer(*client))
            }
            Self::ScreeningPortsBusy { client } => {
                write!(f, "reject: connect from {client}: all screening ports busy", client = Peer(*client))
            }
            Self::Allowlisted { client, style } => {
                write!(f, "{} {client}", worded(*style, "ALLOWLISTED", "WHITELISTED"), client = Peer(*client))
            }
            Self::Denylisted { client, style } => {
                write!(f, "{} {client}", worded(*style, "DENYLISTED", "BLACKLISTED"), client = Peer(*client))
            }
            Self::Veto { client, style } => {
                write!(f, "{} {client}", worded(*style, "ALLOWLIST VETO", "WHITELIST VETO"), client = Peer(*client))
            }
            Self::PassNew { client } => write!(f, "PASS NEW {client}", client = Peer(*client)),
            Self::PassOld { client } => write!(f, "PASS OLD {client}", client = Peer(*client)),
            Self::Pregreet { client, length, after, text } => {
                write!(f, "PREGREET {length} after {} from {client}: {text}", Elapsed(*after), client = Peer(*client))
            }
            Self::DnsblRank { client, score } => write!(f, "DNSBL rank {score} for {client}", client = Peer(*client)),
            Self::Hangup { client, after, phase } => {
                write!(f, "HANGUP after {} from {client} in {phase}", Elapsed(*after), client = Peer(*client))
            }
            Self::BareNewline { client, text } => {
                write!(f, "BARE NEWLINE from {client} after {text}", client = Peer(*client))
            }
            Self::NonSmtpCommand { client, after, verb, rest } => {
                write!(f, "NON-SMTP COMMAND from {client} after {after}: {verb} {rest}", client = Peer(*client))
            }
            Self::Pipelining { client, verb, text } => {
                write!(f, "COMMAND PIPELINING from {client} after {verb}: {text}", client = Peer(*client))
            }
            Self::RejectRcpt(line) => line.fmt(f),
            Self::WithoutRcpt { client, verb } => {
                write!(f, "{verb} without valid RCPT from {client}", client = Peer(*client))
            }
            Self::Limit { client, limit, after } => {
                write!(f, "{limit} from {client} after {after}", client = Peer(*client))
            }
            Self::ReplacedCommand { client, old, new } => {
                write!(f, "{client}: replacing command \"{old}\" with \"{new}\"", client = Peer(*client))
            }
            Self::DiscardedKeywords { client, words } => {
                write!(f, "[{}]{}: discarding EHLO keywords: {words}", address_text(client.ip()), client.port())
            }
            Self::Disconnect { client } => write!(f, "DISCONNECT {client}", client = Peer(*client)),
            Self::EnteringStress { connections } => write!(f, "entering STRESS mode with {connections} connections"),
            Self::LeavingStress { connections } => write!(f, "leaving STRESS mode with {connections} connections"),
            Self::DryRun(line) => write!(f, "{line}{DRY_RUN}"),
            Self::UnknownMacro { name } => write!(f, "unknown macro name \"{name}\" in expansion request"),
        }
    }
}

impl fmt::Display for RejectRcpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, reply, sender, recipient, esmtp, helo } = self;
        let proto = if *esmtp { "ESMTP" } else { "SMTP" };
        write!(
            f,
            "NOQUEUE: reject: RCPT from {client}: {reply}; from=<{sender}>, to=<{recipient}>, proto={proto}, helo=<{helo}>",
            client = Peer(*client)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec 9, row by row, in both wordings.
    #[test]
    fn lines() {
        let client: SocketAddr = "192.0.2.9:33115".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::9]:1".parse().unwrap();
        let after = Duration::from_millis(1230);
        let (new, old) = (LogStyle::Respectful, LogStyle::Classic);
        let rows = [
            (LogLine::Connect { client: v6, server: client }, "CONNECT from [2001:db8::9]:1 to [192.0.2.9]:33115"),
            (
                LogLine::TooManyConnections { client },
                "NOQUEUE: reject: CONNECT from [192.0.2.9]:33115: too many connections",
            ),
            (
                LogLine::ServerPortsBusy { client },
                "NOQUEUE: reject: CONNECT from [192.0.2.9]:33115: all server ports busy",
            ),
            (
                LogLine::ScreeningPortsBusy { client },
                "reject: connect from [192.0.2.9]:33115: all screening ports busy",
            ),
            (LogLine::Allowlisted { client, style: new }, "ALLOWLISTED [192.0.2.9]:33115"),
            (LogLine::Allowlisted { client, style: old }, "WHITELISTED [192.0.2.9]:33115"),
            (LogLine::Denylisted { client, style: new }, "DENYLISTED [192.0.2.9]:33115"),
            (LogLine::Denylisted { client, style: old }, "BLACKLISTED [192.0.2.9]:33115"),
            (LogLine::Veto { client, style: new }, "ALLOWLIST VETO [192.0.2.9]:33115"),
            (LogLine::Veto { client, style: old }, "WHITELIST VETO [192.0.2.9]:33115"),
            (LogLine::PassNew { client }, "PASS NEW [192.0.2.9]:33115"),
            (LogLine::PassOld { client }, "PASS OLD [192.0.2.9]:33115"),
            (
                LogLine::Pregreet { client, length: 10, after, text: r"EHLO foo\r\n".into() },
                r"PREGREET 10 after 1.2 from [192.0.2.9]:33115: EHLO foo\r\n",
            ),
            (LogLine::DnsblRank { client, score: -3 }, "DNSBL rank -3 for [192.0.2.9]:33115"),
            (
                LogLine::Hangup { client, after, phase: Phase::Early },
                "HANGUP after 1.2 from [192.0.2.9]:33115 in tests before SMTP handshake",
            ),
            (
                LogLine::Hangup { client, after, phase: Phase::Deep },
                "HANGUP after 1.2 from [192.0.2.9]:33115 in tests after SMTP handshake",
            ),
            (LogLine::BareNewline { client, text: "x".into() }, "BARE NEWLINE from [192.0.2.9]:33115 after x"),
            (
                LogLine::NonSmtpCommand { client, after: "CONNECT", verb: "GET".into(), rest: "/".into() },
                "NON-SMTP COMMAND from [192.0.2.9]:33115 after CONNECT: GET /",
            ),
            (
                LogLine::Pipelining { client, verb: "EHLO".into(), text: "x".into() },
                "COMMAND PIPELINING from [192.0.2.9]:33115 after EHLO: x",
            ),
            (LogLine::WithoutRcpt { client, verb: "DATA" }, "DATA without valid RCPT from [192.0.2.9]:33115"),
            (
                LogLine::Limit { client, limit: LimitReached::CommandTime, after: "HELO" },
                "COMMAND TIME LIMIT from [192.0.2.9]:33115 after HELO",
            ),
            (
                LogLine::Limit { client, limit: LimitReached::CommandCount, after: "HELO" },
                "COMMAND COUNT LIMIT from [192.0.2.9]:33115 after HELO",
            ),
            (
                LogLine::Limit { client, limit: LimitReached::CommandLength, after: "HELO" },
                "COMMAND LENGTH LIMIT from [192.0.2.9]:33115 after HELO",
            ),
            (
                LogLine::Limit { client, limit: LimitReached::SessionTime, after: "HELO" },
                "SESSION TIME LIMIT from [192.0.2.9]:33115 after HELO",
            ),
            (
                LogLine::Limit { client, limit: LimitReached::SessionBytes, after: "HELO" },
                "SESSION BYTE LIMIT from [192.0.2.9]:33115 after HELO",
            ),
            (
                LogLine::ReplacedCommand { client, old: "a".into(), new: "b".into() },
                "[192.0.2.9]:33115: replacing command \"a\" with \"b\"",
            ),
            (
                LogLine::DiscardedKeywords { client, words: "DSN".into() },
                "[192.0.2.9]33115: discarding EHLO keywords: DSN",
            ),
            (LogLine::Disconnect { client }, "DISCONNECT [192.0.2.9]:33115"),
            (LogLine::EnteringStress { connections: 90 }, "entering STRESS mode with 90 connections"),
            (LogLine::LeavingStress { connections: 70 }, "leaving STRESS mode with 70 connections"),
            (
                LogLine::RejectRcpt(Box::new(RejectRcpt {
                    client,
                    reply: "550 5.5.1 Protocol error".into(),
                    sender: "s@x".into(),
                    recipient: "u@y".into(),
                    esmtp: false,
                    helo: String::new(),
                })),
                "NOQUEUE: reject: RCPT from [192.0.2.9]:33115: 550 5.5.1 Protocol error; from=<s@x>, to=<u@y>, proto=SMTP, helo=<>",
            ),
        ];
        for (line, text) in rows {
            assert_eq!(line.to_string(), text);
            assert_eq!(line.severity(), Severity::Info);
            let fields = line.fields();
            assert_eq!(fields.len(), if line.client().is_some() { 3 } else { 1 }, "{text}");
        }
        assert_eq!(LogLine::UnknownMacro { name: "x".into() }.severity(), Severity::Warning);
    }
}
