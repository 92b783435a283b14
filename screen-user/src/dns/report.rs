//! What comes out of look-ups besides their answers: evidence for the log, and answers that came too late for their session.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::{query::reversed, zone::ZoneName};
use crate::screen::event::DnsblAnswer;

/// Between two reports of failures of one zone.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Why a zone gave no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No answer within this limit.
    TimedOut(Duration),
    /// The resolver could not find out (SERVFAIL).
    ServerFailure,
    /// The resolver does not want to be asked (REFUSED).
    Refused,
    /// Another response code, or a response that makes no sense.
    BadResponse,
    /// The resolver could not be reached.
    Unreachable,
    /// An address that is an error message: in 127.255.255.0/24, 127.0.1.255, or outside of 127.0.0.0/8.
    ErrorCode(Ipv4Addr),
    /// The zone is suspended: not asked.
    Suspended,
    /// Too many look-ups run: not asked.
    Overloaded,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(limit) => write!(f, "no answer within {}s", limit.as_secs_f64()),
            Self::ServerFailure => f.write_str("server failure"),
            Self::Refused => f.write_str("query refused"),
            Self::BadResponse => f.write_str("unusable response"),
            Self::Unreachable => f.write_str("resolver unreachable"),
            Self::ErrorCode(code) => write!(f, "error code {code}, which is no listing"),
            Self::Suspended => f.write_str("zone suspended"),
            Self::Overloaded => f.write_str("too many look-ups"),
        }
    }
}

/// The answers of a look-up that somebody left before it was complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateResult {
    /// Who was looked up, canonical.
    pub client: IpAddr,
    /// Every zone's answer, once, in the order of arrival.
    pub answers: Vec<DnsblAnswer>,
}

/// Something to log or to correct. `Display` is the log line's text (spec 9), with shown names only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A zone lists a client; one a code.
    Hit {
        /// Who was looked up.
        client: IpAddr,
        /// Which zone.
        zone: ZoneName,
        /// One A record of its answer.
        code: Ipv4Addr,
    },
    /// A zone gave no usable answer. At most one in [`REPORT_INTERVAL`] a zone.
    Failed {
        /// Who was looked up.
        client: IpAddr,
        /// Which zone.
        zone: ZoneName,
        /// Why; never [`Failure::Suspended`] or [`Failure::Overloaded`], which are counted only.
        failure: Failure,
        /// Failures of the same zone that were not reported since the last one that was.
        suppressed: u64,
    },
    /// A look-up that somebody left early is complete.
    Late(LateResult),
    /// A zone lists 127.0.0.1: its answers mean nothing, and it is not asked until it stops doing so.
    Suspended(ZoneName),
    /// A suspended zone is sound again.
    Resumed(ZoneName),
    /// A zone does not list 127.0.0.2: it may be dead, or without test points.
    NoTestPoint(ZoneName),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit { client, zone, code } => write!(f, "addr {client} listed by domain {zone} as {code}"),
            Self::Failed { client, zone, failure, suppressed } => {
                match failure {
                    Failure::TimedOut(limit) => {
                        write!(f, "warning: dnsblog reply timeout {}s for {zone}", limit.as_secs())?;
                    }
                    Failure::ServerFailure
                    | Failure::Refused
                    | Failure::BadResponse
                    | Failure::Unreachable
                    | Failure::ErrorCode(_)
                    | Failure::Suspended
                    | Failure::Overloaded => write!(
                        f,
                        "warning: dnsblog_query: lookup error for DNS query {}.{zone}: {failure}",
                        reversed(*client)
                    )?,
                }
                match suppressed {
                    0 => Ok(()),
                    more => write!(f, " ({more} more not shown)"),
                }
            }
            Self::Late(late) => {
                write!(f, "late DNSBL result for {}: {} answers", late.client, late.answers.len())
            }
            Self::Suspended(zone) => write!(
                f,
                "warning: DNSBL domain {zone} lists 127.0.0.1, as if it listed everybody: not asked until it stops (RFC 5782 section 5)"
            ),
            Self::Resumed(zone) => write!(f, "DNSBL domain {zone} no longer lists 127.0.0.1: asked again"),
            Self::NoTestPoint(zone) => write!(
                f,
                "warning: DNSBL domain {zone} does not list 127.0.0.2: it is dead, or has no test points (RFC 5782 section 5)"
            ),
        }
    }
}
