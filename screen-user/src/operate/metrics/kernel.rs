//! The kernel half. Its families have no samples where it does not run, but for the one that says so.

use std::fmt;

use super::family::Families;
use crate::{
    gate::KernelMeasures,
    kernel::{Table, Total},
};

pub(super) fn write(families: &mut Families<'_>, kernel: Option<&KernelMeasures>) -> fmt::Result {
    families.one("kernel_running", "Whether the kernel half runs", kernel.is_some())?;
    families.gauge(
        "interface_attached",
        "Whether the gate decides at an interface, and how it is attached",
        ["interface", "mode"],
        kernel
            .into_iter()
            .flat_map(|kernel| &kernel.interfaces)
            .map(|interface| ([interface.name.as_str(), interface.mode_name()], interface.mode.is_some().into())),
    )?;
    families.gauge(
        "mail_server_listeners",
        "Listeners of the mail server that known-good clients are given to",
        [],
        kernel.map(|kernel| ([""; 0], kernel.servers as u64)),
    )?;
    families.gauge(
        "mail_server_listeners_hung",
        "Those of them that take nobody",
        [],
        kernel.map(|kernel| ([""; 0], kernel.hung as u64)),
    )?;
    tables(families, kernel)?;
    totals(families, kernel)
}

fn tables(families: &mut Families<'_>, kernel: Option<&KernelMeasures>) -> fmt::Result {
    let tables = |value: fn(&Table) -> u64| {
        let tables = kernel.into_iter().flat_map(|kernel| &kernel.tables);
        tables.map(move |table| ([table.name], value(table)))
    };
    families.gauge("kernel_table_entries", "Entries of a kernel table", ["table"], tables(|it| it.entries as u64))?;
    families.gauge(
        "kernel_table_capacity",
        "Entries that it holds at most",
        ["table"],
        tables(|it| it.capacity as u64),
    )?;
    families.counter(
        "kernel_table_no_room",
        "Entries that it had no room for, or that had to make room",
        ["table"],
        tables(|it| it.no_room),
    )
}

fn totals(families: &mut Families<'_>, kernel: Option<&KernelMeasures>) -> fmt::Result {
    let totals = |value: fn(&Total) -> u64| {
        let totals = kernel.into_iter().flat_map(|kernel| &kernel.totals);
        totals.map(move |(reason, total)| ([reason.name()], value(total)))
    };
    let keys = ["reason"];
    families.counter("kernel_packets", "SYNs, look-ups or connections, by reason", keys, totals(|it| it.packets))?;
    families.counter("kernel_events", "Events that told the screener of them", keys, totals(|it| it.events))?;
    families.counter(
        "kernel_events_suppressed",
        "Events left out, as there were too many",
        keys,
        totals(|it| it.suppressed),
    )
}
