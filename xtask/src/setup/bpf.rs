//! What compiles the XDP program: a Rust toolchain for the BPF target, and bpf-linker.
//!
//! Two ways, whichever is nearer:
//!
//! 1. rustup's nightly with `rust-src`, which compiles `core` for BPF itself;
//! 2. Debian's `rustc-web`, which comes with `core` compiled for BPF, linked into rustup.

// build.rs decides which toolchain it takes; we only make sure that it finds one.
#[path = "../../../failover-userspace/build/toolchain.rs"]
mod toolchain;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use failover_tests::command;

use super::{Progress, packages};
use crate::cargo::cargo;
use toolchain::Toolchain;

/// Debian's Rust with the BPF target.
const DEBIAN_RUST: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Where Debian installs it.
const DEBIAN_SYSROOT: &str = "/usr";

/// The version of bpf-linker that the builds are tested with.
const LINKER_VERSION: &str = "0.13.0";

/// The LLVM versions that it can be built for.
const LINKER_LLVMS: [u32; 3] = [21, 22, 23];

/// Provides toolchain and linker where they are missing.
pub(super) fn ensure(progress: &mut Progress) -> Result<()> {
    if command::find("rustup").is_none() {
        bail!("rustup is missing; install it as https://rustup.rs says, then run this again");
    }
    if let Some(error) = toolchain::bad_override() {
        bail!(error);
    }
    let toolchain = match toolchain::choose() {
        Some(toolchain) => toolchain,
        None => provide_toolchain(progress)?,
    };
    if toolchain::linker().is_none() {
        provide_linker(progress, &toolchain)?;
    }
    Ok(())
}

/// What build.rs is going to use, to be printed.
pub(super) fn in_use() -> Option<String> {
    let toolchain = toolchain::choose()?;
    let linker = toolchain::linker()?;
    Some(format!(
        "rustup's toolchain {:?} and {}",
        toolchain.name,
        linker.display()
    ))
}

fn provide_toolchain(progress: &mut Progress) -> Result<Toolchain> {
    let why = "Rust with the BPF target, for the XDP program";
    if !toolchain::has_bpf_core(Path::new(DEBIAN_SYSROOT))
        && packages::available(progress, &DEBIAN_RUST)?
    {
        packages::install(progress, &DEBIAN_RUST, why)?;
    }
    if toolchain::has_bpf_core(Path::new(DEBIAN_SYSROOT)) {
        let link = ["toolchain", "link", toolchain::LINKED, DEBIAN_SYSROOT];
        progress.step(&format!("rustup {}", link.join(" ")), why);
        command::run(command::command("rustup").args(link))?;
    } else {
        let install = [
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ];
        let line = format!("rustup {}", install.join(" "));
        progress.step(&line, why);
        command::run(command::command("rustup").args(install)).with_context(|| {
            format!("the XDP program needs a nightly Rust; run this, then setup again:\n    {line}")
        })?;
    }
    toolchain::choose().context("there is still no Rust toolchain with the BPF target")
}

fn provide_linker(progress: &mut Progress, toolchain: &Toolchain) -> Result<()> {
    let why = "links the XDP program; it has to be of rustc's LLVM";
    let llvm = llvm_version(toolchain)?;
    if !LINKER_LLVMS.contains(&llvm) {
        bail!(
            "the Rust toolchain {:?} is of LLVM {llvm}, but bpf-linker {LINKER_VERSION} is for one \
             of {LINKER_LLVMS:?}; install a bpf-linker that suits it, or name another toolchain in \
             {}",
            toolchain.name,
            toolchain::OVERRIDE
        );
    }
    let prefix = llvm_prefix(progress, llvm)?;
    let feature = format!("llvm-{llvm}");
    progress.step(&format!("cargo install bpf-linker {LINKER_VERSION}"), why);
    let mut path = vec![prefix.join("bin")];
    path.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    command::run(
        cargo()
            .args([
                "install",
                "bpf-linker",
                "--version",
                LINKER_VERSION,
                "--locked",
            ])
            .args(["--no-default-features", "--features", &feature])
            .env("LLVM_PREFIX", &prefix)
            .env("PATH", std::env::join_paths(path)?),
    )
}

/// The major version of the LLVM in a toolchain's rustc.
fn llvm_version(toolchain: &Toolchain) -> Result<u32> {
    let version = toolchain::query(&toolchain.name, &["--version", "--verbose"])
        .with_context(|| format!("the Rust toolchain {:?} does not run", toolchain.name))?;
    let llvm = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "));
    let major = llvm.and_then(|llvm| llvm.split('.').next()?.parse().ok());
    major.with_context(|| format!("rustc does not name its LLVM: {version}"))
}

/// Where LLVM of that version is, its library for linking included; installs it if need be.
fn llvm_prefix(progress: &mut Progress, llvm: u32) -> Result<PathBuf> {
    if let Some(prefix) = installed_llvm(llvm) {
        return Ok(prefix);
    }
    let wanted = [format!("llvm-{llvm}-dev"), format!("libllvm{llvm}")];
    let wanted = wanted.each_ref().map(String::as_str);
    if packages::available(progress, &wanted)? {
        packages::install(progress, &wanted, "bpf-linker is built against it")?;
        if let Some(prefix) = installed_llvm(llvm) {
            return Ok(prefix);
        }
    }
    bail!(
        "bpf-linker has to be built against LLVM {llvm}, which this system's packages do not have. \
         Do one of these, then run setup again:\n    \
         cargo install cargo-binstall && cargo binstall bpf-linker    (ready-made)\n    \
         install LLVM {llvm} with its development files so that llvm-config-{llvm} is in PATH \
         (https://apt.llvm.org)"
    )
}

fn installed_llvm(llvm: u32) -> Option<PathBuf> {
    [format!("llvm-config-{llvm}"), "llvm-config".to_owned()]
        .iter()
        .find_map(|config| {
            let ask = |what| command::output(command::command(config).arg(what)).ok();
            let version = ask("--version")?;
            let same = version.split('.').next()?.parse() == Ok(llvm);
            same.then(|| ask("--prefix").map(|prefix| PathBuf::from(prefix.trim())))?
        })
}
