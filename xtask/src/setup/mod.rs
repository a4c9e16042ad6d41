//! `cargo xtask setup`: what a build, the tests, the lab and the benchmark need.
//!
//! Looks first, and installs only what is missing; says what it does and why. What it cannot do
//! itself it leaves to the user, with the command to run.

mod bpf;
mod packages;

use anyhow::{Context as _, Result};
use failover_tests::command;

use crate::cargo::cargo;
use crate::privilege;
pub(crate) use packages::unpack;

/// What things are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// `cargo build`, the BPF toolchain included.
    Build,
    /// The lab and the tests that need root.
    Lab,
    /// Other name servers, to hold the DNS cases against.
    Peers,
    /// Prometheus, to hold metrics, dashboard and alert rules against.
    Metrics,
    /// Other clients, for the transcripts.
    Transcripts,
    /// Comparing with other name servers' speed.
    Bench,
    /// Format and lints.
    Ci,
    /// A second kernel, emulated.
    Kernel,
    /// Making the package.
    Package,
    /// Trying it out.
    PackageTest,
}

/// What was done so far.
#[derive(Debug, Default)]
struct Progress {
    /// Whether anything had to be done.
    acted: bool,
    /// Whether the package lists are fresh.
    updated: bool,
}

impl Progress {
    /// Says what is about to be done and why.
    fn step(&mut self, what: &str, why: &str) {
        self.acted = true;
        println!("setup: {what} ({why})");
    }
}

/// Sets everything up and says how that ended.
pub(crate) fn setup(needs: &[Need]) -> Result<()> {
    if ensure(needs)?.acted {
        println!("setup: done");
    } else {
        println!("setup: everything is there already, nothing to do");
    }
    if let Some(toolchain) = bpf::in_use() {
        println!("setup: the XDP program is compiled with {toolchain}");
    }
    Ok(())
}

/// What [`ensure`] did.
pub(crate) struct Outcome {
    acted: bool,
}

/// Sets up what is missing; silent where that is nothing.
pub(crate) fn ensure(needs: &[Need]) -> Result<Outcome> {
    let mut progress = Progress::default();
    packages::ensure_programs(&mut progress, needs)?;
    if needs.contains(&Need::Build) {
        bpf::ensure(&mut progress)?;
    }
    if needs.contains(&Need::Lab) {
        ensure_bpffs(&mut progress)?;
    }
    if needs.contains(&Need::Ci) {
        ensure_component(&mut progress, "fmt", "rustfmt")?;
        ensure_component(&mut progress, "clippy", "clippy")?;
    }
    Ok(Outcome {
        acted: progress.acted,
    })
}

/// systemd mounts it at boot; where there is none, as in a container, nobody has.
fn ensure_bpffs(progress: &mut Progress) -> Result<()> {
    const PLACE: &str = "/sys/fs/bpf";
    /// `BPF_FS_MAGIC`.
    const MAGIC: u64 = 0xcafe_4a11;
    if rustix::fs::statfs(PLACE).is_ok_and(|there| there.f_type as u64 & 0xffff_ffff == MAGIC) {
        return Ok(());
    }
    progress.step(
        &format!("mount -t bpf bpf {PLACE}"),
        "the XDP program stays there while the daemon is restarted",
    );
    command::run(privilege::as_root("mount")?.args(["-t", "bpf", "bpf", PLACE]))
        .with_context(|| format!("mount a BPF file system on {PLACE}, then run this again"))
}

fn ensure_component(progress: &mut Progress, subcommand: &str, component: &str) -> Result<()> {
    if command::output(cargo().args([subcommand, "--version"])).is_ok() {
        return Ok(());
    }
    progress.step(
        &format!("rustup component add {component}"),
        "for cargo xtask ci",
    );
    command::run(command::command("rustup").args(["component", "add", component])).with_context(
        || format!("install {component} for your Rust toolchain, then run this again"),
    )
}
