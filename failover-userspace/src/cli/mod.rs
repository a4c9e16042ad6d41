//! The command line.
//!
//! `run` is the daemon; the other commands but `check` talk to one over its socket. Exit
//! status: 0 fine, 1 refused or failed, 2 usage.

mod check;
mod client;
mod detach;
mod events;
mod explain;
mod log;
mod pass;
mod reload;
mod run;
mod set;
mod stats;
mod status;
mod text;
mod watch;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;

use crate::health::{AdminReason, AdminState, Lasting};
use crate::model::XdpMode;

/// The configuration when no other is named.
const DEFAULT_CONFIG: &str = "/etc/failover/failover.toml";

/// DNS server failover, answered by XDP.
#[derive(Debug, Parser)]
#[command(name = "failover", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Whether to colour; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    color: Color,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground
    Run(Run),
    /// Validate a configuration: every error at once
    Check(Check),
    /// Show services, servers, WAN links, and what is answered now
    Status(Status),
    /// Tell why a name is answered as it is
    Explain(Explain),
    /// Show what has changed, when and why
    Events(Events),
    /// Show counters of the data plane, of probes and of webhooks
    Stats(Stats),
    /// Set servers and WAN links to a state, whatever their checks say, or leave them to their checks again
    Set(Set),
    /// Read the configuration again and do as it says; says what has changed, or every error
    Reload(Reload),
    /// Take the program off all interfaces, remove the rules of port forwarding, and end the daemon
    Detach(Daemon),
    /// Keep a program that passes everything on interfaces; native XDP_TX on veth needs one at the other end
    #[command(hide = true)]
    XdpPass {
        /// Interfaces
        #[arg(required = true, value_name = "IFACE")]
        interfaces: Vec<String>,
    },
}

/// Which daemon.
#[derive(Clone, Debug, Args)]
struct Daemon {
    /// The daemon's configuration, which names its socket [default: /etc/failover/failover.toml]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The daemon's socket
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Run {
    /// The configuration
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Attach to this interface instead of the configured ones; may be given several times
    #[arg(long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// How to attach, instead of as configured
    #[arg(long, value_name = "MODE")]
    xdp: Option<Xdp>,
    /// Listen for commands here, instead of at the configured place
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Take the program off all interfaces at the end, instead of letting it answer on for max_stale
    #[arg(long)]
    detach_on_exit: bool,
}

#[derive(Debug, Args)]
struct Check {
    /// The configuration [default: /etc/failover/failover.toml]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The same
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        conflicts_with = "file"
    )]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    daemon: Daemon,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Again every second, in place on a terminal, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Args)]
struct Explain {
    /// A name that a service answers for, or the name of a service
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    daemon: Daemon,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Stats {
    #[command(flatten)]
    daemon: Daemon,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Reload {
    #[command(flatten)]
    daemon: Daemon,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Events {
    #[command(flatten)]
    daemon: Daemon,
    /// Go on with what comes; begins with the last 10, unless told otherwise
    #[arg(short, long)]
    follow: bool,
    /// As JSON, one event on each line
    #[arg(long)]
    json: bool,
    /// Only so many of the newest [default: all that there are]
    #[arg(short = 'n', long = "lines", value_name = "N")]
    lines: Option<usize>,
    /// Only from then on: a duration, such as 2h, or a time, such as 2026-11-22 or 2026-11-22T10:00Z; UTC
    #[arg(long, value_name = "DURATION|TIME", value_parser = events::since)]
    since: Option<Timestamp>,
    /// Only this service and its servers
    #[arg(long, value_name = "NAME", conflicts_with = "subject")]
    service: Option<String>,
    /// Only subjects of this pattern, such as www/* or wan/*
    #[arg(long, value_name = "GLOB", value_parser = events::pattern)]
    subject: Option<String>,
}

#[derive(Debug, Args)]
struct Set {
    /// SERVICE/SERVER or wan/NAME, in which * stands for any characters and ? for one
    #[arg(value_name = "TARGET", required = true)]
    targets: Vec<String>,
    /// auto: as the checks say; up, down: whatever they say; drain: not answered any more, but
    /// checked; maint: neither answered nor checked
    #[arg(value_name = "STATE", value_parser = set::state())]
    state: AdminState,
    /// Become auto by itself after this time, such as 90s, 30m or 2h
    #[arg(long = "for", value_name = "TIME")]
    lasting: Option<Lasting>,
    /// Why, for others to read
    #[arg(long, value_name = "TEXT")]
    reason: Option<AdminReason>,
    #[command(flatten)]
    daemon: Daemon,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Whether to colour.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

impl From<Color> for ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Xdp {
    /// Native, else generic
    Auto,
    /// In the driver
    Native,
    /// In the kernel's generic receive path
    Generic,
    /// Not at all
    Off,
}

impl From<Xdp> for XdpMode {
    fn from(xdp: Xdp) -> Self {
        match xdp {
            Xdp::Auto => Self::Auto,
            Xdp::Native => Self::Native,
            Xdp::Generic => Self::Generic,
            Xdp::Off => Self::Off,
        }
    }
}

/// The command line itself, for those who describe it: manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { command, color } = Cli::parse();
    ColorChoice::from(color).write_global();
    let done = match command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Status(args) => status::status(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Events(args) => events::events(&args),
        Command::Stats(args) => stats::stats(&args),
        Command::Set(args) => set::set(&args),
        Command::Reload(args) => reload::reload(&args),
        Command::Detach(daemon) => detach::detach(&daemon),
        Command::XdpPass { interfaces } => pass::pass(&interfaces),
    };
    match done {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            log::complain(&format!("failover: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output, without colours where they are not wanted.
fn print(text: &str) -> Result<()> {
    let mut out = AutoStream::auto(io::stdout()).lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// The reader of our output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
