//! What the program says of itself through `tracing`, written to the same log as everything else.

use std::fmt::{self, Write as _};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
};

use super::log::{Log, Severity};

/// Whose events are written. Libraries are left out: hickory's name the queries that it sends, and so the keys of paid zones.
const OURS: [&str; 2] = ["screen_user", "mxscreen"];

/// The kernel programs' debug messages.
const KERNEL_MESSAGES: &str = "mxscreen_kernel";

/// Sends what this program says of itself to `log`, for the life of the process; the kernel programs' debug messages only if they
/// are asked for.
pub fn into_log(log: Log, kernel_messages: bool) {
    // Set once, before anything is traced; a second gate in one process, as in tests, shares the first one's log.
    let _ =
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(IntoLog { log, kernel_messages }));
}

struct IntoLog {
    log: Log,
    kernel_messages: bool,
}

impl<S: Subscriber> Layer<S> for IntoLog {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        if metadata.target() == KERNEL_MESSAGES {
            return self.kernel_messages;
        }
        *metadata.level() <= Level::INFO && OURS.iter().any(|target| metadata.target().starts_with(target))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let severity = match *event.metadata().level() {
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warning,
            _ => Severity::Info,
        };
        self.log.line(severity, text.0);
    }
}

/// The message, then the other fields as `name=value`.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let space = if self.0.is_empty() { "" } else { " " };
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            write!(self.0, "{space}{value:?}")
        } else {
            write!(self.0, "{space}{}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{self, LogTarget},
        operate::log::Target,
    };

    #[test]
    fn ours_are_written_and_a_resolvers_queries_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (log, writer) = Log::start(Target::open(&config::Log::to(LogTarget::File(path.clone()))).unwrap()).unwrap();
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(IntoLog { log, kernel_messages: false }),
            || {
                tracing::warn!(target: "screen_user::kernel", map = "pass", "the map is full");
                tracing::warn!(target: "hickory_resolver::x", "query s3cret.zone.example");
                tracing::debug!(target: "screen_user::kernel", "details");
                tracing::debug!(target: "mxscreen_kernel", "a packet");
            },
        );
        writer.finish();
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.ends_with("]: warning: the map is full map=\"pass\"\n"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
