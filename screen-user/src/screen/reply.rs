//! What the screener says, and how a reply becomes bytes: soft bounce, then the reject footer (spec 1.13, 4.7, 4.9).

use std::{borrow::Cow, net::SocketAddr};

use super::{
    footer,
    log::{LogLine, address_text},
    policy::Policy,
};

/// A reply that ends a session, or that recipients get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// Over `limits.client_connections`.
    TooManyConnections,
    /// Over `limits.post_queue`, or no mail server answers.
    ServerPortsBusy,
    /// Over `limits.pre_queue`.
    ScreeningPortsBusy,
    /// Denied.
    Denied,
    /// Handing over failed after the greeting had begun.
    NoSystemResources,
    /// A broken rule of the protocol.
    ProtocolError,
    /// Listed by a DNSBL.
    Listed,
    /// A command that is not SMTP.
    NotSmtp,
    /// A time limit.
    Timeout,
    /// Another limit.
    TryAgainLater,
    /// QUIT.
    Bye,
    /// DATA with an argument.
    DataSyntax,
    /// DATA before MAIL.
    NeedRcpt,
    /// DATA or BDAT after MAIL.
    NoValidRecipients,
    /// BDAT before MAIL.
    NeedMail,
    /// BDAT without an argument.
    BdatSyntax,
    /// BDAT that was not announced.
    NotImplemented,
}

impl Reply {
    /// The text without its line end. `name` is the DNSBL name for [`Reply::Listed`].
    pub(super) fn text(self, policy: &Policy, client: SocketAddr, name: &str) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::TooManyConnections => "421 4.7.0 Error: too many connections",
            Self::ServerPortsBusy => "421 4.3.2 All server ports are busy",
            Self::ScreeningPortsBusy => "421 4.3.2 All screening ports are busy",
            Self::Denied => "521 5.3.2 Service currently unavailable",
            Self::NoSystemResources => "421 4.3.2 No system resources",
            Self::ProtocolError => "521 5.5.1 Protocol error",
            Self::Listed => {
                let client = address_text(client.ip());
                return Cow::Owned(format!("521 5.7.1 Service unavailable; client [{client}] blocked using {name}"));
            }
            Self::NotSmtp => "521 5.7.0 Error: I can break rules, too. Goodbye.",
            Self::Timeout => return Cow::Owned(format!("421 4.4.2 {} Error: timeout exceeded", policy.hostname)),
            Self::TryAgainLater => {
                return Cow::Owned(format!("421 {} Service unavailable - try again later", policy.hostname));
            }
            Self::Bye => "221 2.0.0 Bye",
            Self::DataSyntax => "501 5.5.4 Syntax: DATA",
            Self::NeedRcpt => "503 5.5.1 Error: need RCPT command",
            Self::NoValidRecipients => "554 5.5.1 Error: no valid recipients",
            Self::NeedMail => "554 5.5.1 Error: need MAIL command",
            Self::BdatSyntax => "501 5.5.4 Syntax: BDAT count [LAST]",
            Self::NotImplemented => "502 5.5.1 Error: command not implemented",
        })
    }
}

/// What recipients get; the last failure that says something decides (spec 1.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum RecipientReply {
    /// Nothing is wrong with the client; it has to come back.
    #[default]
    ComeBack,
    /// The access list rejects the client.
    Denied,
    /// The client broke a rule of the protocol.
    ProtocolError,
    /// The client is listed by a DNSBL.
    Listed,
}

impl RecipientReply {
    /// The text without its line end. `name` is the DNSBL name for [`RecipientReply::Listed`].
    pub(super) fn text(self, client: SocketAddr, name: &str) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::ComeBack => "450 4.3.2 Service currently unavailable",
            Self::Denied => "550 5.3.2 Service currently unavailable",
            Self::ProtocolError => "550 5.5.1 Protocol error",
            Self::Listed => {
                let client = address_text(client.ip());
                return Cow::Owned(format!("550 5.7.1 Service unavailable; client [{client}] blocked using {name}"));
            }
        })
    }
}

/// `text` as `smtp.soft_bounce` leaves it: a permanent failure becomes a temporary one (spec 4.7).
pub(super) fn soften(text: &str, soft_bounce: bool) -> Cow<'_, str> {
    if !soft_bounce || !text.starts_with('5') {
        return Cow::Borrowed(text);
    }
    let mut soft = String::with_capacity(text.len());
    soft.extend(text.chars().enumerate().map(|(at, c)| if (at == 0 || at == 4) && c == '5' { '4' } else { c }));
    Cow::Owned(soft)
}

/// The bytes of a reply, ready to be sent, and what there is to log about its footer.
pub(super) fn encode(text: &str, policy: &Policy, scope: &footer::Scope<'_>) -> (Vec<u8>, Vec<LogLine>) {
    let soft = soften(text, policy.smtp.soft_bounce);
    let mut bytes = soft.into_owned();
    let mut lines = Vec::new();
    if text.starts_with(['4', '5']) && !policy.smtp.reject_footer.is_empty() {
        lines = footer::append(&mut bytes, &policy.smtp.reject_footer, scope);
    }
    bytes.push_str("\r\n");
    (bytes.into_bytes(), lines)
}
