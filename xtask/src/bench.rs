//! `cargo xtask bench`: what answers, failovers, publications and probes cost, on this machine.
//!
//! The parts are in `tests/benches/figures`, a bench target of the tests, because xtask itself must
//! build without a BPF toolchain.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use failover_tests::{charts, command};

use crate::{cargo, privilege, setup};

/// How it is to be done.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fewer rounds and smaller tables of names
    #[arg(long)]
    quick: bool,
    /// Only these parts: packet-cost, end-to-end, latency, failover, publication, probes
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<String>,
    /// Of the cost per packet, only the cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// The directory of the figures as JSON, and of charts of them, instead of target/bench
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Measure nothing, but draw the charts of the figures in DIR again: there, or in the directory
    /// of --output, with a copy of the figures
    #[arg(long, value_name = "DIR", conflicts_with_all = ["quick", "only", "case"])]
    charts_from: Option<PathBuf>,
}

/// Runs the benchmark, or draws what it measured.
pub(crate) fn bench(args: &Args) -> Result<()> {
    let Some(figures) = &args.charts_from else {
        return measure(args);
    };
    let to = args.output.as_ref().unwrap_or(figures);
    for chart in charts::draw_directory(figures, to)? {
        println!("{}", chart.display());
    }
    Ok(())
}

fn measure(args: &Args) -> Result<()> {
    setup::ensure(&[setup::Need::Build, setup::Need::Lab])?;
    // Before minutes of building.
    privilege::as_root("true").context("XDP programs and network namespaces need root")?;
    let daemon = cargo::build_daemon()?;
    let mut bench = cargo::cargo();
    bench.args(["bench", "--package", "failover-tests", "--bench", "figures"]);
    privilege::run_built_as_root(&mut bench);
    bench.env(failover_tests::DAEMON, daemon).arg("--");
    let output = match &args.output {
        // Cargo runs it in the directory of its package.
        Some(directory) => std::path::absolute(directory)?,
        None => cargo::target_dir().join("bench"),
    };
    bench.arg("--output").arg(output);
    if args.quick {
        bench.arg("--quick");
    }
    if !args.only.is_empty() {
        bench.arg("--only").arg(args.only.join(","));
    }
    if let Some(text) = &args.case {
        bench.arg("--case").arg(text);
    }
    command::run(&mut bench)
}
