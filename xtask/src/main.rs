//! `cargo xtask`: everything about this project that is more than `cargo build` and `cargo test`.

mod bench;
mod cargo;
mod ci;
mod demo;
mod dist;
mod kernel;
mod lab;
mod privilege;
mod run;
mod setup;
mod test;
mod transcripts;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

/// Set-up, lab, demo, tests and benchmark.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what a build, the tests and the lab need; does nothing where it is there already
    Setup {
        /// Also the programs that benchmark and tests compare with
        #[arg(long)]
        bench: bool,
    },
    /// Run the daemon: in the lab, or with `-- -c FILE …` on this host
    Run {
        /// How the XDP program is attached in the lab
        #[arg(long)]
        xdp: Option<Xdp>,
        /// Arguments of `failover run`, for the daemon on this host
        #[arg(last = true)]
        args: Vec<OsString>,
        #[arg(long, hide = true)]
        built: bool,
    },
    /// Operate the lab that `cargo xtask run` started
    Lab {
        #[command(flatten)]
        args: lab::Args,
    },
    /// Play the reference case through and check what is answered
    Demo {
        /// How the XDP program is attached
        #[arg(long)]
        xdp: Option<Xdp>,
        #[arg(long, hide = true)]
        built: bool,
    },
    /// Run the commands in docs/transcripts.md and docs/operators-day.md again and write down what they print
    Transcripts {
        #[arg(long, hide = true)]
        built: bool,
    },
    /// Run all tests, those that need root as root
    Test {
        /// Leave out the tests that need root
        #[arg(long)]
        skip_privileged: bool,
        /// Only the packet tests, on Debian's stable kernel in QEMU
        #[arg(long, conflicts_with = "skip_privileged")]
        second_kernel: bool,
    },
    /// Measure answers, failovers, publications and probes, and print a table of each
    Bench {
        #[command(flatten)]
        args: bench::Args,
    },
    /// Make a Debian package of the daemon
    Dist {
        #[command(flatten)]
        args: dist::Args,
    },
    /// What continuous integration runs: format, lints, documentation, package, tests
    Ci {
        /// Leave out the tests that need root
        #[arg(long)]
        skip_privileged: bool,
    },
    /// A TCP server of the lab
    #[command(hide = true)]
    Serve { address: SocketAddr, name: String },
}

/// The mode of XDP.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Xdp {
    Native,
    Generic,
}

impl Xdp {
    const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

fn main() -> ExitCode {
    match run_command() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_command() -> Result<()> {
    match Cli::parse().command {
        Command::Setup { bench: false } => setup::setup(&[setup::Need::Build, setup::Need::Lab]),
        Command::Setup { bench: true } => setup::setup(&[
            setup::Need::Build,
            setup::Need::Lab,
            setup::Need::Peers,
            setup::Need::Metrics,
            setup::Need::Bench,
        ]),
        Command::Run { args, .. } if !args.is_empty() => run::on_this_host(&args),
        Command::Run { xdp, built, .. } => run::in_the_lab(xdp, built),
        Command::Lab { args } => lab::lab(args),
        Command::Demo { xdp, built } => demo::demo(xdp, built),
        Command::Transcripts { built } => transcripts::transcripts(built),
        Command::Test {
            second_kernel: true,
            ..
        } => kernel::test(),
        Command::Test {
            skip_privileged, ..
        } => test::test(skip_privileged.into(), None),
        Command::Bench { args } => bench::bench(&args),
        Command::Dist { args } => dist::dist(&args),
        Command::Ci { skip_privileged } => ci::ci(skip_privileged.into()),
        Command::Serve { address, name } => failover_tests::lab::serve(address, &name),
    }
}
