//! What the kernel half costs, beside what it is compared with, in turns in one run. `cargo xtask bench kernel` runs it; it needs root.
#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement that is wrong is to end, and one that is right is to be seen"
)]

mod gate;
mod ground;
mod lists;
mod names;
mod rivals;
#[path = "../../../screen-ebpf/src/traffic/sources.rs"]
mod sources;
mod table;
mod traffic;

use anyhow::{Context as _, Result};
use screen_user::{
    config::KernelReply,
    kernel::{DenyEntry, Expiry, ListId},
};

use self::{
    gate::Gate,
    ground::{Ground, NEIGHBOUR},
    sources::{Kind, address},
    table::Table,
    traffic::{ACK, Frame, Sources, Traffic},
};

/// Entries of the longest lists.
const MILLION: u32 = 1_000_000;
/// Somebody whom no list has.
const STRANGER: u32 = 0x4000_0001;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().and_then(|word| word.parse().ok()).unwrap_or(3);
    let only = arguments.next().unwrap_or_default();
    let wanted = |part: &str| part.starts_with(&only);
    // Before there is a second thread.
    let ground = Ground::make()?;
    let mut traffic = Traffic::new()?;
    // Takes what the host sends, and lets the host's driver send it.
    let link = ground.as_neighbour(|| traffic.sink(NEIGHBOUR))?;
    let mut table = Table::default();
    for round in 1..=rounds {
        println!("round {round}");
        if wanted("frames") {
            alone(&mut traffic, &mut table).context("frames without a network")?;
        }
        if wanted("lists") {
            lists::measure(&ground, &mut traffic, &mut table).context("lists, and floods that they deny")?;
        }
        if wanted("refusals") {
            refused(&ground, &mut traffic, &mut table).context("refusals")?;
        }
        if wanted("names") {
            names::measure(&mut table).context("names of connections")?;
        }
    }
    traffic.detach(link)?;
    println!();
    table.lines().iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// Frames through the gate, without a network (`BPF_PROG_TEST_RUN`).
fn alone(traffic: &mut Traffic, table: &mut Table) -> Result<()> {
    let plain = "a frame as it is";
    let established = Frame { flags: ACK, acknowledgement: 77, ..Frame::syn(STRANGER) };
    table.add(plain, "an empty program", traffic.time_nothing(established)?, "ns");
    let gate = Gate::start(KernelReply::Drop, 50, false)?;
    table.add(plain, "established", gate.time(established)?, "ns");
    let made = "a frame, made anew for each run";
    let nothing = traffic.nothing()?;
    let anybody = Sources::Of(Kind::Any, 1);
    table.add(made, "an empty program, one source", traffic.time(&nothing, established, Sources::One)?, "ns");
    table.add(made, "an empty program, random sources", traffic.time(&nothing, established, anybody)?, "ns");
    let program = gate.installation.gate()?;
    table.add(made, "unknown SYN, random sources", traffic.time(&program, Frame::syn(STRANGER), anybody)?, "ns");
    for (name, kind, count) in [
        ("1,000,000 addresses", Kind::Exact, MILLION),
        ("1,000 prefixes", Kind::Prefixes, 1_000),
        ("100,000 prefixes", Kind::Prefixes, 100_000),
        ("1,000,000 prefixes", Kind::Prefixes, MILLION),
        ("1,000,000 prefixes /25 to /31", Kind::Long, MILLION),
    ] {
        gate.deny(kind, 0..count)?;
        let syn = Frame::syn(address(kind, 0, 0));
        let (one, all) = (Sources::One, Sources::Of(kind, count));
        table.add(plain, &format!("denied SYN, {name}"), gate.time(syn)?, "ns");
        table.add(made, &format!("denied SYN, {name}, one source"), traffic.time(&program, syn, one)?, "ns");
        table.add(made, &format!("denied SYN, {name}, random sources"), traffic.time(&program, syn, all)?, "ns");
        gate.deny(kind, 0..0)?;
    }
    drop(gate);
    let gate = Gate::start(KernelReply::Reject, 50, false)?;
    let program = gate.installation.gate()?;
    gate.deny(Kind::Exact, 0..1)?;
    let syn = Frame::syn(address(Kind::Exact, 0, 0));
    table.add(plain, "established, with replies on", gate.time(established)?, "ns");
    table.add(made, "refused SYN, answered with a SYN-ACK", traffic.time(&program, syn, Sources::One)?, "ns");
    let offer = gate.installation.reply_to(&syn.bytes())?.context("the gate refuses nobody")?;
    let cookie = offer.get(38..42).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    let taken = Frame { flags: ACK, sequence: 2, acknowledgement: cookie.wrapping_add(1), ..syn };
    gate.installation.reply_to(&taken.bytes())?.context("the gate does not know its own cookie")?;
    table.add(made, "ACK of it, answered with the text", traffic.time(&program, taken, Sources::One)?, "ns");
    Ok(())
}

/// Floods of SYNs that are answered: by the gate's refusal, and by the stack's own cookies.
fn refused(ground: &Ground, traffic: &mut Traffic, table: &mut Table) -> Result<()> {
    let case = "a SYN answered with a cookie";
    // Addresses that the stack takes for some host's.
    let syn = Frame::syn(STRANGER);
    let sources = Sources::Of(Kind::Any, 1);
    let gate = Gate::start(KernelReply::Reject, 50, true)?;
    let entry = DenyEntry { list: ListId::OPERATOR, expires: Expiry::NEVER };
    gate.kernel.deny("64.0.0.0/3".parse()?, entry)?;
    table.add(case, "mxscreen's refusal", traffic.flood(ground, syn, sources)?, "ns");
    drop(gate);
    ground::write("/proc/sys/net/ipv4/tcp_syncookies", "2")?;
    let listener = std::net::TcpListener::bind("192.0.2.1:25").context("can't listen on port 25")?;
    table.add(case, "the stack's SYN cookie", traffic.flood(ground, syn, sources)?, "ns");
    drop(listener);
    Ok(())
}
