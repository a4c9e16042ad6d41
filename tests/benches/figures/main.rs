//! `cargo xtask bench`: what answers, failovers, publications and probes cost on this machine.
//!
//! Each part is a module that measures and returns tables; every figure stands beside what it is
//! to be compared with, from the same run. [`failover_tests::figures`] prints the tables and
//! writes them as JSON, [`failover_tests::charts`] draws what that has. What needs a network has a
//! lab of network namespaces, which is taken down at the end of its part, after an error, and on
//! Ctrl-C.

mod end_to_end;
mod failover;
mod latency;
mod many;
mod packet_cost;
mod probes;
mod publication;
mod reload;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use failover_tests::charts;
use failover_tests::figures::{self, Machine, Table};
use failover_tests::lab::{Lab, Options, Output, Purpose, Server};

/// Measures, and prints one table for each part.
#[derive(Debug, Parser)]
struct Args {
    /// Fewer rounds and smaller tables of names
    #[arg(long)]
    quick: bool,
    /// Only these parts
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,
    /// Of the cost per packet, only the cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// The directory of the figures as JSON, and of the charts
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    probes: probes::Task,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// ns per packet, beside other XDP programs
    PacketCost,
    /// Replies per second over veth, beside other name servers
    EndToEnd,
    /// How long a single query takes
    Latency,
    /// From a fault to the new answer on the wire
    Failover,
    /// Publishing and starting with 1 to 1 000 000 names
    Publication,
    /// Probing 20 000 targets
    Probes,
}

impl Part {
    fn run(self, context: &Context) -> Result<Vec<Table>> {
        match self {
            Self::PacketCost => packet_cost::run(context),
            Self::EndToEnd => end_to_end::run(context),
            Self::Latency => latency::run(context),
            Self::Failover => failover::run(context),
            Self::Publication => publication::run(context),
            Self::Probes => probes::run(context),
        }
    }

    fn name(self) -> String {
        let value = self.to_possible_value().expect("no part is hidden");
        value.get_name().to_owned()
    }
}

/// What all parts need to know.
struct Context {
    quick: bool,
    case: Option<String>,
    /// The daemon as users get it.
    daemon: PathBuf,
}

impl Context {
    /// Says how far a part is, in place of what was said before.
    fn progress(&self, text: &str) {
        eprint!("\r\x1b[K{text}\r");
    }

    /// A lab with every server but those in `without`.
    fn lab(&self, without: &[Server]) -> Result<Lab> {
        let serve = vec![env!("CARGO_BIN_EXE_lab-serve").into()];
        Lab::start(Purpose::Bench, serve, without)
    }

    /// How the daemon is started in the lab.
    fn daemon(&self, xdp: &str) -> Options {
        Options {
            binary: self.daemon.clone(),
            xdp: Some(xdp.to_owned()),
            // The next name server is to find the interfaces free.
            more: vec!["--detach-on-exit".to_owned()],
            output: Output::Log,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = args.probes.run().unwrap_or_else(|| run(args));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "XDP programs and network namespaces need root; `cargo xtask bench` sees to it"
    );
    let context = Context {
        quick: args.quick,
        case: args.case,
        daemon: failover_tests::daemon()?,
    };
    let machine = Machine::here();
    println!("{machine}");
    let parts = if args.only.is_empty() {
        Part::value_variants()
    } else {
        &args.only
    };
    let mut failed = Vec::new();
    for part in parts {
        let name = part.name();
        // One part that fails leaves the others as they are.
        if let Err(error) = run_part(*part, &context, &machine, &args.output) {
            context.progress("");
            eprintln!("error: {name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    Ok(())
}

fn run_part(
    part: Part,
    context: &Context,
    machine: &Machine,
    output: &std::path::Path,
) -> Result<()> {
    let tables = part.run(context)?;
    context.progress("");
    for table in &tables {
        println!("\n## {}\n\n{table}", table.title());
    }
    let path = output.join(part.name()).with_extension("json");
    figures::write_json(&path, machine, &tables).context("write the figures")?;
    println!("As JSON: {}", path.display());
    for chart in charts::draw_file(&path, output).context("draw the charts")? {
        println!("As chart: {}", chart.display());
    }
    Ok(())
}
