//! Debug messages of the programs, passed on to tracing.

use std::{fmt, io, time::Duration};

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::KernelError;

/// How often messages are looked for.
const POLL: Duration = Duration::from_millis(20);

/// The messages that the programs have written and nobody has read yet.
pub struct Messages(EbpfLogger<ToTracing>);

impl Messages {
    /// Those of the programs of `ebpf`.
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        EbpfLogger::init_with_logger(ebpf, ToTracing)
            .map(Self)
            .map_err(|error| KernelError::system("read the programs' messages", io::Error::other(error)))
    }

    /// Passes them on as they come, until it is cancelled.
    pub async fn pass_on(mut self) {
        loop {
            self.0.flush();
            tokio::time::sleep(POLL).await;
        }
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
