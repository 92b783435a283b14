//! What the gate is compared with: nftables with a named set, and ipset.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    ground::{HOST, run},
    sources::{Kind, prefix},
};

/// Entries that an update replaces: one in so many.
pub(crate) const UPDATED: u32 = 1_000;

/// How long an update may take: nftables reads a set with intervals, all of it, and sorts it anew.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Where a chain of nftables looks at packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// At the device, before all else.
    Netdev,
    /// Before routing.
    Inet,
}

impl Hook {
    pub(crate) const ALL: [Self; 2] = [Self::Netdev, Self::Inet];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Netdev => "netdev",
            Self::Inet => "inet",
        }
    }

    fn chain(self) -> String {
        match self {
            Self::Netdev => format!("type filter hook ingress device {HOST} priority 0;"),
            Self::Inet => "type filter hook prerouting priority -300;".to_owned(),
        }
    }
}

/// The name of a list's set.
pub(crate) const fn set(kind: Kind) -> &'static str {
    match kind {
        Kind::Exact => "exact",
        Kind::Any | Kind::Prefixes | Kind::Long => "prefixes",
    }
}

fn text(kind: Kind, number: u32) -> String {
    let (network, bits) = prefix(kind, number);
    let network = std::net::Ipv4Addr::from(network);
    if bits == 32 { network.to_string() } else { format!("{network}/{bits}") }
}

fn file(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    Ok(path)
}

fn timed(line: &str) -> Result<Duration> {
    let begin = Instant::now();
    run(line)?;
    Ok(begin.elapsed())
}

/// Loads a list into a named set of nftables; returns how long that took.
pub(crate) fn load_nft(folder: &Path, hook: Hook, kind: Kind, count: u32) -> Result<Duration> {
    let (family, set) = (hook.name(), set(kind));
    let flags = if kind == Kind::Exact { "" } else { "flags interval;" };
    run(&format!("nft add table {family} rival"))?;
    run(&format!("nft add set {family} rival {set} {{ type ipv4_addr; {flags} }}"))?;
    let script = format!("add element {family} rival {set} {{ {} }}\n", elements(kind, 0..count));
    timed(&format!("nft -f {}", file(folder, "load.nft", &script)?.display()))
}

/// Takes out one in [`UPDATED`] and puts as many others in; returns how long that took, or `None` when it was longer than [`PATIENCE`].
pub(crate) fn update_nft(folder: &Path, hook: Hook, kind: Kind, count: u32) -> Result<Option<Duration>> {
    let (family, set, changed) = (hook.name(), set(kind), count / UPDATED);
    let script = format!(
        "delete element {family} rival {set} {{ {} }}\nadd element {family} rival {set} {{ {} }}\n",
        elements(kind, 0..changed),
        elements(kind, count..count + changed)
    );
    let file = file(folder, "update.nft", &script)?;
    let begin = Instant::now();
    let done = run(&format!("timeout {} nft -f {}", PATIENCE.as_secs(), file.display()));
    let time = begin.elapsed();
    if time >= PATIENCE { Ok(None) } else { done.map(|()| Some(time)) }
}

fn elements(kind: Kind, numbers: std::ops::Range<u32>) -> String {
    // Sorted, which nftables takes ten times as quickly where sets have intervals.
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_by_key(|number| prefix(kind, *number));
    numbers.into_iter().fold(String::new(), |mut all, number| {
        let _ = write!(all, "{},", text(kind, number));
        all
    })
}

/// Drops what a loaded set holds, from now on.
pub(crate) fn guard_nft(hook: Hook, kind: Kind) -> Result<()> {
    let family = hook.name();
    run(&format!("nft add chain {family} rival drops {{ {} }}", hook.chain()))?;
    run(&format!("nft add rule {family} rival drops ip saddr @{} drop", set(kind)))
}

/// Drops nothing any more.
pub(crate) fn release_nft(hook: Hook) -> Result<()> {
    run(&format!("nft delete chain {} rival drops", hook.name()))
}

/// Removes the sets.
pub(crate) fn forget_nft(hook: Hook) -> Result<()> {
    run(&format!("nft delete table {} rival", hook.name()))
}

/// Loads a list into ipset, updates it, and removes it; returns how long the first two took. `None` where the kernel has no ipset.
pub(crate) fn load_ipset(folder: &Path, kind: Kind, count: u32) -> Result<Option<(Duration, Duration)>> {
    if run("ipset list -n").is_err() {
        return Ok(None);
    }
    let (set, changed) = (set(kind), count / UPDATED);
    let sort = if kind == Kind::Exact { "ip" } else { "net" };
    let lines = |command: &str, numbers: std::ops::Range<u32>| {
        numbers.fold(String::new(), |mut all, number| {
            let _ = writeln!(all, "{command} {set} {}", text(kind, number));
            all
        })
    };
    let load = format!("create {set} hash:{sort} maxelem 2000000\n{}", lines("add", 0..count));
    let load = timed(&format!("ipset -exist restore -file {}", file(folder, "load.ipset", &load)?.display()))?;
    let update = lines("del", 0..changed) + &lines("add", count..count + changed);
    let update = timed(&format!("ipset -exist restore -file {}", file(folder, "update.ipset", &update)?.display()))?;
    run(&format!("ipset destroy {set}"))?;
    Ok(Some((load, update)))
}
