//! Programs from the distribution's packages.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use failover_tests::command;

use super::{Need, Progress};
use crate::privilege;

/// A program that has to be there.
struct Program {
    name: &'static str,
    /// The Debian package that it is in.
    package: &'static str,
    need: Need,
    why: &'static str,
    how: How,
}

/// How a program gets here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Its package is installed.
    Installed,
    /// Its package is unpacked into a directory of ours: installed, it would be a service of the
    /// system, now or from the next start on.
    Unpacked,
}

const fn program(
    name: &'static str,
    package: &'static str,
    need: Need,
    why: &'static str,
) -> Program {
    Program {
        name,
        package,
        need,
        why,
        how: How::Installed,
    }
}

const PROGRAMS: &[Program] = &[
    program("cc", "build-essential", Need::Build, "links Rust programs"),
    program(
        "ip",
        "iproute2",
        Need::Lab,
        "makes the lab's namespaces and links",
    ),
    program(
        "nsenter",
        "util-linux",
        Need::Lab,
        "runs commands on the lab's hosts",
    ),
    program(
        "dig",
        "bind9-dnsutils",
        Need::Lab,
        "asks, in the lab and in tests",
    ),
    program(
        "dnsperf",
        "dnsperf",
        Need::Lab,
        "asks fast, in the lab and in tests",
    ),
    program("bpftool", "bpftool", Need::Lab, "shows programs and maps"),
    program("nft", "nftables", Need::Lab, "forwards connections"),
    program("curl", "curl", Need::Lab, "connects, in the lab"),
    program(
        "qemu-system-x86_64",
        "qemu-system-x86",
        Need::Kernel,
        "emulates a machine",
    ),
    program(
        "busybox",
        "busybox-static",
        Need::Kernel,
        "all that the emulated machine has",
    ),
    program("cpio", "cpio", Need::Kernel, "packs its file system"),
    program(
        "knotd",
        "knot",
        Need::Peers,
        "a server to compare with, and a secondary in tests",
    ),
    program(
        "nsd",
        "nsd",
        Need::Peers,
        "a server to compare with, and a secondary in tests",
    ),
    program(
        "kdig",
        "knot-dnsutils",
        Need::Transcripts,
        "asks, for the transcripts",
    ),
    program(
        "kxdpgun",
        "knot-dnsutils",
        Need::Bench,
        "asks faster than dnsperf can",
    ),
    program("gdnsd", "gdnsd", Need::Bench, "a server to compare with"),
    Program {
        how: How::Unpacked,
        ..program(
            "prometheus",
            "prometheus",
            Need::Metrics,
            "scrapes the daemon in tests",
        )
    },
    Program {
        how: How::Unpacked,
        ..program(
            "promtool",
            "prometheus",
            Need::Metrics,
            "checks metrics and alert rules in tests",
        )
    },
    program("dpkg-deb", "dpkg", Need::Package, "makes the package"),
    program(
        "dpkg-shlibdeps",
        "dpkg-dev",
        Need::Package,
        "finds what the package depends on",
    ),
    program(
        "strip",
        "binutils",
        Need::Package,
        "takes symbols out of it",
    ),
    program(
        "git",
        "git",
        Need::Package,
        "knows when the last commit was made",
    ),
    program(
        "mmdebstrap",
        "mmdebstrap",
        Need::PackageTest,
        "makes a minimal Debian to install the package in",
    ),
    program(
        "systemd-nspawn",
        "systemd-container",
        Need::PackageTest,
        "boots it",
    ),
    program(
        "mandoc",
        "mandoc",
        Need::PackageTest,
        "looks for mistakes in manual pages",
    ),
];

/// Installs the packages of programs that are missing.
pub(super) fn ensure_programs(progress: &mut Progress, needs: &[Need]) -> Result<()> {
    let missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|program| needs.contains(&program.need))
        .filter(|program| command::find(program.name).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !has_apt() {
        let lines = missing
            .iter()
            .map(|p| format!("    {:<10} {}", p.name, p.why));
        bail!(
            "these programs are missing; install them with your package manager, then run this \
             again:\n{}",
            lines.collect::<Vec<_>>().join("\n")
        );
    }
    let (to_unpack, missing): (Vec<_>, Vec<_>) = missing
        .into_iter()
        .partition(|program| program.how == How::Unpacked);
    for program in to_unpack {
        // The package of the one before may have brought it as well.
        if command::find(program.name).is_none() {
            unpack_program(progress, program)?;
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|program| program.package).collect();
    let why = missing
        .iter()
        .map(|program| format!("{}: {}", program.name, program.why));
    let why = why.collect::<Vec<_>>().join("; ");
    let _quiet = missing
        .iter()
        .any(|p| matches!(p.need, Need::Peers | Need::Bench | Need::PackageTest))
        .then(NoServices::declare);
    install(progress, &packages, &why)
}

fn unpack_program(progress: &mut Progress, program: &Program) -> Result<()> {
    let Program { name, package, .. } = program;
    if !available(progress, &[package])? {
        bail!("apt does not know the package {package}; install {name} in another way");
    }
    progress.step(
        &format!("apt-get download {package}, unpacked and not installed"),
        &format!("{name}: {}", program.why),
    );
    unpack(package, &command::unpacked()).map(drop)
}

/// Downloads a package that apt knows, and unpacks it without installing it, into a directory of
/// its own in `directory`; returns that.
pub(crate) fn unpack(package: &str, directory: &Path) -> Result<PathBuf> {
    // Beside it, so that nobody takes what is half done for a package.
    let [download, partial] = ["download", "partial"].map(|end| directory.with_extension(end));
    let unpacked = directory.join(package);
    for scratch in [&download, &partial, &unpacked] {
        let _ = fs::remove_dir_all(scratch);
    }
    fs::create_dir_all(&download)?;
    fs::create_dir_all(directory)?;
    let mut get = command::command("apt-get");
    command::output(get.args(["download", package]).current_dir(&download))?;
    let archive = fs::read_dir(&download)?
        .next()
        .context("apt-get downloaded nothing")??
        .path();
    let mut dpkg = command::command("dpkg-deb");
    command::output(dpkg.arg("-x").args([&archive, &partial]))?;
    fs::rename(&partial, &unpacked)?;
    fs::remove_dir_all(&download)?;
    Ok(unpacked)
}

/// Whether packages come by apt.
pub(super) fn has_apt() -> bool {
    command::find("apt-get").is_some()
}

/// Whether apt knows every one of the packages; asks for fresh lists first.
pub(super) fn available(progress: &mut Progress, packages: &[&str]) -> Result<bool> {
    if !has_apt() {
        return Ok(false);
    }
    let known = || {
        let mut show = command::command("apt-cache");
        // Fails when one of the packages is unknown.
        command::output(show.args(["show", "--no-all-versions"]).args(packages)).is_ok()
    };
    if known() {
        return Ok(true);
    }
    update(progress)?;
    Ok(known())
}

/// Installs packages.
pub(super) fn install(progress: &mut Progress, packages: &[&str], why: &str) -> Result<()> {
    let by_hand = || {
        let packages = packages.join(" ");
        format!(
            "run this as root, then this command again:\n    \
             apt-get update && apt-get install -y --no-install-recommends {packages}"
        )
    };
    update(progress).with_context(by_hand)?;
    progress.step(&format!("apt-get install {}", packages.join(" ")), why);
    let mut apt = privilege::as_root("env").with_context(by_hand)?;
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y"]);
    command::run(apt.arg("--no-install-recommends").args(packages)).with_context(by_hand)
}

/// Refreshes the package lists, once.
fn update(progress: &mut Progress) -> Result<()> {
    if progress.updated {
        return Ok(());
    }
    progress.step("apt-get update", "fresh package lists");
    command::run(privilege::as_root("apt-get")?.arg("update"))?;
    progress.updated = true;
    Ok(())
}

/// While this lives, packages that are installed do not start their services: tests and benchmark
/// start servers themselves, and only in namespaces.
struct NoServices {
    policy: PathBuf,
}

impl NoServices {
    /// Debian's way: a policy that forbids it. `None` where there is one already, which is kept.
    fn declare() -> Option<Self> {
        let policy = Path::new("/usr/sbin/policy-rc.d");
        if policy.exists() || !privilege::is_root() {
            return None;
        }
        fs::write(
            policy,
            "#!/bin/sh\n# cargo xtask setup: start no services\nexit 101\n",
        )
        .ok()?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755)).ok()?;
        Some(Self {
            policy: policy.to_owned(),
        })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.policy) {
            eprintln!("setup: remove {} by hand: {error}", self.policy.display());
        }
    }
}
