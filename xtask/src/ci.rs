//! `cargo xtask ci`: the quick checks first, the tests last, so that the test runner has the
//! last word.

use anyhow::Result;
use failover_tests::command;

use crate::cargo::cargo;
use crate::dist::Subject;
use crate::kernel;
use crate::setup::{self, Need};
use crate::test::{self, Privileged};

/// Runs everything; stops at the first failure.
pub(crate) fn ci(privileged: Privileged) -> Result<()> {
    setup::ensure(&[Need::Build, Need::Lab, Need::Ci])?;
    if privileged == Privileged::Run {
        // Tests that compare with other servers are skipped where these are missing, and so are
        // those of the transcripts and with Prometheus.
        setup::ensure(&[Need::Peers, Need::Transcripts, Need::Metrics])?;
    }
    command::run(cargo().args(["fmt", "--all", "--check"]))?;
    command::run(cargo().args(["clippy", "--all-targets", "--", "-D", "warnings"]))?;
    // The XDP program has neither std nor unwinding, so it has a profile to itself.
    let mut clippy = cargo();
    clippy.args(["clippy", "--package", "failover-ebpf"]);
    clippy.args([
        "--config",
        "profile.dev.panic=\"abort\"",
        "--",
        "-D",
        "warnings",
    ]);
    // Unstable features on a stable toolchain, as build.rs allows them.
    command::run(clippy.env("RUSTC_BOOTSTRAP", "aya_ebpf,failover_xdp,failover_bench"))?;
    command::run(
        cargo()
            .args(["doc", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    let mut package = None;
    if privileged == Privileged::Run {
        kernel::test()?;
        package = Some(Subject::make()?);
    }
    test::test(privileged, package.as_ref())
}
