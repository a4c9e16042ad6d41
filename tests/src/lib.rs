//! What privileged and end-to-end tests share with `cargo xtask`.
//!
//! - [`lab`]: the reference case in network namespaces, with the daemon in it;
//! - [`dns`]: a DNS client that asks from inside a namespace and measures;
//! - [`dig`]: the output of the real `dig`, taken apart;
//! - [`reference`](mod@reference): what the reference case answers;
//! - [`cases`]: DNS cases as text, compared with replies;
//! - [`transcripts`]: what real clients show, as documentation;
//! - [`peers`]: other name servers to compare with;
//! - [`package`]: what the test of the package gets from `cargo xtask dist`;
//! - [`figures`]: tables of what the benchmark measured;
//! - [`charts`]: the same as pictures;
//! - [`command`]: programs run with errors that say what went wrong.
//!
//! A privileged test starts with [`privileged`]; `cargo xtask test` is what enables it:
//!
//! ```no_run
//! # fn a_test() -> anyhow::Result<()> {
//! if !failover_tests::privileged() {
//!     return Ok(());
//! }
//! # Ok(())
//! # }
//! ```

use std::path::PathBuf;

pub mod cases;
pub mod charts;
pub mod command;
pub mod dig;
pub mod dns;
pub mod figures;
pub mod lab;
pub mod package;
pub mod peers;
pub mod reference;
pub mod transcripts;

/// The variable by which `cargo xtask test` lets privileged tests run.
pub const PRIVILEGED: &str = "FAILOVER_PRIVILEGED";

/// The variable by which `cargo xtask test` names the daemon's binary.
pub const DAEMON: &str = "FAILOVER_BIN";

/// The daemon to test: what [`DAEMON`] names, else the one beside the test's own binary.
///
/// # Errors
///
/// When it has not been built.
pub fn daemon() -> anyhow::Result<PathBuf> {
    let path = match std::env::var_os(DAEMON) {
        Some(path) => PathBuf::from(path),
        // We are TARGET/PROFILE/deps/TEST.
        None => std::env::current_exe()?
            .with_file_name("")
            .join("../failover"),
    };
    anyhow::ensure!(
        path.exists(),
        "no daemon at {}; `cargo build` makes it",
        path.display()
    );
    Ok(path)
}

/// Whether the calling test may use namespaces and BPF; says so where it may not.
#[must_use]
pub fn privileged() -> bool {
    let enabled = std::env::var_os(PRIVILEGED).is_some_and(|value| value == "1");
    if !enabled {
        eprintln!("skipped: needs root; run it with `cargo xtask test`");
    }
    enabled
}
