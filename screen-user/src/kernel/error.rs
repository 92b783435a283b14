//! What can keep the kernel half from working.

use std::{error::Error, io, path::PathBuf};

use aya::{
    maps::MapError,
    programs::{ProgramError, links::LinkError},
};

/// Why the kernel half does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The process lacks a privilege.
    #[error("the privilege {capability} is missing ({wanted_for})")]
    Privilege {
        /// The capabilities, as capabilities(7) writes them.
        capability: String,
        /// What it is needed for.
        wanted_for: &'static str,
    },
    /// The host lacks something.
    #[error("{what}; {remedy}")]
    Missing {
        /// What is not there.
        what: String,
        /// What would provide it.
        remedy: String,
    },
    /// Another gate runs with the same pin path.
    #[error("another gate holds {path}; give this one its own kernel.pin_path", path = .path.display())]
    InUse {
        /// The pin path.
        path: PathBuf,
    },
    /// The plan can't be carried out by this kernel half.
    #[error("{0}")]
    Plan(String),
    /// The object was not taken.
    #[error("the kernel does not take the programs")]
    Load(#[from] aya::EbpfError),
    /// A program was not taken, or could not be attached.
    #[error("program {program}")]
    Program {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// A program could not be attached.
    #[error("link of program {program}")]
    Link {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: LinkError,
    },
    /// A map could not be read or written.
    #[error("map {map}")]
    Map {
        /// Which.
        map: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// A table holds as much as it can; nothing of the change was made.
    #[error("table {table} is full ({capacity} entries)")]
    Full {
        /// Which.
        table: &'static str,
        /// How much it holds.
        capacity: usize,
    },
    /// A file or system call.
    #[error("{what}")]
    System {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl KernelError {
    /// The exit status that says it: 77 for a privilege (also where the system refuses what the capabilities allow), 69 for something that is not there, 64 for a plan, 70 for a defect.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            // What the capabilities allow a lockdown, a security module or a container may still forbid.
            _ if self.is_refusal() => 77,
            Self::Privilege { .. } => 77,
            Self::Missing { .. } | Self::InUse { .. } | Self::Full { .. } | Self::System { .. } => 69,
            Self::Plan(_) => 64,
            Self::Load(_) | Self::Program { .. } | Self::Link { .. } | Self::Map { .. } => 70,
        }
    }

    fn is_refusal(&self) -> bool {
        let mut cause: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    pub(super) fn system(what: impl Into<String>, source: io::Error) -> Self {
        Self::System { what: what.into(), source }
    }

    pub(super) fn map(map: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map { map, source }
    }

    pub(super) fn program(program: &'static str) -> impl FnOnce(ProgramError) -> Self {
        move |source| Self::Program { program, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_kinds_apart() {
        let refusal = || io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(KernelError::system("read a file", refusal()).exit_code(), 77);
        let source = aya::sys::SyscallError { call: "bpf_link_create", io_error: refusal() }.into();
        assert_eq!(KernelError::Program { program: "gate", source }.exit_code(), 77);
        assert_eq!(KernelError::system("read a file", io::ErrorKind::NotFound.into()).exit_code(), 69);
        assert_eq!(KernelError::Full { table: "allow", capacity: 1 }.exit_code(), 69);
        assert_eq!(KernelError::Plan(String::new()).exit_code(), 64);
        assert_eq!(KernelError::Program { program: "gate", source: ProgramError::NotLoaded }.exit_code(), 70);
    }
}
