//! `cargo xtask bench`: what an answer costs, on this machine.
//!
//! One part so far: the cost per packet, `tests/benches/packet_cost`. It is a bench target of
//! the tests, because xtask itself must build without a BPF toolchain.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use failover_tests::command;

use crate::{cargo, privilege, setup};

/// How it is to be done.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fewer rounds, and no tables of 100 000 names and more
    #[arg(long)]
    quick: bool,
    /// Where the figures go as JSON, instead of target/bench/packet_cost.json
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only the cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// Runs the benchmark.
pub(crate) fn bench(args: &Args) -> Result<()> {
    setup::ensure(&[setup::Need::Build])?;
    // Before minutes of building.
    privilege::as_root("true").context("loading XDP programs needs root")?;
    let mut bench = cargo::cargo();
    bench.args([
        "bench",
        "--package",
        "failover-tests",
        "--bench",
        "packet_cost",
    ]);
    privilege::run_built_as_root(&mut bench);
    bench.arg("--");
    if args.quick {
        bench.arg("--quick");
    }
    if let Some(file) = &args.json {
        // Cargo runs it in the directory of its package.
        bench.arg("--json").arg(std::path::absolute(file)?);
    }
    if let Some(text) = &args.only {
        bench.arg("--only").arg(text);
    }
    command::run(&mut bench)
}
