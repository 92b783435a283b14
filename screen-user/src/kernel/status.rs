//! What the kernel half does at the moment, for `mxscreen status`.

use std::fmt;

/// What is attached, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Where the gate is attached, and where not.
    pub interfaces: Vec<Interface>,
    /// The other programs that are attached.
    pub programs: Vec<&'static str>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// How; `None`: not at all.
    pub mode: Option<Mode>,
    /// Why not in a better way.
    pub reason: Option<String>,
}

/// How XDP is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// After the driver.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
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
}
