//! `cargo xtask bench`: measurements. Everything that is compared is measured in the same run, in turns; nothing is asserted.

mod blocklist;
mod contender;
mod crowd;
mod forward;
mod gate;
mod ground;
mod kernel;
mod postscreen;
mod screener;
mod sharing;
mod steering;
mod table;
mod usage;

pub(crate) use self::kernel::program;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    process::{self, say},
    sandbox, setup,
};

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to measure
    #[arg(value_enum, default_value_t = Subject::Screener)]
    subject: Subject,
    /// How often each measurement is repeated; medians are shown
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u16,
    /// Clients that wait at once in the measurement of a full house
    #[arg(long, value_name = "N", default_value_t = 15_000)]
    waiting: u16,
    /// Only these measurements, by the beginning of their names
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.starts_with(only.as_str()))
    }
}

/// The part of [`Subject::Kernel`] that is measured in the sandbox.
const STEERING: &str = "steering";

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// The gate beside Debian's postscreen
    Screener,
    /// The kernel half beside nftables, ipset, SYN cookies and postscreen
    Kernel,
    /// The ways to the mail server, beside HAProxy and postscreen
    Forward,
    /// A million entries on their way into the kernel, beside ipset and nftables
    Blocklist,
    /// Hosts that share what they know through Redis
    Sharing,
}

/// Runs one subject in a sandbox of its own.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if !sandbox::is_inside() {
        setup::ensure(&[setup::Part::Build, setup::Part::Sandbox])?;
        process::run(process::cargo().args(["build", "--release", "--locked", "-p", "screen-user"]))
            .context("can't build the gate")?;
        if options.subject == Subject::Kernel {
            setup::ensure(&[setup::Part::Rivals])?;
            if !options.only.as_ref().is_some_and(|only| STEERING.starts_with(only.as_str())) {
                kernel::measure(options.rounds, options.only.as_deref())?;
            }
            if !options.wants(STEERING) {
                return Ok(ExitCode::SUCCESS);
            }
        }
        if options.subject == Subject::Sharing {
            setup::ensure(&[setup::Part::Redis])?;
            return sharing::measure(options.rounds, options.only.as_deref()).map(|()| ExitCode::SUCCESS);
        }
        if options.subject == Subject::Blocklist {
            setup::ensure(&[setup::Part::Rivals])?;
        }
        if options.subject == Subject::Forward {
            setup::ensure(&[setup::Part::Proxy])?;
        }
        say("measuring in a sandbox; what else the machine does changes the numbers, less so their ratios");
        return sandbox::run_inside();
    }
    sandbox::settle()?;
    all_descriptors()?;
    match options.subject {
        // It makes its own.
        Subject::Sharing => Ok(ExitCode::SUCCESS),
        Subject::Screener => screener::run(options),
        Subject::Kernel => steering::run(options.rounds).map(|()| ExitCode::SUCCESS),
        Subject::Forward => forward::run(options).map(|()| ExitCode::SUCCESS),
        Subject::Blocklist => blocklist::run(options.rounds).map(|()| ExitCode::SUCCESS),
    }
}

/// Lets this process and what it starts have as many descriptors as the system allows.
fn all_descriptors() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("can't read the limit on descriptors")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("can't raise the limit on descriptors")
}
