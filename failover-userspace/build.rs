//! Compiles the XDP program to `$OUT_DIR/failover-xdp`, and the programs that the benchmark
//! compares it with to `$OUT_DIR/failover-bench`, with whichever toolchain
//! `cargo xtask setup` found or installed.

#[path = "build/toolchain.rs"]
#[allow(
    dead_code,
    reason = "the rest is for cargo xtask setup, which includes it as well"
)]
mod toolchain;

use std::env;
use std::ffi::OsString;
use std::process::exit;

use anyhow::{Context as _, Result, bail, ensure};
use aya_build::{Package, build_ebpf};

/// Relative to this package; what it depends on beside aya-build's own `root_dir`.
const INPUTS: [&str; 5] = [
    "build.rs",
    "build/toolchain.rs",
    "../failover-common",
    "../Cargo.toml",
    "../Cargo.lock",
];

/// The crates that may use unstable features on a toolchain that is not a nightly. Never "1":
/// aya-build would take that for a wish to build `core` from source.
const BOOTSTRAP: &str = "aya_ebpf,failover_ebpf,failover_xdp,failover_bench,failover_common";

fn main() {
    if let Err(error) = build() {
        println!("cargo::error={error:#}");
        exit(1);
    }
}

fn build() -> Result<()> {
    for input in INPUTS {
        println!("cargo::rerun-if-changed={input}");
    }
    println!("cargo::rerun-if-env-changed={}", toolchain::OVERRIDE);

    if let Some(error) = toolchain::bad_override() {
        bail!(error);
    }
    let toolchain = toolchain::choose().context(
        "no Rust toolchain for the BPF target is installed; run `cargo xtask setup` and try again",
    )?;
    ensure!(
        toolchain::linker().is_some(),
        "bpf-linker is not installed; run `cargo xtask setup` and try again"
    );
    set_environment(toolchain.nightly)?;

    let package = Package {
        name: "failover-ebpf",
        root_dir: "../failover-ebpf",
        ..Package::default()
    };
    build_ebpf([package], aya_build::Toolchain::Custom(&toolchain.name)).with_context(|| {
        format!(
            "the XDP program does not compile with the toolchain {:?}",
            toolchain.name
        )
    })
}

/// aya-build reads and hands on our own environment, so that is where settings go.
fn set_environment(nightly: bool) -> Result<()> {
    let mut path = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    path.splice(0..0, toolchain::cargo_bin());
    let path: OsString = env::join_paths(path)?;
    // SAFETY: no other thread runs in this process yet.
    unsafe {
        env::set_var("PATH", path);
        // aya-build shows each line of cargo's progress as a warning of ours.
        env::set_var("CARGO_TERM_QUIET", "true");
        if !nightly {
            env::set_var("RUSTC_BOOTSTRAP", BOOTSTRAP);
        }
    }
    Ok(())
}
