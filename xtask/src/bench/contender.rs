//! A screener under test: started for one measurement, and ended after it.

use std::{path::Path, time::Duration};

use anyhow::Result;

use super::{gate::Gate, postscreen::Postscreen, usage};

/// Which screener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Ours.
    Mxscreen,
    /// Debian's.
    Postscreen,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Mxscreen => "mxscreen",
            Self::Postscreen => "postscreen",
        }
    }
}

/// What both screeners are set to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    /// The greet wait, in whole seconds; 0 is no pregreet test.
    pub(super) greet_wait: u16,
    /// Whether the clients are known to be good and need not pass.
    pub(super) known: bool,
    /// The tests after the greeting, by the name that both screeners have for them. With one of them the screener greets by itself.
    pub(super) deep: &'static [&'static str],
    /// Whether there is a mail server behind it.
    pub(super) mail_server: bool,
}

/// A running screener.
pub(super) enum Contender {
    Mxscreen(Gate),
    Postscreen(Postscreen),
}

impl Contender {
    /// Starts it, with its files in `folder`; it listens when this returns.
    pub(super) fn start(kind: Kind, setting: Setting, folder: &Path) -> Result<Self> {
        Ok(match kind {
            Kind::Mxscreen => Self::Mxscreen(Gate::start(setting, folder)?),
            Kind::Postscreen => Self::Postscreen(Postscreen::start(setting, folder)?),
        })
    }

    /// CPU time so far of whatever screens and logs, mail server left out.
    pub(super) fn cpu_time(&self) -> Result<Cpu> {
        match self {
            Self::Mxscreen(gate) => Ok(Cpu { screener: usage::cpu_time(gate.pid()?)?, logger: Duration::ZERO }),
            Self::Postscreen(postscreen) => {
                let screener = postscreen.screeners()?.into_iter().map(usage::cpu_time).sum::<Result<_>>()?;
                let logger = postscreen.loggers()?.into_iter().map(usage::cpu_time).sum::<Result<_>>()?;
                Ok(Cpu { screener, logger })
            }
        }
    }

    /// Resident memory of whatever screens, in bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        match self {
            Self::Mxscreen(gate) => usage::resident(gate.pid()?),
            Self::Postscreen(postscreen) => postscreen.screeners()?.into_iter().map(usage::resident).sum(),
        }
    }
}

/// CPU time of a screener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpu {
    /// What screens.
    pub(super) screener: Duration,
    /// What writes its log, where that is a process of its own.
    pub(super) logger: Duration,
}
