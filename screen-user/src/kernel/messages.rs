//! Debug messages of the programs, passed on to tracing.

use std::{fmt, io};

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::KernelError;

/// The messages that the programs have written and nobody has read yet.
pub(super) struct Messages(EbpfLogger<ToTracing>);

impl Messages {
    /// Those of the programs of `ebpf`.
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        EbpfLogger::init_with_logger(ebpf, ToTracing)
            .map(Self)
            .map_err(|error| KernelError::system("read the programs' messages", io::Error::other(error)))
    }

    /// Passes them on.
    pub(super) fn pass_on(&mut self) {
        self.0.flush();
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Messages")
    }
}

/// aya-log writes to a logger of the log crate.
struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!(target: "mxscreen_kernel", "{}", record.args());
    }

    fn flush(&self) {}
}
