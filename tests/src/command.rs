//! Programs run to their end, with errors that say which one failed and what it printed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Where administrators' programs are, which a user's `PATH` may lack.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Where `cargo xtask setup` unpacks packages that it does not install, each in a directory of
/// its own.
#[must_use]
pub fn unpacked() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/packages")
}

/// The path of a program, from `PATH`, the sbin directories, or packages unpacked by us.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let packages = unpacked().read_dir().into_iter().flatten().flatten();
    std::env::split_paths(&path)
        .chain(SBIN.iter().map(PathBuf::from))
        .chain(packages.map(|package| package.path().join("usr/bin")))
        .map(|dir| dir.join(program))
        .find(|file| is_executable(file))
}

/// Whether a file is there and may be executed by somebody.
#[must_use]
pub fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A command for a program that [`find`] finds; one it does not find fails when it is started.
#[must_use]
pub fn command(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| PathBuf::from(program)))
}

/// The command as a line to read (not to be given to a shell).
#[must_use]
pub fn display(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(program)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a command and returns what it wrote to standard output.
///
/// # Errors
///
/// When it cannot be started or does not succeed; the error has its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let line = display(command);
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr);
        bail!("`{line}` failed ({status}): {}", stderr.trim());
    }
    String::from_utf8(stdout).with_context(|| format!("`{line}` printed something not UTF-8"))
}

/// Runs a command that shares our terminal.
///
/// # Errors
///
/// When it cannot be started or does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let line = display(command);
    let status = command
        .status()
        .with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}
