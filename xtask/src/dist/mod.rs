//! `cargo xtask dist`: a Debian package of the daemon, and its test.
//!
//! `tree` lays out what is installed, `notices` collects the licences of what is linked in, `deb`
//! makes the package of it. Unit, maintainer scripts and manual pages are in `packaging/`; what is
//! generated comes from a program there, because xtask itself must build without a BPF toolchain.
//!
//! Of the same commit, toolchain and directory the package is the same, octet for octet: times are
//! those of the commit, the order is sorted, everything belongs to root.

mod deb;
mod notices;
mod tree;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use failover_tests::{PRIVILEGED, command, package};

use crate::setup::{self, Need};
use crate::{cargo, privilege};

/// How it is to be done.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Then install it on a machine made for that, and run it there
    #[arg(long)]
    test: bool,
    /// Of a debug build: made sooner, and slower
    #[arg(long)]
    debug: bool,
}

/// Which build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    Release,
    Debug,
}

impl Profile {
    fn directory(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Debug => "debug",
        }
    }

    fn build(self, command: &mut Command) -> &mut Command {
        match self {
            Self::Release => command.arg("--release"),
            Self::Debug => command,
        }
    }
}

/// Makes the package; tests it where that is wanted.
pub(crate) fn dist(args: &Args) -> Result<()> {
    if args.test {
        setup::ensure(&[Need::Build, Need::Lab, Need::Package, Need::PackageTest])?;
        // Before minutes of building.
        privilege::as_root("true").context("the test needs root, for namespaces and BPF")?;
    }
    let profile = if args.debug {
        Profile::Debug
    } else {
        Profile::Release
    };
    let package = build(profile)?;
    println!("{}", package.display());
    if args.test {
        let mut test = cargo::cargo();
        test.args(["test", "--package", "failover-tests", "--test", "package"]);
        privilege::run_built_as_root(&mut test);
        Subject::of(package)?.name_to(&mut test);
        command::run(test.env(PRIVILEGED, "1"))?;
    }
    Ok(())
}

/// What the test of the package needs.
pub(crate) struct Subject {
    package: PathBuf,
    machine: PathBuf,
}

impl Subject {
    /// A package as users get it, and a machine to install it on.
    pub(crate) fn make() -> Result<Self> {
        setup::ensure(&[Need::PackageTest])?;
        Self::of(build(Profile::Release)?)
    }

    fn of(package: PathBuf) -> Result<Self> {
        let machine = machine()?;
        Ok(Self { package, machine })
    }

    /// Tells a test where they are.
    pub(crate) fn name_to(&self, test: &mut Command) {
        test.env(package::PACKAGE, &self.package)
            .env(package::MACHINE, &self.machine);
    }
}

/// Builds daemon and documents and packs them; returns the package.
fn build(profile: Profile) -> Result<PathBuf> {
    setup::ensure(&[Need::Build, Need::Package])?;
    let moment = Moment::of_commit()?;
    let target = cargo::target_dir();
    let dist = target.join("dist");

    // One after the other: what one package wants of a library must not get into the other.
    for package in ["failover-userspace", "failover-packaging"] {
        let mut build = cargo::cargo();
        command::run(profile.build(build.args(["build", "--package", package])))?;
    }
    let built = target.join(profile.directory());

    let root = tree::fresh(&dist.join("root"))?;
    tree::install_files(&root)?;
    tree::install_daemon(&root, &built.join("failover"))?;
    let share = root.join("usr/share");
    let mut documents = Command::new(built.join("failover-documents"));
    command::run(documents.arg(&share).arg(&moment.date))?;
    tree::write(
        &share.join("doc/failover/third-party-licenses"),
        &notices::collect()?,
    )?;
    deb::pack(&root, &dist, &moment)
}

/// The minimal Debian, of the release that we are on, that the package is tested in: an archive,
/// made once.
fn machine() -> Result<PathBuf> {
    let release = std::fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release names no release of Debian")?;
    let dist = cargo::target_dir().join("dist");
    std::fs::create_dir_all(&dist)?;
    // Named by what is in it, so that it is made anew for more.
    let packages = package::MACHINE_HAS.join(",");
    let archive = dist.join(format!("debian-{codename}-{packages}.tar"));
    if archive.exists() {
        return Ok(archive);
    }
    println!("dist: a minimal Debian {codename} to install in");
    let partial = dist.join("debian-partial.tar");
    let mut make = privilege::as_root("mmdebstrap")?;
    make.args(["--quiet", "--variant=minbase"]);
    make.arg(format!("--include={packages}"));
    make.arg(codename).arg(&partial);
    // Where this machine gets its own packages from.
    let sources = ["sources.list.d/debian.sources", "sources.list"];
    let sources = sources.map(|file| Path::new("/etc/apt").join(file));
    make.args(sources.iter().find(|file| file.exists()));
    command::run(&mut make)?;
    std::fs::rename(partial, &archive)?;
    Ok(archive)
}

/// When what is packaged was made.
struct Moment {
    /// In seconds since 1970.
    epoch: String,
    /// In UTC, as in 2026-11-22.
    date: String,
}

impl Moment {
    /// What `SOURCE_DATE_EPOCH` says, else the time of the last commit.
    fn of_commit() -> Result<Self> {
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(epoch) => epoch,
            Err(_) => {
                let mut log = command::command("git");
                log.args(["log", "-1", "--format=%ct"]);
                command::output(log.current_dir(cargo::root()))
                    .context("neither SOURCE_DATE_EPOCH nor a git commit says when")?
            }
        };
        let epoch = epoch.trim().to_owned();
        let date = date(&epoch, "+%F")?;
        Ok(Self { epoch, date })
    }

    /// As in a Debian changelog.
    fn rfc2822(&self) -> Result<String> {
        date(&self.epoch, "--rfc-email")
    }
}

fn date(epoch: &str, format: &str) -> Result<String> {
    let mut date = command::command("date");
    date.args(["--utc", &format!("--date=@{epoch}"), format]);
    let date = command::output(date.env("LC_ALL", "C"))?;
    Ok(date.trim().to_owned())
}
