//! What a session found, apart from what was made of it: enough to judge the same client once more by other settings ([`super::retrial`]).

use std::net::Ipv4Addr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    dnsbl::Sites,
    event::{DnsblAnswer, Event, ForwardResult, Now, Standing, ZoneReply},
    record::{Record, Stamp, Test},
    session::{Session, State},
    shared::{Source, TlsState},
};

/// Most bytes of what a client says that are kept of a session.
pub const SAID_LIMIT: usize = 1024;
/// Most bytes of what a client says before the greeting that are kept: no decision hangs on them.
const EARLY_LIMIT: usize = 128;
/// Most events of one session that are kept.
const HEARD_LIMIT: usize = 64;
/// Most codes of one zone that are kept.
const CODES_LIMIT: usize = 16;

/// What was found in one session. Times are milliseconds from its beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What the lists said.
    #[serde(default, skip_serializing_if = "Stood::is_unlisted")]
    pub stood: Stood,
    /// Sessions that the client had, this one included.
    pub sessions: u32,
    /// Sessions that the screener had, this one included.
    pub checking: u32,
    /// Those of them that waited for the mail server.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forwarding: u32,
    /// Whether time limits were shortened.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stress: bool,
    /// Whether STARTTLS could be served.
    pub tls: TlsState,
    /// What was known of the client; `None` if nobody asked, as the tests were not reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Memory>,
    /// Whether a neighbour vouched for the client.
    #[serde(default, skip_serializing_if = "is_false")]
    pub credit: bool,
    /// How long the tests before the greeting went on; 0 if there were none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub early: u32,
    /// Whether it would have been noticed that the client talks before the greeting.
    #[serde(default, skip_serializing_if = "is_false")]
    pub watched: bool,
    /// The zones that were asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<ZoneFound>,
    /// What came from the client and the mail server, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heard: Vec<Heard>,
    /// Whether more was heard than is kept.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cut: bool,
}

/// What the lists said of a client, and which one; `R` names a rule of the access list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stood<R = Box<str>> {
    /// No list knew it.
    #[default]
    Unlisted,
    /// A run-time entry allowed it.
    AllowEntry,
    /// The access list permitted it, by this rule.
    Permitted(R),
    /// An operator's run-time entry denied it.
    DenyEntry,
    /// It had failed this test, if that is still known, not long ago.
    Failed(Option<Test>),
    /// The imported list of this name denied it.
    Imported(Box<str>),
    /// The access list rejected it, by this rule.
    Rejected(R),
}

/// What was known of a client when its session chose tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Memory {
    /// Nothing.
    Nothing,
    /// A remembered record; of each test in order the last second, in Unix time, of its pass, or what [`Stamp`] has for none.
    Record(Box<[Stamp; 5]>),
    /// The same, by another session of the client that was under way.
    OtherSession(Box<[Stamp; 5]>),
}

/// What one DNSBL zone said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneFound {
    /// [`super::dnsbl::Zone::label`].
    pub zone: Box<str>,
    /// When it answered; `None`: not in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u32>,
    /// What it answered, empty if the client is not listed; `None`: nothing that could be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codes: Option<Vec<Ipv4Addr>>,
}

/// Something that was heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// When.
    pub ms: u32,
    /// What.
    pub what: What,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The client talked before the greeting: the beginning of it.
    Early(Said),
    /// One read from the client in the dummy engine.
    Said(Said),
    /// The client was gone before the greeting.
    LeftEarly,
    /// The client was gone.
    Left,
    /// TLS was set up.
    Tls,
    /// What became of handing the client to the mail server.
    Forwarded(ForwardResult),
}

/// Bytes of a client's. Each is the character of its number in JSON, so that commands can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said(pub Box<[u8]>);

impl Serialize for Said {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.iter().copied().map(char::from).collect::<String>())
    }
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
        Ok(Self(bytes.map_err(D::Error::custom)?.into()))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
const fn is_false(truth: &bool) -> bool {
    !*truth
}

impl<R> Stood<R> {
    /// What that means for a session.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        match self {
            Self::Unlisted => Standing::Unlisted,
            Self::AllowEntry | Self::Permitted(_) => Standing::Allowed,
            Self::DenyEntry | Self::Failed(_) | Self::Imported(_) => Standing::Barred,
            Self::Rejected(_) => Standing::Denied,
        }
    }

    const fn is_unlisted(&self) -> bool {
        matches!(self, Self::Unlisted)
    }
}

impl<R: ToString> Stood<Option<R>> {
    /// The same, with the rule in words.
    #[must_use]
    pub fn named(self) -> Stood {
        let name = |rule: Option<R>| rule.map_or_else(Box::default, |rule| rule.to_string().into());
        match self {
            Self::Unlisted => Stood::Unlisted,
            Self::AllowEntry => Stood::AllowEntry,
            Self::Permitted(rule) => Stood::Permitted(name(rule)),
            Self::DenyEntry => Stood::DenyEntry,
            Self::Failed(test) => Stood::Failed(test),
            Self::Imported(list) => Stood::Imported(list),
            Self::Rejected(rule) => Stood::Rejected(name(rule)),
        }
    }
}

impl Memory {
    pub(super) fn of(record: &Record, source: Source) -> Self {
        // Most clients are strangers, and wait with as little as can be.
        let stamps = || Box::new(Test::ALL.map(|test| record.stamp(test)));
        match source {
            Source::Nowhere => Self::Nothing,
            Source::Memory => Self::Record(stamps()),
            Source::OtherSession => Self::OtherSession(stamps()),
        }
    }
}

impl Found {
    /// How many bytes of what the client said are kept.
    pub(super) fn kept_bytes(&self) -> usize {
        let said = |heard: &Heard| match &heard.what {
            What::Early(said) | What::Said(said) => said.0.len(),
            What::LeftEarly | What::Left | What::Tls | What::Forwarded(_) => 0,
        };
        self.heard.iter().map(said).sum()
    }

    /// Notes that the zones of `sites` are asked.
    pub(super) fn ask(&mut self, sites: &Sites) {
        let unanswered = |label: &str| ZoneFound { zone: label.into(), ms: None, codes: None };
        self.zones = sites.zones().iter().map(|zone| unanswered(zone.label())).collect();
    }

    fn answered(&mut self, ms: u32, answer: &DnsblAnswer) {
        let Some(zone) = self.zones.get_mut(answer.zone).filter(|zone| zone.ms.is_none()) else { return };
        zone.ms = Some(ms);
        zone.codes = match &answer.reply {
            ZoneReply::Listed { codes, .. } => Some(codes.iter().take(CODES_LIMIT).copied().collect()),
            ZoneReply::NotListed { .. } => Some(Vec::new()),
            ZoneReply::Failed => None,
        };
    }

    fn hear(&mut self, ms: u32, what: What) {
        if self.cut || self.heard.len() >= HEARD_LIMIT {
            self.cut = true;
        } else {
            self.heard.push(Heard { ms, what });
        }
    }

    fn said(&mut self, ms: u32, bytes: &[u8]) {
        if self.kept_bytes() + bytes.len() > SAID_LIMIT {
            self.cut = true;
        } else {
            self.hear(ms, What::Said(Said(without_secret(bytes).into())));
        }
    }
}

/// What a client tries to authenticate by is nobody's business, and no decision hangs on it: AUTH is not known here.
fn without_secret(bytes: &[u8]) -> &[u8] {
    let is_auth = bytes.first_chunk::<5>().is_some_and(|head| head.eq_ignore_ascii_case(b"AUTH "));
    if is_auth { b"AUTH\r\n" } else { bytes }
}

impl Session {
    /// Notes what happens to the session, if that is kept.
    pub(super) fn note(&mut self, event: &Event<'_>, now: Now) {
        let state = self.state;
        let Some(found) = &mut self.found else { return };
        let since = now.monotonic.saturating_sub(self.opened.monotonic);
        let ms = u32::try_from(since.as_millis()).unwrap_or(u32::MAX);
        if state == State::Early {
            found.early = ms;
        }
        match (state, event) {
            (State::Early, Event::Peeked([]) | Event::PeerClosed | Event::WriteFailed) => {
                found.hear(ms, What::LeftEarly);
            }
            (State::Engine | State::Handshake, Event::PeerClosed | Event::WriteFailed) => found.hear(ms, What::Left),
            (State::Early, Event::Peeked(bytes)) if self.flags.watching(Test::Pregreet) => {
                let head = bytes.get(..EARLY_LIMIT).unwrap_or(bytes);
                found.hear(ms, What::Early(Said(head.into())));
            }
            (State::Early, Event::Dnsbl(answer)) => found.answered(ms, answer),
            (State::Engine, Event::Received(bytes)) => found.said(ms, bytes),
            (State::Handshake, Event::TlsEstablished) => found.hear(ms, What::Tls),
            (State::Forwarding | State::Replaying, Event::Forwarded(result)) => {
                found.hear(ms, What::Forwarded(*result));
            }
            _ => {}
        }
    }
}
