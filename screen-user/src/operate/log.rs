//! The log's lines on their way: handed to one writer thread through a bounded queue, so that no session ever waits for a disk. What the queue can't
//! take is counted, and the count is logged when there is room again.

mod sink;

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use self::sink::Sink;
pub use self::sink::Target;
use crate::{
    config,
    screen::{self, outcome::Outcome},
};

/// Lines that may wait for the writer.
const QUEUE_LINES: usize = 65_536;
/// How long the writer lets lines come together before it writes them: the first one alone has to wake it, and all go out in one call.
const GATHERING: Duration = Duration::from_millis(5);
/// Bytes that are written without waiting for more lines: a steady stream must not gather for ever.
const WRITE_SIZE: usize = 64 * 1024;

/// How much a line matters (RFC 5424 section 6.2.1 gives the numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Something an operator has to look at.
    Error = 3,
    /// Something went wrong and the gate goes on; the text gets `warning: ` in front.
    Warning = 4,
    /// Business as usual.
    Info = 6,
    /// For whoever looks closely.
    Debug = 7,
}

impl From<screen::log::Severity> for Severity {
    fn from(severity: screen::log::Severity) -> Self {
        match severity {
            screen::log::Severity::Info => Self::Info,
            screen::log::Severity::Warning => Self::Warning,
        }
    }
}

/// A line on its way.
#[derive(Debug)]
struct Line {
    part: Part,
    severity: Severity,
    text: String,
    fields: Vec<(&'static str, String)>,
}

/// Whose line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The gate's.
    Gate,
    /// Of the part that asks DNSBL zones: log tools know its lines by postscreen's name for it.
    Dnsblog,
}

/// A handle to the log; cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    queue: Sender<Order>,
    backlog: Arc<Backlog>,
    takes_fields: Arc<AtomicBool>,
    /// The process that lines name.
    pid: u32,
}

/// What the queue holds, and what found no room. A queue of fixed size would take the memory of all its places in time.
#[derive(Debug, Default)]
struct Backlog {
    waiting: AtomicUsize,
    left_out: AtomicU64,
}

/// The writer thread; joining it is how the last lines reach their target.
#[derive(Debug)]
pub struct Writer {
    queue: Sender<Order>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
enum Order {
    Line(Line),
    Replace(Box<Sink>),
    Finish,
}

impl Log {
    /// Starts the writer to `target`.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(target: Target) -> io::Result<(Self, Writer)> {
        let Target(mut sink) = target;
        let pid = sink.prefix().pid;
        let takes_fields = Arc::new(AtomicBool::new(sink.takes_fields()));
        let (queue, orders) = channel();
        let backlog = Arc::new(Backlog::default());
        let shared = Arc::clone(&backlog);
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || write_all(&orders, sink, &shared))?;
        Ok((Self { queue: queue.clone(), backlog, takes_fields, pid }, Writer { queue, thread }))
    }

    /// Logs one line. Never blocks; a line for which there is no room is counted instead.
    pub fn line(&self, severity: Severity, text: impl Into<String>) {
        self.line_with(severity, text, Vec::new);
    }

    /// Logs one line with fields that the journal keeps beside it; other targets write the text alone, and `fields` is not asked then.
    pub fn line_with(
        &self,
        severity: Severity,
        text: impl Into<String>,
        fields: impl FnOnce() -> Vec<(&'static str, String)>,
    ) {
        let fields = if self.takes_fields.load(Ordering::Relaxed) { fields() } else { Vec::new() };
        self.send(Line { part: Part::Gate, severity, text: text.into(), fields });
    }

    /// Keeps what became of a session in the journal, with the whole record as a field. Other targets have the lines of the session, in
    /// postscreen's words, and get nothing.
    pub fn outcome(&self, outcome: &Outcome) {
        if !self.takes_fields.load(Ordering::Relaxed) {
            return;
        }
        let mut fields = vec![
            ("MXSCREEN_EVENT", "outcome".to_owned()),
            ("MXSCREEN_CLIENT", outcome.client.ip().to_string()),
            ("MXSCREEN_CLIENT_PORT", outcome.client.port().to_string()),
            ("MXSCREEN_OUTCOME", serde_json::to_string(outcome).unwrap_or_default()),
        ];
        fields.extend(outcome.syn.as_ref().map(|syn| ("MXSCREEN_SYN", syn.to_string())));
        let text = format!("outcome of {}: {:?}", screen::log::Peer(outcome.client), outcome.verdict);
        self.send(Line { part: Part::Gate, severity: Severity::Debug, text, fields });
    }

    /// Logs one line under the name of a part of this program.
    pub fn line_of(&self, part: Part, severity: Severity, text: impl Into<String>) {
        self.send(Line { part, severity, text: text.into(), fields: Vec::new() });
    }

    fn send(&self, line: Line) {
        // Several sessions may find the same last place free: the bound is as many lines more as there are threads.
        if self.backlog.waiting.load(Ordering::Relaxed) >= QUEUE_LINES {
            self.backlog.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.backlog.waiting.fetch_add(1, Ordering::Relaxed);
        // The writer ends after everybody who logs.
        let _ = self.queue.send(Order::Line(line));
    }

    /// Logs an informational line.
    pub fn info(&self, text: impl Into<String>) {
        self.line(Severity::Info, text);
    }

    /// Logs a warning; `warning: ` is put in front of the text.
    pub fn warn(&self, text: impl Into<String>) {
        self.line(Severity::Warning, text);
    }

    /// From now on lines go where `log` says: elsewhere, or to the same file opened again, for log rotation. With the
    /// [descriptor](Target::descriptor) of its target.
    ///
    /// # Errors
    /// The descriptor is missing.
    pub fn replace(&self, log: &config::Log, descriptor: Option<OwnedFd>) -> io::Result<()> {
        let Target(sink) = Target::shared(log, self.pid, descriptor)?;
        self.takes_fields.store(sink.takes_fields(), Ordering::Relaxed);
        // As with lines.
        let _ = self.queue.send(Order::Replace(Box::new(sink)));
        Ok(())
    }
}

impl Writer {
    /// Writes what is queued and ends.
    pub fn finish(self) {
        if self.queue.send(Order::Finish).is_ok() {
            // A writer that panicked has nothing left to write.
            let _ = self.thread.join();
        }
    }
}

fn write_all(orders: &Receiver<Order>, mut sink: Sink, backlog: &Backlog) {
    loop {
        let order = match orders.try_recv() {
            Ok(order) => order,
            Err(TryRecvError::Disconnected) => return sink.flush(),
            Err(TryRecvError::Empty) => {
                sink.flush();
                let Ok(order) = orders.recv() else { return };
                if matches!(order, Order::Line(_)) {
                    std::thread::sleep(GATHERING);
                }
                order
            }
        };
        match order {
            Order::Line(line) => {
                backlog.waiting.fetch_sub(1, Ordering::Relaxed);
                sink.write(&line);
                if sink.gathered() >= WRITE_SIZE {
                    sink.flush();
                }
            }
            Order::Replace(opened) => sink.replace(*opened),
            Order::Finish => return sink.flush(),
        }
        let missing = backlog.left_out.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let text = format!("{missing} log lines left out: the log target is too slow");
            sink.write(&Line { part: Part::Gate, severity: Severity::Warning, text, fields: Vec::new() });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{sink::append, *};
    use crate::config::LogTarget;

    fn named(name: &str, path: &Path) -> config::Log {
        config::Log { name: name.into(), ..config::Log::to(LogTarget::File(path.to_owned())) }
    }

    #[test]
    fn file_lines_have_the_syslog_form_and_survive_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (log, writer) = Log::start(Target::open(&named("mxscreen", &path)).unwrap()).unwrap();
        log.info("CONNECT from [192.0.2.1]:1 to [192.0.2.2]:25");
        log.warn("something");
        writer.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        let form = regex::Regex::new(
            r"^[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d \S+ mxscreen\[\d+\]: CONNECT from \[192.0.2.1\]:1 to \[192.0.2.2\]:25$",
        )
        .unwrap();
        let mut lines = text.lines();
        assert!(form.is_match(lines.next().unwrap()), "{text}");
        assert!(lines.next().unwrap().ends_with("]: warning: something"), "{text}");

        let (log, writer) = Log::start(Target::open(&named("mxscreen", &path)).unwrap()).unwrap();
        let rotated = folder.path().join("log.1");
        std::fs::rename(&path, &rotated).unwrap();
        log.replace(&named("mxscreen", &path), Some(append(&path).unwrap().into())).unwrap();
        log.info("after");
        writer.finish();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("after\n"));
        assert!(!std::fs::read_to_string(&rotated).unwrap().contains("after"));
    }

    #[test]
    fn tools_that_look_for_postfix_find_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (log, writer) = Log::start(Target::open(&named("postfix/postscreen", &path)).unwrap()).unwrap();
        log.info("PASS NEW [192.0.2.1]:1");
        log.line_of(Part::Dnsblog, Severity::Info, "addr 192.0.2.1 listed");
        writer.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        let pid = std::process::id();
        assert!(text.contains(&format!(" postfix/postscreen[{pid}]: PASS NEW [192.0.2.1]:1\n")), "{text}");
        assert!(text.contains(&format!(" postfix/dnsblog[{pid}]: addr 192.0.2.1 listed\n")), "{text}");
    }

    #[test]
    fn another_target_takes_over() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let (log, writer) = Log::start(Target::open(&named("mxscreen", &one)).unwrap()).unwrap();
        log.info("before");
        log.replace(&named("other", &two), Some(append(&two).unwrap().into())).unwrap();
        assert!(log.replace(&config::Log::to(LogTarget::Syslog), None).is_err());
        log.info("after");
        writer.finish();
        let [first, second] = [one, two].map(|path| std::fs::read_to_string(path).unwrap());
        assert!(first.ends_with("before\n") && second.ends_with("after\n"), "{first}{second}");
        assert!(second.contains(&format!(" other[{}]: after", std::process::id())), "{second}");
    }

    #[test]
    fn a_stuck_writer_costs_lines_and_says_how_many() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (queue, orders) = channel();
        let backlog = Arc::new(Backlog::default());
        let log = Log { queue: queue.clone(), backlog: Arc::clone(&backlog), takes_fields: Arc::default(), pid: 7 };
        for number in 0..QUEUE_LINES + 3 {
            log.info(number.to_string());
        }
        log.replace(&named("mxscreen", &path), Some(append(&path).unwrap().into())).unwrap();
        queue.send(Order::Finish).unwrap();
        let Target(sink) = Target::open(&named("mxscreen", &path)).unwrap();
        write_all(&orders, sink, &backlog);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), QUEUE_LINES + 1);
        assert!(text.contains("]: warning: 3 log lines left out: "), "{text}");
        assert_eq!(backlog.waiting.load(Ordering::Relaxed), 0);
    }
}
