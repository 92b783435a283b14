//! How mail servers take a client that they do not know, found out by visits: what one does that is told nothing of the client, what it does
//! with a PROXY header, whom it takes the client for, and whether it would relay for it. No visit goes beyond RCPT: nothing is ever delivered.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    task::JoinSet,
    time::timeout,
};

use super::{
    header,
    stream::Stream,
    survey,
    talk::{Reply, Talk, TalkError},
};
use crate::{
    config::{Backend, ClientAddress, Config},
    kernel::RelayGuard,
    screen::{escape, event::Endpoints},
};

/// Who comes: nobody's addresses, for documentation (RFC 5737, RFC 3849).
const STRANGER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const STRANGER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
/// Any port of a client's.
const STRANGER_PORT: u16 = 25_025;

/// A name that nobody has (RFC 2606): the mail servers' logs show it.
const NAME: &str = "mxscreen-doctor.invalid";

/// How long a mail server may take to greet one that has said nothing. Who waits for a PROXY header does so for 5 s (Postfix) or less.
const SILENCE: Duration = Duration::from_secs(3);
/// How long it may take to greet one that has said who it is, or that nothing else has made it greet.
const GREETING_LIMIT: Duration = Duration::from_secs(15);
/// How long the rest of a visit may take.
const LIMIT: Duration = Duration::from_secs(15);

/// So much of a reply is shown.
const SHOWN: usize = 120;

/// What a mail server is told of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manner {
    /// Nothing.
    Bare,
    /// Its address, by a binary PROXY header.
    ProxyV2,
    /// Its address, by a line of text.
    ProxyV1,
}

/// What a mail server did with a visitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Met {
    /// It can't be connected to, and why.
    Unreachable(String),
    /// It took the connection and said nothing, for as long as it was waited for.
    Silent,
    /// The end of the sentence "it took the connection and".
    Failed(String),
    /// Its greeting, which turns the visitor away.
    Turned(String),
    /// It served it.
    Served(Served),
}

/// A session with a mail server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The first line of its greeting.
    pub greeting: String,
    /// Whom it takes the client for, where it says so when it answers EHLO.
    pub sees: Option<IpAddr>,
    /// What it says to a recipient of a domain that is not its own.
    pub relaying: Relaying,
}

/// What a mail server says to a client that wants mail relayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relaying {
    /// It takes it.
    Accepted,
    /// It does not; what it said.
    Refused(String),
    /// It can't be told, and why.
    Untold(String),
}

/// How a mail server takes a client that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// Where it is.
    pub server: String,
    /// The address that the visits came from.
    pub from: Option<IpAddr>,
    /// Who the visitor is said to be.
    pub stranger: IpAddr,
    /// What was tried, in order; the last word on each manner.
    pub visits: Vec<(Manner, Met)>,
}

impl Examined {
    /// What came of visits in this manner, if there were any.
    #[must_use]
    pub fn met(&self, manner: Manner) -> Option<&Met> {
        self.visits.iter().rev().find(|(tried, _)| *tried == manner).map(|(_, met)| met)
    }

    /// The session of visits in this manner, if there was one.
    #[must_use]
    pub fn served(&self, manner: Manner) -> Option<&Served> {
        match self.met(manner) {
            Some(Met::Served(served)) => Some(served),
            _ => None,
        }
    }
}

impl Manner {
    /// The manner in which the gate comes.
    #[must_use]
    pub const fn of(way: ClientAddress) -> Self {
        match way {
            ClientAddress::Kernel | ClientAddress::None => Self::Bare,
            ClientAddress::ProxyV2 => Self::ProxyV2,
            ClientAddress::ProxyV1 => Self::ProxyV1,
        }
    }
}

/// Who connects to mail servers.
pub trait Door: Send + Sync + 'static {
    /// Connects, and says nothing. What shows the mail server the client is dropped after the connection.
    ///
    /// # Errors
    /// Why it can't.
    fn open(
        &self,
        server: &Backend,
        endpoints: &Endpoints,
    ) -> impl Future<Output = Result<(Stream, Option<RelayGuard>), String>> + Send;
}

/// Examines all mail servers that take clients, side by side; of one that may be at several addresses the first where somebody listens.
pub async fn all(config: &Config, door: &Arc<impl Door>) -> Vec<Examined> {
    let manner = Manner::of(config.forward.client_address);
    let mut examinations = JoinSet::new();
    for (place, choices) in survey::places(config).into_iter().enumerate() {
        let door = Arc::clone(door);
        examinations.spawn(async move { (place, first(&choices, manner, &*door).await) });
    }
    // One that panicked is left out; there is none.
    let mut all: Vec<_> = examinations.join_all().await;
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().filter_map(|(_, examined)| examined).collect()
}

async fn first(choices: &[Backend], manner: Manner, door: &impl Door) -> Option<Examined> {
    let mut last = None;
    for server in choices {
        let examined = examine(server, manner, door).await;
        let is_there = !matches!(examined.visits.as_slice(), [(_, Met::Unreachable(_))]);
        last = Some(examined);
        if is_there {
            break;
        }
    }
    last
}

/// Without a header first, as nothing else tells one that takes a header from one that takes it for commands.
async fn examine(server: &Backend, manner: Manner, door: &impl Door) -> Examined {
    let (stranger, at) = match server {
        Backend::At(at @ SocketAddr::V6(_)) => (STRANGER_V6, *at),
        Backend::At(at @ SocketAddr::V4(_)) => (STRANGER_V4, *at),
        // What it is told of the place that the client meant does not matter.
        Backend::Local | Backend::Socket(_) => (STRANGER_V4, SocketAddr::new(STRANGER_V4, 25)),
    };
    let endpoints = Endpoints { client: SocketAddr::new(stranger, STRANGER_PORT), server: at };
    let mut examined = Examined { server: server.to_string(), from: None, stranger, visits: Vec::new() };
    let order = match manner {
        Manner::ProxyV1 => [Manner::ProxyV1, Manner::ProxyV2],
        Manner::Bare | Manner::ProxyV2 => [Manner::ProxyV2, Manner::ProxyV1],
    };
    // At last as one who has time: a mail server may be slow to greet.
    let tries = [(Manner::Bare, SILENCE)]
        .into_iter()
        .chain(order.map(|manner| (manner, GREETING_LIMIT)))
        .chain([(Manner::Bare, GREETING_LIMIT)]);
    for (manner, patience) in tries {
        let met = match door.open(server, &endpoints).await {
            Ok((mut stream, entry)) => {
                examined.from = stream.local_ip();
                let met = visit(&mut stream, manner, &endpoints, patience).await;
                drop(stream);
                drop(entry);
                met
            }
            Err(why) => Met::Unreachable(why),
        };
        let ends = matches!(met, Met::Unreachable(_) | Met::Served(_));
        examined.visits.push((manner, met));
        if ends {
            break;
        }
    }
    examined
}

async fn visit(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    manner: Manner,
    endpoints: &Endpoints,
    patience: Duration,
) -> Met {
    let header = match manner {
        Manner::Bare => Vec::new(),
        Manner::ProxyV2 => header::v2(endpoints.client, endpoints.server, None),
        Manner::ProxyV1 => header::v1(endpoints.client, endpoints.server),
    };
    if let Err(error) = stream.write_all(&header).await {
        return Met::Failed(format!("refused the PROXY header: {error}"));
    }
    let mut talk = Talk::new(stream);
    let greeting = match timeout(patience, talk.reply()).await {
        Err(_) => return Met::Silent,
        Ok(Err(error)) => return Met::Failed(error.to_string()),
        Ok(Ok(greeting)) if greeting.code != 220 => return Met::Turned(first_line(&greeting)),
        Ok(Ok(greeting)) => first_line(&greeting),
    };
    let welcome = match timeout(LIMIT, welcome(&mut talk)).await {
        Ok(Ok(welcome)) if welcome.code == 250 => Ok(welcome),
        Ok(Ok(refusal)) => Err(format!("said \"{}\" to EHLO", first_line(&refusal))),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("did not answer EHLO within {} s", LIMIT.as_secs())),
    };
    match welcome {
        Ok(welcome) => Met::Served(Served {
            greeting,
            sees: seen(&welcome.bytes),
            relaying: timeout(LIMIT, recipient(&mut talk)).await.unwrap_or_else(|_| {
                Relaying::Untold(format!("it did not answer MAIL and RCPT within {} s", LIMIT.as_secs()))
            }),
        }),
        // It greets, so that a header is nothing that it waits for.
        Err(what) if manner == Manner::Bare => {
            Met::Served(Served { greeting, sees: None, relaying: Relaying::Untold(format!("it greeted and {what}")) })
        }
        // The answer may well be one to the header, which was taken for a command.
        Err(what) => Met::Failed(format!("greeted and {what}")),
    }
}

async fn welcome(talk: &mut Talk<'_, impl AsyncRead + AsyncWrite + Unpin>) -> Result<Reply, TalkError> {
    talk.say(format!("EHLO {NAME}").as_bytes()).await?;
    talk.reply().await
}

/// Asks for what only a mail server's own clients may have, and takes it back.
async fn recipient(talk: &mut Talk<'_, impl AsyncRead + AsyncWrite + Unpin>) -> Relaying {
    let relaying = match accepts(talk, "MAIL FROM:<>").await {
        Ok(()) => accepts(talk, &format!("RCPT TO:<postmaster@{NAME}>")).await,
        refused => refused,
    };
    // What was asked for is there; it may as well just close.
    for command in ["RSET", "QUIT"] {
        if talk.say(command.as_bytes()).await.is_err() || talk.reply().await.is_err() {
            break;
        }
    }
    relaying.map_or_else(|otherwise| otherwise, |()| Relaying::Accepted)
}

/// What it says instead of accepting a command is the error.
async fn accepts(talk: &mut Talk<'_, impl AsyncRead + AsyncWrite + Unpin>, command: &str) -> Result<(), Relaying> {
    let untold = |error: TalkError| Relaying::Untold(format!("it {error}"));
    talk.say(command.as_bytes()).await.map_err(untold)?;
    let reply = talk.reply().await.map_err(untold)?;
    let said = first_line(&reply);
    match reply.code {
        250..=259 => Ok(()),
        // It is about to stop.
        421 => Err(Relaying::Untold(format!("it said \"{said}\""))),
        _ if is_of_the_domain(&reply) => {
            Err(Relaying::Untold(format!("it refuses the recipient for its domain, whoever asks: \"{said}\"")))
        }
        _ if reply.refuses() => Err(Relaying::Refused(said)),
        _ => Err(Relaying::Untold(format!("it said \"{said}\""))),
    }
}

/// Whether the refusal has the enhanced code of a bad domain of the recipient (RFC 3463 section 3.2, X.1.2).
fn is_of_the_domain(reply: &Reply) -> bool {
    let enhanced = reply.bytes.get(4..).unwrap_or_default();
    reply.refuses() && (enhanced.starts_with(b"4.1.2 ") || enhanced.starts_with(b"5.1.2 "))
}

/// The address that a reply to EHLO names as the client's: the last one in brackets of its first line.
fn seen(welcome: &[u8]) -> Option<IpAddr> {
    let line = welcome.split(|byte| *byte == b'\n').next()?;
    let (_, rest) = str::from_utf8(line).ok()?.rsplit_once('[')?;
    let (address, _) = rest.split_once(']')?;
    let address: IpAddr = address.trim_start_matches("IPv6:").parse().ok()?;
    Some(address.to_canonical())
}

/// What can be shown of a reply.
fn first_line(reply: &Reply) -> String {
    let line = reply.bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    escape(line.get(..SHOWN).unwrap_or(line))
}

#[cfg(test)]
mod tests;
