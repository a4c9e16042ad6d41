//! What is installed where.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use failover_tests::command;

use crate::cargo;

/// From the workspace, to the package.
const FILES: [(&str, &str); 8] = [
    (
        "packaging/systemd/failover.service",
        "usr/lib/systemd/system/failover.service",
    ),
    ("packaging/default/failover.toml", CONFIGURATION),
    (
        "packaging/examples/failover.toml",
        "usr/share/doc/failover/examples/failover.toml",
    ),
    (
        "examples/example.com.zone",
        "usr/share/doc/failover/examples/example.com.zone",
    ),
    (
        "packaging/debian/copyright",
        "usr/share/doc/failover/copyright",
    ),
    (
        "packaging/debian/lintian-overrides",
        "usr/share/lintian/overrides/failover",
    ),
    ("README.md", "usr/share/doc/failover/README.md"),
    ("CHANGELOG.md", "usr/share/doc/failover/changelog"),
];

/// Directories with everything in them, where they are there.
const DIRECTORIES: [(&str, &str); 2] = [
    ("contrib/grafana", "usr/share/failover/grafana"),
    ("contrib/prometheus", "usr/share/failover/prometheus"),
];

/// For the administrator to edit: upgrades leave it as it is then.
pub(super) const CONFIGURATION: &str = "etc/failover/failover.toml";

/// An empty directory.
pub(super) fn fresh(root: &Path) -> Result<PathBuf> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot empty {}", root.display()))?;
    }
    fs::create_dir_all(root)?;
    Ok(root.to_owned())
}

/// Everything that is only copied.
pub(super) fn install_files(root: &Path) -> Result<()> {
    for (from, to) in FILES {
        copy(&cargo::root().join(from), &root.join(to))?;
    }
    for (from, to) in DIRECTORIES {
        let from = cargo::root().join(from);
        if from.exists() {
            copy_all(&from, &root.join(to))?;
        }
    }
    Ok(())
}

/// The daemon without symbols: those are in the build, where a crash can be looked up.
pub(super) fn install_daemon(root: &Path, binary: &Path) -> Result<()> {
    let installed = root.join("usr/bin/failover");
    copy(binary, &installed)?;
    let mut strip = command::command("strip");
    strip.args([
        "--strip-unneeded",
        "--remove-section=.comment",
        "--remove-section=.note",
    ]);
    command::output(strip.arg(installed)).map(drop)
}

/// Writes a file and the directories that it is in.
pub(super) fn write(file: &Path, text: &str) -> Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// All files and directories below `directory`, sorted.
pub(super) fn below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(below(&path)?);
        }
        found.push(path);
    }
    found.sort();
    Ok(found)
}

/// Compresses what Debian wants compressed, and makes modes what they should be, whatever the
/// umask of who builds.
pub(super) fn finish(root: &Path) -> Result<()> {
    let documents = root.join("usr/share/doc/failover");
    let large = ["changelog", "changelog.Debian", "third-party-licenses"];
    let mut compressed: Vec<_> = large.map(|name| documents.join(name)).into();
    let pages = below(&root.join("usr/share/man"))?;
    compressed.extend(pages.into_iter().filter(|page| page.is_file()));
    command::output(command::command("gzip").args(["-9n"]).args(compressed))?;

    set_mode(root, 0o755)?;
    for path in below(root)? {
        let program = path.starts_with(root.join("usr/bin"));
        let mode = if path.is_dir() || program {
            0o755
        } else {
            0o644
        };
        set_mode(&path, mode)?;
    }
    Ok(())
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    for file in below(from)?.iter().filter(|path| path.is_file()) {
        copy(file, &to.join(file.strip_prefix(from)?))?;
    }
    Ok(())
}
