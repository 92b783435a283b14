//! A list of a million entries on its way into the kernel of a running gate, beside `ipset restore` and `nft -f` of the same list.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, Permissions},
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    gate::{Gate, control},
    ground,
    table::{median, shown},
    usage,
};
use crate::{process::say, sandbox, workspace};

/// Entries of the list.
const ENTRIES: u32 = 1_000_000;

/// What takes a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Taker {
    Mxscreen,
    Ipset,
    Nftables,
}

impl Taker {
    const fn name(self) -> &'static str {
        match self {
            Self::Mxscreen => "mxscreen blocklist import",
            Self::Ipset => "ipset restore",
            Self::Nftables => "nft -f",
        }
    }
}

/// Measures all in turns and prints medians; ratios are by what the gate takes.
pub(super) fn run(rounds: u16) -> Result<()> {
    ground::make()?;
    sandbox::bpffs()?;
    let folder = tempfile::tempdir_in("/run").context("can't make a folder")?;
    let folder = folder.path();
    fs::set_permissions(folder, Permissions::from_mode(0o755)).context("chmod")?;
    let lists = Lists::write(folder)?;
    let mut figures: BTreeMap<(&str, Taker), Vec<f64>> = BTreeMap::new();
    let mut peaks = Vec::new();
    for round in 0..rounds {
        let mut takers = [Taker::Mxscreen, Taker::Ipset, Taker::Nftables];
        // Whoever goes first may find a cooler machine: the turns change.
        takers.rotate_left(usize::from(round % 3));
        for taker in takers {
            let times = match taker {
                Taker::Mxscreen => {
                    let (times, peak) = import(folder, &lists)?;
                    peaks.push(peak);
                    times
                }
                Taker::Ipset => timed(
                    ground::server("ipset").args(["restore", "-file"]).arg(folder.join(&lists.ipset)),
                )
                .and_then(|time| finish(ground::server("ipset").arg("destroy")).map(|()| vec![("whole", time)]))?,
                Taker::Nftables => {
                    timed(ground::server("nft").arg("-f").arg(folder.join(&lists.nft))).and_then(|time| {
                        finish(ground::server("nft").args(["flush", "ruleset"])).map(|()| vec![("whole", time)])
                    })?
                }
            };
            for (what, time) in times {
                say(&format!("{what}, {}, round {}: {} s", taker.name(), round + 1, shown(time.as_secs_f64())));
                figures.entry((what, taker)).or_default().push(time.as_secs_f64());
            }
        }
    }
    let ours = |what| figures.get(&(what, Taker::Mxscreen)).map(|times| median(times)).unwrap_or_default();
    for ((what, taker), times) in &figures {
        let time = median(times);
        let ratio = if *taker == Taker::Mxscreen { String::new() } else { shown(ours(what) / time) };
        say(&format!("| {what} | {} | {} s | {ratio} |", taker.name(), shown(time)));
    }
    say(&format!("| screener's peak memory | {} | {} MB | |", Taker::Mxscreen.name(), shown(median(&peaks) / 1e6)));
    Ok(())
}

/// Imports the list into a gate that has none, and then another one in its place of which nine tenths are the same. Returns the times, and
/// the most memory that the screener had.
fn import(folder: &Path, lists: &Lists) -> Result<(Vec<(&'static str, Duration)>, f64)> {
    let home = folder.join("gate");
    // That of the round before is worth nothing.
    let _ = fs::remove_dir_all(&home);
    fs::create_dir(&home).context("can't make the gate's folder")?;
    let gate = Gate::start_in_place(&home)?;
    let command = |list: &str| {
        let mut command = ground::server(workspace::gate());
        command
            .args(["blocklist", "import", "--list", "bench", "--control"])
            .arg(control(&home))
            .arg(folder.join(list));
        command
    };
    let whole = timed(&mut command(&lists.plain))?;
    let difference = timed(&mut command(&lists.changed))?;
    let peak = usage::peak(gate.pid()?)?;
    gate.leave(&home)?;
    Ok((vec![("whole", whole), ("a tenth changed", difference)], peak as f64))
}

fn timed(command: &mut Command) -> Result<Duration> {
    let begin = Instant::now();
    finish(command)?;
    Ok(begin.elapsed())
}

fn finish(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("can't run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The same list in three forms, and another one for the gate.
struct Lists {
    plain: String,
    changed: String,
    ipset: String,
    nft: String,
}

impl Lists {
    fn write(folder: &Path) -> Result<Self> {
        let names = ["list.txt", "changed.txt", "list.ipset", "list.nft"];
        let [plain, changed, ipset, nft] = names.map(str::to_owned);
        let (list, other) = (list(0), list(ENTRIES / 10));
        let save = |name: &String, text: String| {
            fs::write(folder.join(name), text).with_context(|| format!("can't write {name}"))
        };
        save(&plain, lines(&list))?;
        save(&changed, lines(&other))?;
        save(&ipset, as_ipset(&list))?;
        save(&nft, as_nft(&list))?;
        Ok(Self { plain, changed, ipset, nft })
    }
}

/// An entry: the set of ipset's that it belongs to, and its text.
type Entry = (&'static str, String);

/// Entries that differ from each other and overlap nowhere, in no order: of ten, five are single IPv4 addresses, two are /28, two are /24, and
/// one is an IPv6 address or a /48. `first` is the number of the first one.
fn list(first: u32) -> Vec<Entry> {
    (first..first + ENTRIES)
        .map(|number| {
            // Steps that have no factor in common with the number of places reach all of them, out of order.
            let place = |places: u32| (u64::from(number / 10) * 7_368_787 % u64::from(places)) as u32;
            let v4 = |first: u8, shift: u32, places: u32| {
                Ipv4Addr::from_bits((u32::from(first) << 24) + (place(places) << shift))
            };
            match number % 10 {
                digit @ 0..=4 => ("h4", v4(32 + digit as u8, 0, 1 << 24).to_string()),
                digit @ 5..=6 => ("n4", format!("{}/28", v4(48 + 4 * (digit as u8 - 5), 5, 1 << 21))),
                digit @ 7..=8 => ("n4", format!("{}/24", v4(64 + 32 * (digit as u8 - 7), 9, 1 << 19))),
                _ if number % 20 == 9 => {
                    ("h6", Ipv6Addr::from_bits(0x2a00 << 112 | u128::from(place(1 << 24)) << 64 | 1).to_string())
                }
                _ => ("n6", format!("{}/48", Ipv6Addr::from_bits(0x2b00 << 112 | u128::from(place(1 << 24)) << 81))),
            }
        })
        .collect()
}

fn lines(list: &[Entry]) -> String {
    let mut text = String::new();
    list.iter().for_each(|(_, entry)| text.extend([entry, "\n"]));
    text
}

fn as_ipset(list: &[Entry]) -> String {
    let mut text = String::new();
    for (name, kind, family) in
        [("h4", "hash:ip", "inet"), ("n4", "hash:net", "inet"), ("h6", "hash:ip", "inet6"), ("n6", "hash:net", "inet6")]
    {
        // Writing to a String can't fail.
        let _ = writeln!(text, "create {name} {kind} family {family} maxelem {ENTRIES}");
    }
    list.iter().for_each(|(set, entry)| text.extend(["add ", set, " ", entry, "\n"]));
    text
}

fn as_nft(list: &[Entry]) -> String {
    let mut text = String::from("table inet bench {\n");
    for (family, kind) in [('4', "ipv4_addr"), ('6', "ipv6_addr")] {
        let _ = write!(text, "set s{family} {{\ntype {kind}; flags interval; elements = {{\n");
        let own = list.iter().filter(|(set, _)| set.ends_with(family));
        own.for_each(|(_, entry)| text.extend([entry, ",\n"]));
        text.push_str("}\n}\n");
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn entries_differ_and_nine_tenths_of_both_lists_are_the_same() {
        let (one, other): (BTreeSet<Entry>, BTreeSet<Entry>) =
            (list(0).into_iter().collect(), list(ENTRIES / 10).into_iter().collect());
        assert_eq!((one.len(), other.len()), (ENTRIES as usize, ENTRIES as usize));
        assert_eq!(one.intersection(&other).count(), ENTRIES as usize / 10 * 9);
    }
}
