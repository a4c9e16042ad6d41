//! Configuration: a TOML file and zone files become a [`Model`], or a list of every mistake.
//!
//! Follow the data: `syntax` turns text into a tree that knows positions; `spec` reads
//! the tree table by table (`reader`) and value by value (`value`) into the file as written;
//! `build`, `service` and `webhook` check what concerns several values, read the zone files (`zonefile`)
//! and produce the model. On the way nobody stops at a mistake: it is noted in `report`, and
//! reading goes on with what is left. There is a model only if no mistake was noted.

mod access;
mod build;
mod check;
mod diagnostic;
mod entries;
mod name;
mod port_forward;
mod reader;
mod report;
mod running;
mod service;
mod shorthand;
mod spec;
mod syntax;
#[cfg(test)]
mod tests;
mod value;
mod webhook;
mod zonefile;

use std::path::Path;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use running::Running;

pub(crate) use reader::closest;

use crate::model::{CookieSecret, Model, XdpMode};
use report::Report;

/// `control_socket` where the file says nothing.
pub const DEFAULT_CONTROL_SOCKET: &str = "/run/failover/control.sock";

/// `bpf_dir` where the file says nothing.
pub const DEFAULT_BPF_DIR: &str = "/sys/fs/bpf/failover";

/// A configuration that may be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the daemon is to do.
    pub model: Model,
    /// What an operator may want to look at, sorted by file and position.
    pub warnings: Vec<Diagnostic>,
}

/// What the command line and this run say where the file might say something else, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--interface`: replaces the file's list unless empty.
    pub interfaces: Vec<String>,
    /// `--xdp`: replaces the file's mode.
    pub xdp: Option<XdpMode>,
    /// Key of server cookies where the file names none; `None`: a new one is made up.
    pub cookie_secret: Option<CookieSecret>,
}

/// Reads and validates the file at `path` and the zone files it names.
///
/// # Errors
///
/// Every mistake in any of the files, or the one that made a file unreadable.
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    load_with(path, &Overrides::default())
}

/// As [`load`], with what the command line says.
///
/// # Errors
///
/// As [`load`], and for overrides that cannot be.
pub fn load_with(path: &Path, overrides: &Overrides) -> Result<Loaded, Diagnostics> {
    read(path, overrides, None)
}

/// As [`load_with`], for a daemon that runs already.
///
/// # Errors
///
/// As [`load_with`], and for what cannot change while it runs.
pub fn reload(
    path: &Path,
    overrides: &Overrides,
    running: &Running,
) -> Result<Loaded, Diagnostics> {
    read(path, overrides, Some(running))
}

fn read(
    path: &Path,
    overrides: &Overrides,
    running: Option<&Running>,
) -> Result<Loaded, Diagnostics> {
    let unreadable = |line, column, message| {
        Diagnostics(vec![Diagnostic {
            file: path.to_path_buf(),
            line,
            column,
            message,
        }])
    };
    let octets = std::fs::read(path)
        .map_err(|error| unreadable(1, 1, format!("cannot read the file: {error}")))?;
    let text = match std::str::from_utf8(&octets) {
        Ok(text) => text,
        Err(error) => {
            let before = String::from_utf8_lossy(&octets[..error.valid_up_to()]);
            let line = before.matches('\n').count() + 1;
            let column = before
                .rsplit('\n')
                .next()
                .unwrap_or_default()
                .chars()
                .count()
                + 1;
            let message = format!(
                "TOML syntax: expected UTF-8, found octet 0x{:02x}",
                octets.get(error.valid_up_to()).copied().unwrap_or_default()
            );
            return Err(unreadable(line, column, message));
        }
    };
    let base = path.parent().unwrap_or(Path::new(""));
    let mut report = Report::new(path, text);
    let model = syntax::parse(text, &mut report).and_then(|tree| {
        let spec = spec::Spec::read(tree.get_ref(), &mut report);
        let model = build::build(&spec, base, overrides, &mut report);
        if let Some(running) = running {
            running.check(&spec, base, overrides, &mut report);
        }
        model
    });
    let (errors, warnings) = report.into_findings();
    match model {
        Some(model) if errors.is_empty() => Ok(Loaded { model, warnings }),
        _ => Err(Diagnostics(errors)),
    }
}
