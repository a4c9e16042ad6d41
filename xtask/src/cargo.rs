//! Cargo, called from within cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use failover_tests::command;

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a directory in the workspace")
}

/// The cargo that runs us, in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Builds the daemon as users get it; returns the binary.
pub(crate) fn build_daemon() -> Result<PathBuf> {
    command::run(cargo().args(["build", "--release", "--package", "failover-userspace"]))?;
    Ok(daemon())
}

/// Where [`build_daemon`] puts the daemon.
pub(crate) fn daemon() -> PathBuf {
    target_dir().join("release/failover")
}

/// Where cargo puts what it builds: we are `TARGET/debug/xtask`.
pub(crate) fn target_dir() -> PathBuf {
    let own = std::env::current_exe().ok();
    let target = own.as_deref().and_then(Path::parent).and_then(Path::parent);
    target.map_or_else(|| root().join("target"), Path::to_owned)
}
