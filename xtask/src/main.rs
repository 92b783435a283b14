//! The project's own commands: `cargo xtask VERB`.

mod bench;
mod blocklist;
mod build;
mod demo;
mod fuzz;
mod lint;
mod oldest;
mod oracle;
mod package;
mod picture;
mod process;
mod sandbox;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what building, checking and testing need (Debian, Ubuntu)
    Setup,
    /// Build target/release/mxscreen
    Build,
    /// Check formatting, clippy (kernel half included), documentation, and where `unsafe` stands
    Lint,
    /// Install what is missing and run every test
    Test(test::Options),
    /// Try the kernel half and the gate on the oldest kernel that is claimed, in an emulated machine
    Oldest(oldest::Options),
    /// Make the Debian package; with --try, have it installed, upgraded and removed on an emulated Debian 12
    Package(package::Options),
    /// Replay recorded screening scenarios against the gate
    Oracle(oracle::Options),
    /// Show the gate at work in a sandbox, with a real Postfix behind it
    Demo(demo::Options),
    /// Measure the gate beside what it is compared with, in one run
    Bench(bench::Options),
    /// Draw the pictures of the README anew, from real traffic
    Picture(picture::Options),
    /// Import, export, list and remove block lists of a running gate: `mxscreen blocklist`
    Blocklist(blocklist::Options),
    /// Feed the parsers and the session core with generated input for a bounded time
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Setup => setup::everything(),
        Verb::Build => build::release(),
        Verb::Lint => lint::run(),
        Verb::Test(options) => test::run(&options),
        Verb::Oldest(options) => oldest::run(&options),
        Verb::Package(options) => package::run(&options),
        Verb::Oracle(options) => oracle::run(&options),
        Verb::Demo(options) => demo::run(&options),
        Verb::Bench(options) => bench::run(&options),
        Verb::Picture(options) => picture::run(&options),
        Verb::Blocklist(options) => blocklist::run(&options),
        Verb::Fuzz(options) => fuzz::run(&options),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
