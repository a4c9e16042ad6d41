//! From the tree to the package: control files, checksums, `dpkg-deb`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use failover_tests::command;

use super::{Moment, tree};
use crate::cargo;

/// What Debian calls the packaging's own version.
const REVISION: &str = "1";
/// Who made the package, unless `DEBFULLNAME` and `DEBEMAIL` say otherwise.
const MAINTAINER: (&str, &str) = ("The Failover authors", "failover@packages.invalid");
/// Run by dpkg when the package comes and goes.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Packs the tree into a package in `dist`; returns it.
pub(super) fn pack(root: &Path, dist: &Path, moment: &Moment) -> Result<PathBuf> {
    let version = format!("{}-{REVISION}", env!("CARGO_PKG_VERSION"));
    let mut ask = command::command("dpkg");
    let architecture = command::output(ask.arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let maintainer = maintainer();

    let changelog = format!(
        "failover ({version}) unstable; urgency=medium\n\n  * See changelog.gz for what is new.\n\n \
         -- {maintainer}  {}\n",
        moment.rfc2822()?
    );
    let documents = root.join("usr/share/doc/failover");
    tree::write(&documents.join("changelog.Debian"), &changelog)?;
    tree::finish(root)?;

    let from = cargo::root().join("packaging/debian");
    let debian = root.join("DEBIAN");
    let checksums = checksums(root)?;
    let control = fs::read_to_string(from.join("control.in"))?
        .replace("@VERSION@", &version)
        .replace("@ARCHITECTURE@", architecture)
        .replace("@MAINTAINER@", &maintainer)
        .replace("@SIZE@", &installed_size(root)?.to_string())
        .replace("@DEPENDS@", &depends(&root.join("usr/bin/failover"), dist)?);
    tree::write(&debian.join("control"), &control)?;
    tree::write(&debian.join("md5sums"), &checksums)?;
    let configuration = format!("/{}\n", tree::CONFIGURATION);
    tree::write(&debian.join("conffiles"), &configuration)?;
    for script in SCRIPTS {
        fs::copy(from.join(script), debian.join(script)).context(script)?;
        tree::set_mode(&debian.join(script), 0o755)?;
    }
    for file in ["control", "md5sums", "conffiles"] {
        tree::set_mode(&debian.join(file), 0o644)?;
    }
    tree::set_mode(&debian, 0o755)?;

    let package = dist.join(format!("failover_{version}_{architecture}.deb"));
    let mut pack = command::command("dpkg-deb");
    pack.args(["--root-owner-group", "-Zxz", "--build"]);
    pack.arg(root).arg(&package);
    command::output(pack.env("SOURCE_DATE_EPOCH", &moment.epoch))?;
    Ok(package)
}

fn maintainer() -> String {
    let (name, address) = MAINTAINER;
    let name = std::env::var("DEBFULLNAME").unwrap_or_else(|_| name.to_owned());
    let address = std::env::var("DEBEMAIL").unwrap_or_else(|_| address.to_owned());
    format!("{name} <{address}>")
}

/// What dpkg verifies installed files by, but for the configuration.
fn checksums(root: &Path) -> Result<String> {
    let configuration = root.join(tree::CONFIGURATION);
    let files = tree::below(root)?.into_iter();
    let files = files.filter(|path| path.is_file() && *path != configuration);
    let files: Vec<_> = files
        .map(|file| Ok(file.strip_prefix(root)?.to_owned()))
        .collect::<Result<_>>()?;
    let mut sum = command::command("md5sum");
    command::output(sum.args(files).current_dir(root))
}

/// In KiB, as dpkg-gencontrol counts: a file's size rounded up, and one for anything else.
fn installed_size(root: &Path) -> Result<u64> {
    let sizes = tree::below(root)?.into_iter().map(|path| {
        let meta = path.metadata()?;
        Ok(if meta.is_file() {
            meta.len().div_ceil(1024)
        } else {
            1
        })
    });
    sizes.sum()
}

/// The packages of the libraries that the binary is linked with, in versions that have what it
/// uses.
fn depends(binary: &Path, dist: &Path) -> Result<String> {
    // It wants to be in a source package.
    let directory = dist.join("shlibdeps");
    tree::write(
        &directory.join("debian/control"),
        "Source: failover\n\nPackage: failover\nArchitecture: any\n",
    )?;
    let mut ask = command::command("dpkg-shlibdeps");
    ask.arg("-O").arg(binary).current_dir(&directory);
    let answer = command::output(&mut ask)?;
    let depends = answer.trim().strip_prefix("shlibs:Depends=");
    let depends = depends.with_context(|| format!("dpkg-shlibdeps said {answer:?}"))?;
    Ok(depends.to_owned())
}
