//! Root, for what needs it: builds stay the user's own.

use std::convert::Infallible;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use failover_tests::command;

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command that runs as root, by sudo where we are not.
pub(crate) fn as_root(program: &str) -> Result<Command> {
    if is_root() {
        return Ok(command::command(program));
    }
    let sudo = command::find("sudo").context("neither root nor sudo")?;
    let mut sudo = Command::new(sudo);
    sudo.arg(program);
    Ok(sudo)
}

/// Lets cargo run what it builds as root; cargo itself builds as the user.
pub(crate) fn run_built_as_root(cargo: &mut Command) {
    if !is_root() {
        let runner = r#"target.'cfg(all())'.runner = ["sudo", "--preserve-env"]"#;
        cargo.args(["--config", runner]);
    }
}

/// Goes on as root: returns if we are it, else replaces this process by `sudo cargo-xtask ARGS`.
pub(crate) fn ensure_root(args: &[&str]) -> Result<()> {
    if is_root() {
        Ok(())
    } else {
        reexec(args).map(|never| match never {})
    }
}

fn reexec(args: &[&str]) -> Result<Infallible> {
    let own = std::env::current_exe()?;
    let Some(sudo) = command::find("sudo") else {
        bail!(
            "this needs root, for network namespaces and BPF; there is no sudo, so run as root:\n    {} {}",
            own.display(),
            args.join(" ")
        );
    };
    eprintln!(
        "root is needed, for network namespaces and BPF: sudo {} {}",
        own.display(),
        args.join(" ")
    );
    Err(Command::new(sudo).arg(own).args(args).exec()).context("cannot run sudo")
}
