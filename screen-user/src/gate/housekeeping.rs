//! What goes on beside the sessions: expiry, kernel events, late DNSBL answers.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::mpsc::Receiver;

use super::{Gate, Phase, left_out::LeftOut, unix_now};
use crate::{
    dns::{LateResult, Report},
    journal::Entry,
    kernel::{KernelEvent, Reason},
    operate::{
        exit::chain,
        log::{Part, Severity},
    },
    screen::{
        dnsbl::Zone,
        log::{DRY_RUN, LogLine},
        outcome,
        record::Client,
    },
};

/// Between two looks at what has expired.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two sweeps of the kernel's tables.
const KERNEL_SWEEP_TICKS: u32 = 15;
/// Ticks between two changes of the key of the kernel's cookies.
const KEY_TICKS: u32 = 60;
/// Ticks between two sweeps of the remembered records.
const RECORD_SWEEP_TICKS: u32 = 600;

impl Gate {
    /// Expires entries and records until the gate stops.
    pub(super) async fn keep_house(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        let mut count = 0_u32;
        let mut full_tables = BTreeSet::new();
        while *self.phase.borrow() == Phase::Running {
            ticks.tick().await;
            self.expire_entries();
            self.expire_lists();
            self.pool.tick();
            if let Some(kernel) = &self.kernel {
                // Nothing that has expired has any effect until it is swept, so that a failure is only worth a line.
                if count.is_multiple_of(KERNEL_SWEEP_TICKS)
                    && let Err(error) = kernel.sweep()
                {
                    self.log.warn(format!("the kernel's tables were not swept: {}", chain(&error)));
                }
                if count.is_multiple_of(KEY_TICKS)
                    && let Err(error) = kernel.rotate_keys()
                {
                    self.log.warn(format!("the key of the kernel's cookies was not changed: {}", chain(&error)));
                }
            }
            self.tell_of_full_tables(&mut full_tables);
            count = count.wrapping_add(1);
            // What is swept leaves the store, where more may be known of the client than was taken up so far.
            if count.is_multiple_of(RECORD_SWEEP_TICKS) && self.loading().is_none() {
                let dropped = self.screen().sweep(unix_now());
                dropped.iter().for_each(|&client| self.store.forget(client));
                self.expire_forgets();
            }
        }
    }

    /// Writes a line for each decision that the kernel reports.
    pub(super) async fn log_kernel_events(self: Arc<Self>) {
        let Some(kernel) = &self.kernel else { return };
        let mut events = match kernel.events() {
            Ok(Some(events)) => events,
            Ok(None) => return,
            Err(error) => return self.log.warn(format!("decisions of the kernel are not logged: {}", chain(&error))),
        };
        let mut left_out = match LeftOut::new(kernel) {
            Ok(left_out) => left_out,
            Err(error) => return self.log.warn(format!("decisions of the kernel are not logged: {}", chain(&error))),
        };
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                event = events.next() => self.log_kernel_event(&event),
                _ = ticks.tick() => match left_out.since(kernel) {
                    Ok(0) => {}
                    Ok(lines) => self.log.info(format!("{lines} lines left out (kernel)")),
                    Err(error) => self.log.warn(format!("lines that were left out were not counted: {}", chain(&error))),
                },
            }
        }
    }

    fn log_kernel_event(&self, event: &KernelEvent) {
        let (style, dry_run) = {
            let policy = &self.config.load().policy;
            (policy.log_style, policy.dry_run)
        };
        let (client, server) = (event.client, event.server);
        self.note_kernel_event(event, dry_run);
        // In a dry run its connection makes line and entry: with the mail server, or with the screener.
        if dry_run
            && (event.reason == Reason::Denied || event.reason == Reason::Limited && !self.is_steered(client.ip()))
        {
            return;
        }
        self.keep_kernel_event(event, dry_run);
        let line = match event.reason {
            Reason::Denied | Reason::LetIn => LogLine::Denylisted { client, style },
            Reason::Limited => LogLine::TooManyConnections { client },
            Reason::PassOld => LogLine::PassOld { client },
            Reason::Allowed => LogLine::Allowlisted { client, style },
            // Counted in `totals`, and of no interest to whoever reads the log.
            _ => return,
        };
        if matches!(event.reason, Reason::PassOld | Reason::Allowed | Reason::LetIn) {
            self.log.info(format!("{} (kernel)", LogLine::Connect { client, server }));
        }
        let spared = event.reason == Reason::LetIn || dry_run && event.reason == Reason::Limited;
        let text = format!("{line} (kernel){}", if spared { DRY_RUN } else { "" });
        let line = if spared { LogLine::DryRun(Box::new(line)) } else { line };
        self.log.line_with(line.severity().into(), text, || line.fields());
    }

    /// What the kernel turned away, or would have but for a dry run, stands in the journal beside the sessions.
    fn keep_kernel_event(&self, event: &KernelEvent, dry_run: bool) {
        let verdict = match event.reason {
            Reason::Denied | Reason::LetIn => (outcome::Verdict::Rejected, outcome::Reason::Barred),
            Reason::Limited => (outcome::Verdict::Deferred, outcome::Reason::TooManyConnections),
            _ => return,
        };
        let stood = self.stood(event.client.ip());
        let list = match event.reason {
            Reason::LetIn => self.denying_list(&stood),
            _ => event.list.map_or_else(String::new, |list| self.list_name(list)),
        };
        let entry = Entry::of_kernel(unix_now(), (event.client, event.server), verdict, &list, stood.named());
        self.journal.keep(&if dry_run || event.reason == Reason::LetIn { entry.let_in() } else { entry });
    }

    /// Logs what the DNSBL `zones` report and corrects what their late answers contradict.
    pub(super) async fn take_reports(self: Arc<Self>, zones: Vec<Zone>, mut reports: Receiver<Report>) {
        while let Some(report) = reports.recv().await {
            match report {
                Report::Late(result) => self.correct(&zones, &result),
                other => {
                    // A report's text brings its own severity word, as dnsblog's does.
                    let text = other.to_string();
                    match text.strip_prefix("warning: ") {
                        Some(text) => self.log.line_of(Part::Dnsblog, Severity::Warning, text),
                        None => self.log.line_of(Part::Dnsblog, Severity::Info, text),
                    }
                }
            }
        }
    }

    /// A pass that was given before all zones had answered is taken back if the whole score says otherwise.
    fn correct(&self, zones: &[Zone], late: &LateResult) {
        let config = self.config.load();
        // After a reload the numbers in the answers may mean other zones.
        if config.policy.dnsbl.sites.zones() != zones {
            return;
        }
        let client = Client::of(late.client, config.policy.limits.client_prefix);
        let corrected = self.screen().correct_dnsbl(client, &late.answers, self.now());
        if let Some(record) = corrected {
            self.log.info(format!("late DNSBL answers take back the pass of {}", client.net()));
            self.remember(client, record);
        }
    }
}
