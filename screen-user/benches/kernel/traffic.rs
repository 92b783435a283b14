//! Frames, and how many nanoseconds it takes to be rid of one.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{Array, ProgramArray},
    programs::{ProgramFd, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode, xdp::XdpLinkId},
};
use nix::net::if_::if_nametoindex;

use crate::{
    ground::{Ground, MACS, NEIGHBOUR},
    sources::Kind,
};

/// The object that the build script made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/traffic"));

/// Frames handed over in one go.
const BATCH: u32 = 64;
/// Frames that are sent at once; a slow receiver misses most of them.
const BURST: u32 = 500_000;
/// Frames that must have come in before a measurement is over, and bursts after which it is given up.
const FLOOD: u64 = 300_000;
const BURSTS: usize = 50;
/// Runs of one measurement without a network.
pub(crate) const RUNS: u32 = 1_000_000;

/// Flags of TCP.
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

/// A frame to 192.0.2.1 port 25, with a segment size option behind its TCP header, as SYNs have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) source: u32,
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
}

impl Frame {
    pub(crate) const fn syn(source: u32) -> Self {
        Self { source, flags: SYN, sequence: 1, acknowledgement: 0 }
    }

    /// Its bytes, and the sums of its IPv4 header and of its segment, both without the source.
    fn parts(self) -> ([u8; 58], u32, u32) {
        let mut frame = [0; 58];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = frame.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(0, &MACS[0]);
        put(6, &MACS[1]);
        put(12, &[8, 0, 0x45, 0, 0, 44, 0, 1, 0x40, 0, 64, 6]);
        put(30, &[192, 0, 2, 1]);
        put(34, &40_001u16.to_be_bytes());
        put(36, &25u16.to_be_bytes());
        put(38, &self.sequence.to_be_bytes());
        put(42, &self.acknowledgement.to_be_bytes());
        put(46, &[0x60, self.flags, 0xff, 0xff]);
        put(54, &[2, 4, 5, 0xb4]);
        let ip = sum(&frame[14..34]);
        // The pseudo header: destination, protocol, length.
        let tcp = sum(&frame[30..58]) + 6 + 24;
        (frame, ip, tcp)
    }

    /// Its bytes, complete.
    pub(crate) fn bytes(self) -> [u8; 58] {
        let (mut frame, ip, tcp) = self.parts();
        let source = self.source.to_be_bytes();
        frame[26..30].copy_from_slice(&source);
        frame[24..26].copy_from_slice(&folded(ip + sum(&source)).to_be_bytes());
        frame[50..52].copy_from_slice(&folded(tcp + sum(&source)).to_be_bytes());
        frame
    }
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum()
}

/// RFC 1071.
fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Who sends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sources {
    /// Always the frame's own.
    One,
    /// One of so many prefixes of a kind.
    Of(Kind, u32),
}

/// The programs that make traffic.
pub(crate) struct Traffic(Ebpf);

impl Traffic {
    /// Loads them.
    pub(crate) fn new() -> Result<Self> {
        let mut traffic = Ebpf::load(OBJECT).context("can't make the maps of the traffic")?;
        for name in ["nothing", "sink", "flood", "spread"] {
            program(&mut traffic, name)?.load().with_context(|| format!("can't load {name}"))?;
        }
        Ok(Self(traffic))
    }

    /// The program that does nothing.
    pub(crate) fn nothing(&mut self) -> Result<ProgramFd> {
        Ok(program(&mut self.0, "nothing")?.fd()?.try_clone()?)
    }

    /// Attaches the program that drops everything to an interface of the calling thread's namespace.
    pub(crate) fn sink(&mut self, interface: &str) -> Result<XdpLinkId> {
        program(&mut self.0, "sink")?.attach(interface, XdpMode::Driver).context("can't attach the sink")
    }

    pub(crate) fn detach(&mut self, link: XdpLinkId) -> Result<()> {
        program(&mut self.0, "sink")?.detach(link).context("can't detach the sink")
    }

    fn prepare(&mut self, frame: Frame, sources: Sources) -> Result<[u8; 58]> {
        let (mut bytes, ip, tcp) = frame.parts();
        let (kind, count) = match sources {
            Sources::One => (Kind::Any, 0),
            Sources::Of(kind, count) => (kind, count),
        };
        if count == 0 {
            bytes = frame.bytes();
        }
        let mut lane = [0; 80];
        lane[..58].copy_from_slice(&bytes);
        for (place, number) in [(64, kind as u32), (68, count), (72, ip), (76, tcp)] {
            lane[place..place + 4].copy_from_slice(&number.to_ne_bytes());
        }
        let map = self.0.map_mut("lanes").context("there is no map lanes")?;
        Array::<_, [u8; 80]>::try_from(map)?.set(0, lane, 0)?;
        Ok(bytes)
    }

    /// What a program needs for a frame, in nanoseconds, without a network; the frame is made anew before each run.
    pub(crate) fn time(&mut self, target: &ProgramFd, frame: Frame, sources: Sources) -> Result<f64> {
        let bytes = self.prepare(frame, sources)?;
        let targets = self.0.map_mut("targets").context("there is no map targets")?;
        ProgramArray::try_from(targets)?.set(0, target, 0).context("can't set the program to be called")?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(&bytes);
        options.repeat = RUNS;
        let result = program(&mut self.0, "spread")?.test_run(options).context("can't run frames")?;
        if result.return_value == 0 {
            bail!("the program was not called");
        }
        Ok(result.duration.as_nanos() as f64)
    }

    /// What the program that does nothing needs for a frame, without a network and without anything around it.
    pub(crate) fn time_nothing(&mut self, frame: Frame) -> Result<f64> {
        let bytes = frame.bytes();
        let mut options = TestRunOptions::new();
        options.data_in = Some(&bytes);
        options.repeat = RUNS;
        Ok(program(&mut self.0, "nothing")?.test_run(options)?.duration.as_nanos() as f64)
    }

    /// Sends a flood from the neighbour; returns what the host's receiving thread needed for a frame, in nanoseconds.
    pub(crate) fn flood(&mut self, ground: &Ground, frame: Frame, sources: Sources) -> Result<f64> {
        let bytes = self.prepare(frame, sources)?;
        let before = (settled(ground)?, ground.receiving_time()?);
        let flood = program(&mut self.0, "flood")?;
        for _ in 0..BURSTS {
            ground.as_neighbour(|| burst(flood, &bytes))?;
            let after = (settled(ground)?, ground.receiving_time()?);
            let frames = after.0 - before.0;
            if frames >= FLOOD {
                return Ok((after.1 - before.1).as_nanos() as f64 / frames as f64);
            }
        }
        bail!("hardly any frames came in")
    }
}

/// Sends one burst, from the neighbour's namespace.
fn burst(flood: &Xdp, bytes: &[u8]) -> Result<()> {
    let interface = if_nametoindex(NEIGHBOUR).context("the neighbour has no interface")?;
    // The context of an XDP program: where the data end, and where they pretend to have come in.
    let mut context = [0; 24];
    context[4..8].copy_from_slice(&(bytes.len() as u32).to_ne_bytes());
    context[12..16].copy_from_slice(&interface.to_ne_bytes());
    let mut options = TestRunOptions::new();
    options.data_in = Some(bytes);
    options.ctx_in = Some(&context);
    options.repeat = BURST;
    options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
    flood.test_run(options).context("can't send frames")?;
    Ok(())
}

/// Frames that have come in, once no more do.
fn settled(ground: &Ground) -> Result<u64> {
    let mut before = ground.received()?;
    loop {
        thread::sleep(Duration::from_millis(20));
        let now = ground.received()?;
        if now.saturating_sub(before) < 100 {
            return Ok(now);
        }
        before = now;
    }
}

fn program<'a>(traffic: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = traffic.program_mut(name).with_context(|| format!("there is no program {name}"))?;
    Ok(program.try_into()?)
}
