//! The command line.

use std::{ffi::OsString, net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::{blocklist::BlocklistArgs, cache::CacheArgs, what_if::WhatIfArgs};
use crate::config;

/// A gate in front of a mail server's port 25.
#[derive(Debug, Parser)]
#[command(name = "mxscreen", version, about, long_about = None, arg_required_else_help = true)]
pub struct Cli {
    /// The control socket of the running gate; with `run`, the one to open
    #[arg(long, global = true, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gate in the foreground
    Run {
        /// The configuration.
        #[command(flatten)]
        arguments: RunArgs,
        /// Another version has left its sockets in the place of standard input; `upgrade` says so
        #[arg(long, hide = true)]
        heir: bool,
    },
    /// The part of a running gate that faces the network; `run` starts it
    #[command(hide = true)]
    Screener,
    /// Read the configuration and all files it names, and report every problem
    Check(RunArgs),
    /// Examine this host: kernel, interfaces, limits, clock, ports, files, resolver and zones, mail servers, Redis; with what mends it
    Doctor(DoctorArgs),
    /// Show queues, tests, cache, kernel attachment and DNSBL zones of a running gate
    Status(StatusArgs),
    /// Show rates, verdicts and the busiest clients of a running gate, live
    Top(TopArgs),
    /// Show all that is known of one client, and what would happen to it now
    Explain(ExplainArgs),
    /// Judge the sessions of the last days by another configuration: who would change sides
    WhatIf(WhatIfArgs),
    /// Deny a client or network at once
    Deny(EntryArgs),
    /// Allow a client or network at once; an allow entry always wins
    Allow(EntryArgs),
    /// Forget everything learned of, or entered for, a client or network
    Forget(ForgetArgs),
    /// List run-time entries, what the access list gives the kernel, and clients that passed
    List(ListArgs),
    /// Import, export, list and remove block lists
    Blocklist(BlocklistArgs),
    /// Export and import what is known of clients and networks, also from postscreen's cache
    Cache(CacheArgs),
    /// Hold the kernel's counts of connections against its sockets, and correct what is wrong
    Recount,
    /// Read configuration and tables again, without dropping a connection
    Reload,
    /// Let the version that is installed by now take over: sockets are handed on, running sessions go on to their ends
    Upgrade,
    /// Give the port back, let running sessions end, and stop; the kernel goes on with the clients that it knows
    Stop {
        /// Take the kernel's programs off as well, and leave nothing behind, also where no gate runs any more
        #[arg(long)]
        detach: bool,
        /// Where a gate that runs no more has its pins
        #[arg(long, value_name = "PATH", default_value = "/sys/fs/bpf/mxscreen", requires = "detach")]
        pin_path: PathBuf,
    },
    /// Print the equivalent of a Postfix configuration as TOML
    ImportPostfix(ImportArgs),
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a manual page
    Man {
        /// Which page
        #[arg(default_value = "mxscreen")]
        page: Page,
    },
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/mxscreen/mxscreen.toml")]
    pub config: PathBuf,
    /// Override one dotted key, e.g. --set pregreet.wait=2s
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub overrides: Vec<(String, String)>,
}

/// `mxscreen doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The configuration.
    #[command(flatten)]
    pub configuration: RunArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `mxscreen status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `mxscreen top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Between two looks at the gate
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1s")]
    pub interval: Duration,
}

/// `mxscreen explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The client
    pub address: IpAddr,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `mxscreen deny` and `mxscreen allow`.
#[derive(Debug, Args)]
pub struct EntryArgs {
    /// An address, or a network with its prefix length
    #[arg(value_name = "ADDRESS|CIDR", value_parser = network)]
    pub net: IpNet,
    /// How long it holds; without it, until it is forgotten
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

/// `mxscreen forget`.
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// An address, or a network with its prefix length
    #[arg(value_name = "ADDRESS|CIDR", value_parser = network)]
    pub net: IpNet,
}

/// `mxscreen list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Which list; all of them if left out
    pub which: Option<Which>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A list of the running gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// Denied clients and networks
    Deny,
    /// Allowed clients and networks
    Allow,
    /// Clients that passed the tests
    Pass,
}

/// A manual page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Page {
    /// The command, mxscreen(8)
    Mxscreen,
    /// The configuration, mxscreen.toml(5)
    #[value(name = "mxscreen.toml")]
    Configuration,
}

/// `mxscreen import-postfix`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The main.cf to read; standard input (`postconf -n`) if left out
    #[arg(long, value_name = "FILE")]
    pub main_cf: Option<PathBuf>,
    /// Only watch, to begin with: with `dry_run = true` nobody is turned away
    #[arg(long)]
    pub dry_run: bool,
}

impl Cli {
    /// Reads the command line.
    ///
    /// # Errors
    /// What clap has to say: a wrong command line, or the help and version texts that were asked for.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments)
    }

    /// The control socket of the gate that is meant.
    #[must_use]
    pub fn gate(&self) -> PathBuf {
        self.control.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONTROL))
    }

    /// The whole command line, for completions and the manual page.
    #[must_use]
    pub fn description() -> clap::Command {
        Self::command()
    }
}

/// Where a gate listens for commands unless it is told otherwise.
const DEFAULT_CONTROL: &str = "/run/mxscreen/control.sock";

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .ok_or_else(|| format!("\"{text}\" has no \"=\": write KEY=VALUE"))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).map_err(|problem| problem.to_string())
}

/// An address or a network; host bits beyond the prefix are refused, as they hide a typing error.
fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let net: IpNet = text.parse().map_err(|_| format!("\"{text}\" is neither an address nor a network"))?;
    if net.addr() == net.network() {
        Ok(net)
    } else {
        Err(format!("\"{text}\" has host bits beyond its prefix; did you mean \"{}\"?", net.trunc()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::description().debug_assert();
    }

    #[test]
    fn the_control_socket_may_stand_before_and_after_the_command() {
        for line in [["mxscreen", "--control", "/tmp/x", "status"], ["mxscreen", "status", "--control", "/tmp/x"]] {
            let cli = Cli::read(line.map(OsString::from)).unwrap();
            assert_eq!(cli.gate(), PathBuf::from("/tmp/x"));
        }
    }

    #[test]
    fn networks_are_addresses_or_exact_prefixes() {
        assert_eq!(network("192.0.2.1").unwrap(), "192.0.2.1/32".parse().unwrap());
        assert_eq!(network("::ffff:192.0.2.1").unwrap(), "192.0.2.1/32".parse().unwrap());
        assert_eq!(network("2001:db8::/32").unwrap(), "2001:db8::/32".parse().unwrap());
        assert!(network("192.0.2.1/24").unwrap_err().contains("192.0.2.0/24"));
        assert!(network("mx.example").is_err());
    }

    #[test]
    fn overrides_need_an_equals_sign() {
        assert_eq!(key_value("a.b=c=d").unwrap(), ("a.b".into(), "c=d".into()));
        assert!(key_value("a.b").is_err());
    }
}
