//! `cargo xtask test`: ordinary `cargo test`, twice: as anybody, then what needs root.

use anyhow::{Context as _, Result};
use failover_tests::{PRIVILEGED, command};

use crate::dist::Subject;
use crate::{cargo, privilege, setup};

/// Whether the tests that need root are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privileged {
    Run,
    Skip,
}

impl From<bool> for Privileged {
    fn from(skip: bool) -> Self {
        if skip { Self::Skip } else { Self::Run }
    }
}

/// Runs the tests, that of the package only where there is one. Prints nothing after cargo does.
pub(crate) fn test(privileged: Privileged, package: Option<&Subject>) -> Result<()> {
    setup::ensure(&[setup::Need::Build, setup::Need::Lab])?;
    if privileged == Privileged::Run {
        // Before minutes of building.
        privilege::as_root("true").context(
            "some tests need root, for network namespaces and BPF: run this as root, or give \
             --skip-privileged",
        )?;
    }
    command::run(cargo::cargo().arg("test").env_remove(PRIVILEGED))?;
    if privileged == Privileged::Skip {
        return Ok(());
    }
    // The daemon that end-to-end tests run, as users get it.
    let daemon = cargo::build_daemon()?;
    let mut test = cargo::cargo();
    test.args(["test", "--package", "failover-tests"]);
    privilege::run_built_as_root(&mut test);
    if let Some(package) = package {
        package.name_to(&mut test);
    }
    command::run(
        test.env(PRIVILEGED, "1")
            .env(failover_tests::DAEMON, daemon),
    )
}
