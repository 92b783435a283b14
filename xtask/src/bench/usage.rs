//! What a process has used, by /proc.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike as _},
};

/// CPU time of all living threads of a process, in user and kernel mode, without that of its children. The scheduler's own
/// nanoseconds: the ticks in /proc/PID/stat are too coarse for a few hundred clients.
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?.flatten() {
        // A thread that has ended meanwhile had little left to add.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        nanoseconds += text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// CPU time of all threads of this process, those that have ended included.
pub(super) fn own_cpu_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("can't read what this process has used")?;
    let time = |value: TimeVal| Duration::from_micros(u64::try_from(value.num_microseconds()).unwrap_or_default());
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

/// Resident memory (`VmRSS`), in bytes.
pub(super) fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most resident memory that it ever had (`VmHWM`), in bytes.
pub(super) fn peak(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|word| word.parse::<u64>().ok())
        .with_context(|| format!("the status of process {pid} shows no {field}"))?;
    Ok(kilobytes * 1024)
}

/// Whether a process has not ended yet; one that has, and whose parent has not asked how, has no memory.
pub(super) fn is_running(pid: u32) -> bool {
    resident(pid).is_ok()
}

/// The children of a process that run a program of this name.
pub(super) fn children(parent: u32, name: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("can't read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // PID (NAME) STATE PPID ...; the name may hold anything, so the last parenthesis counts.
        let Some((head, rest)) = stat.rsplit_once(')') else { continue };
        let is_child = rest.split_whitespace().nth(1) == Some(parent.to_string().as_str());
        if is_child && head.split_once('(').is_some_and(|(_, own)| own == name) {
            found.push(pid);
        }
    }
    Ok(found)
}
