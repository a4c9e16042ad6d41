//! Which toolchain compiles the XDP program. Shared by build.rs, which uses it, and
//! `cargo xtask setup`, which provides it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable that overrides the choice with the name of a rustup toolchain.
pub(crate) const OVERRIDE: &str = "FAILOVER_BPF_TOOLCHAIN";

/// The rustup name under which `cargo xtask setup` links a distribution's Rust that comes with a
/// precompiled `core` for BPF.
pub(crate) const LINKED: &str = "failover-bpf";

/// A rustup toolchain that can compile the XDP program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// Its name.
    pub(crate) name: String,
    /// Whether it is a nightly, which builds `core` itself; others need `RUSTC_BOOTSTRAP`.
    pub(crate) nightly: bool,
}

/// The toolchain to use, if there is one: the override, a nightly with the sources of `core`, or
/// the linked one.
pub(crate) fn choose() -> Option<Toolchain> {
    if let Ok(name) = std::env::var(OVERRIDE) {
        let nightly = query(&name, &["--version"])?.contains("nightly");
        return Some(Toolchain { name, nightly });
    }
    if has_nightly_with_source() {
        return Some(Toolchain {
            name: "nightly".into(),
            nightly: true,
        });
    }
    has_linked().then(|| Toolchain {
        name: LINKED.into(),
        nightly: false,
    })
}

/// Why [`choose`] found nothing, where the override is to blame.
pub(crate) fn bad_override() -> Option<String> {
    let name = std::env::var(OVERRIDE).ok()?;
    query(&name, &["--version"]).is_none().then(|| {
        format!("{OVERRIDE} names {name:?}, but rustup has no such toolchain, or it does not run")
    })
}

fn has_nightly_with_source() -> bool {
    let nightly = |name: &str| {
        // `nightly-<host>`, not `nightly-<date>-<host>`.
        let rest = name.strip_prefix("nightly-");
        rest.is_some_and(|rest| !rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    installed().iter().any(|name| nightly(name))
        && sysroot("nightly").is_some_and(|root| root.join("lib/rustlib/src/rust/library").is_dir())
}

fn has_linked() -> bool {
    installed().iter().any(|name| name == LINKED)
        && sysroot(LINKED).is_some_and(|root| has_bpf_core(&root))
}

/// Whether a Rust installation has a precompiled `core` for BPF.
pub(crate) fn has_bpf_core(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/bpfel-unknown-none/lib").is_dir()
}

/// The linker that rustc calls for BPF targets, from `PATH` or cargo's own directory.
pub(crate) fn linker() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(cargo_bin())
        .map(|dir| dir.join("bpf-linker"))
        .find(|file| file.is_file())
}

/// Where `cargo install` puts programs.
pub(crate) fn cargo_bin() -> Option<PathBuf> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => std::env::home_dir()?.join(".cargo"),
    };
    Some(home.join("bin"))
}

/// What rustc of a rustup toolchain says.
pub(crate) fn query(toolchain: &str, args: &[&str]) -> Option<String> {
    stdout(
        Command::new("rustup")
            .args(["run", toolchain, "rustc"])
            .args(args),
    )
}

fn sysroot(toolchain: &str) -> Option<PathBuf> {
    Some(PathBuf::from(
        query(toolchain, &["--print", "sysroot"])?.trim(),
    ))
}

fn installed() -> Vec<String> {
    let list = stdout(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn stdout(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
