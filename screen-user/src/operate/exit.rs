//! What the process exits with (interface.md, "Exit status and bad input").

use std::fmt;

/// Why a command could not do its work, as the shell sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// The command line or the configuration is wrong.
    Usage = 64,
    /// Something that is needed is not there.
    Unavailable = 69,
    /// A defect of mxscreen.
    Bug = 70,
    /// A privilege is missing.
    NoPermission = 77,
}

/// A failure with the code to exit with.
#[derive(Debug)]
pub struct Failure {
    /// What the shell sees.
    pub code: Code,
    /// What the operator reads.
    pub message: String,
}

impl Failure {
    /// The command line, configuration or request is wrong.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { code: Code::Usage, message: message.to_string() }
    }

    /// Something that is needed is not there.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self { code: Code::Unavailable, message: message.to_string() }
    }

    /// A privilege is missing.
    pub fn no_permission(message: impl fmt::Display) -> Self {
        Self { code: Code::NoPermission, message: message.to_string() }
    }

    /// A defect of mxscreen.
    pub fn bug(message: impl fmt::Display) -> Self {
        Self { code: Code::Bug, message: message.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
