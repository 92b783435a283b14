//! What the kernel half does at the moment, for `mxscreen status`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is attached, and where.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Where the gate is attached, and where not.
    pub interfaces: Vec<Interface>,
    /// The other programs that are attached.
    pub programs: Vec<String>,
    /// What differs from what the configuration asks for, in words.
    pub notes: Vec<String>,
}

/// What the tables hold at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How full the tables are.
    pub tables: Vec<Table>,
    /// What differs from what the configuration asks for, in words.
    pub notes: Vec<String>,
}

/// An interface and how the gate is attached to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// How; `None`: not at all, and the screener decides what the gate would have.
    pub mode: Option<Mode>,
    /// Whether the gate can answer there what it turns away.
    pub replies: bool,
    /// Whether clients get silence there that are to be answered.
    pub silent: bool,
    /// The better ways, the best one first, and why they were not taken.
    pub steps: Vec<Step>,
}

/// A way to attach the gate that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which.
    pub rung: Mode,
    /// Why not.
    pub reason: String,
    /// What would mend it: a command, as far as one can.
    pub remedy: Option<String>,
}

/// How the gate is attached to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// XDP in the driver.
    Native,
    /// XDP after the driver.
    Generic,
    /// TC ingress, by a link.
    Tcx,
    /// TC ingress, by a filter in a `clsact` qdisc.
    Clsact,
}

impl Mode {
    /// As the configuration calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tcx => "tc",
            Self::Clsact => "tc (clsact)",
        }
    }

    pub(super) fn is_xdp(self) -> bool {
        matches!(self, Self::Native | Self::Generic)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What an interface is called that takes the gate in no way.
const STEERING_ONLY: &str = "steering only";

impl Interface {
    /// How the gate is attached, in words.
    #[must_use]
    pub fn mode_name(&self) -> &'static str {
        self.mode.map_or(STEERING_ONLY, Mode::name)
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.name, self.mode_name())?;
        for Step { rung, reason, remedy } in &self.steps {
            write!(formatter, "; not {rung}: {reason}")?;
            if let Some(remedy) = remedy {
                write!(formatter, " (mend it: {remedy})")?;
            }
        }
        if self.silent {
            formatter.write_str("; refused clients get silence, as the gate can't reply there")?;
        }
        Ok(())
    }
}

/// How full a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// The map's name.
    pub name: &'static str,
    /// Entries in it.
    pub entries: usize,
    /// Entries that it holds at most.
    pub capacity: usize,
    /// Entries that it had no room for since the gate began: they were not taken, or one that was there made room.
    pub no_room: u64,
}
