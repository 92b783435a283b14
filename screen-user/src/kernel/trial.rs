//! The gate on trial: single frames through the loaded programs, as if they had come in. For tests and measurements.

use std::time::Duration;

use aya::programs::{Program, ProgramError, ProgramFd, SchedClassifier, TestRun, TestRunOptions, TestRunResult, Xdp};
use screen_common::abi::{map, program};

use super::{Installation, KernelError, Maps, lock, object};

/// Longer than any frame that a program makes.
const LONGEST_REPLY: usize = 256;
/// `XDP_PASS` of the kernel's `bpf.h`.
const XDP_PASS: u32 = 2;
/// `XDP_TX`, likewise.
const XDP_TX: u32 = 3;
/// `TC_ACT_SHOT` of the kernel's `pkt_cls.h`.
const TC_ACT_SHOT: u32 = 2;

impl Installation {
    /// Runs the gate on one Ethernet frame, as if it had come in: counters count and events are sent. Returns whether it passes.
    ///
    /// # Errors
    ///
    /// The kernel takes frames of 14 bytes and more.
    pub fn try_frame(&self, frame: &[u8]) -> Result<bool, KernelError> {
        Ok(self.run_on::<Xdp>(program::GATE, frame, 1)?.0.return_value == XDP_PASS)
    }

    /// As [`Installation::try_frame`]; returns what the gate sends back, if it answers by itself.
    ///
    /// # Errors
    ///
    /// The kernel takes frames of 14 bytes and more.
    pub fn reply_to(&self, frame: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        let (result, reply) = self.run_on::<Xdp>(program::GATE, frame, 1)?;
        Ok((result.return_value == XDP_TX).then_some(reply))
    }

    /// As [`Installation::try_frame`], through the gate's entry for TC.
    ///
    /// # Errors
    ///
    /// The kernel takes frames of 14 bytes and more.
    pub fn try_frame_in_tc(&self, frame: &[u8]) -> Result<bool, KernelError> {
        object::gate_tc(&mut lock(&self.programs))?;
        Ok(self.run_on::<SchedClassifier>(program::GATE_TC, frame, 1)?.0.return_value != TC_ACT_SHOT)
    }

    /// As [`Installation::try_frame`], so many times; returns how long one run took on average.
    ///
    /// # Errors
    ///
    /// The kernel takes frames of 14 bytes and more.
    pub fn time_frame(&self, frame: &[u8], times: u32) -> Result<Duration, KernelError> {
        Ok(self.run_on::<Xdp>(program::GATE, frame, times)?.0.duration)
    }

    /// The gate's program, for a map of programs to call.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn gate(&self) -> Result<ProgramFd, KernelError> {
        let programs = lock(&self.programs);
        let gate = programs.program(program::GATE).ok_or_else(|| missing(program::GATE))?;
        let gate = <&Xdp>::try_from(gate).and_then(Xdp::fd).map_err(KernelError::program(program::GATE))?;
        gate.try_clone().map_err(|error| KernelError::system("copy the descriptor of gate", error))
    }

    /// Every map of the programs, those that nobody else has any business with too.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn every_map(&self) -> Result<Maps, KernelError> {
        let others = [map::UNPROVEN, map::BUCKETS, map::NOTED, map::COOKIE_KEYS];
        Maps::of(&lock(&self.programs), &map::PINNED.into_iter().chain(others).collect::<Vec<_>>())
    }

    /// What a program says to a frame, and what it leaves of it.
    fn run_on<P>(&self, name: &'static str, frame: &[u8], times: u32) -> Result<(TestRunResult, Vec<u8>), KernelError>
    where
        P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
        for<'a> &'a P: TryFrom<&'a Program, Error = ProgramError>,
    {
        let programs = lock(&self.programs);
        let program = programs.program(name).ok_or_else(|| missing(name))?;
        let program = <&P>::try_from(program).map_err(KernelError::program(name))?;
        let mut out = vec![0; frame.len() + LONGEST_REPLY];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat: times,
            ..TestRunOptions::default()
        };
        let result = program.test_run(options).map_err(KernelError::program(name))?;
        out.truncate(result.data_size_out as usize);
        Ok((result, out))
    }
}

fn missing(name: &str) -> KernelError {
    KernelError::Plan(format!("the object has no program {name}"))
}
