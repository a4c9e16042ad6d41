//! The licences of the libraries that are linked into the daemon, which those want to be shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use failover_tests::command;
use serde::Deserialize;

use crate::cargo;

/// What the daemon is made of: itself, and the XDP program inside it.
const PACKAGES: [&str; 2] = ["failover-userspace", "failover-ebpf"];

/// How the names of files with licences begin.
const PREFIXES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: String,
    /// `None`: ours.
    source: Option<String>,
}

/// A list of the libraries, and every text of a licence that comes with them, once.
pub(super) fn collect() -> Result<String> {
    let mut ask = cargo::cargo();
    let metadata = command::output(ask.args(["metadata", "--format-version", "1", "--locked"]))?;
    let mut metadata: Metadata = serde_json::from_str(&metadata).context("cargo metadata")?;
    let linked = linked()?;
    metadata.packages.retain(|package| {
        package.source.is_some()
            && linked.contains(&format!("{} v{}", package.name, package.version))
    });
    metadata
        .packages
        .sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));

    let mut list = "/usr/bin/failover contains these libraries.\n\n\
                    The Rust standard library: MIT OR Apache-2.0\n"
        .to_owned();
    // Text to the files that it is in.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in &metadata.packages {
        let Package { name, version, .. } = package;
        let license = package.license.as_deref().unwrap_or("see below");
        writeln!(list, "{name} {version}: {license}")?;
        let directory = Path::new(&package.manifest_path).parent();
        for (file, text) in texts_in(directory.context("a manifest has a directory")?)? {
            let places = texts.entry(text).or_default();
            places.push(format!("{name} {version}: {file}"));
        }
    }
    let mut texts: Vec<_> = texts.into_iter().collect();
    texts.sort_by(|(_, a), (_, b)| a.cmp(b));
    for (text, places) in texts {
        let line = "=".repeat(72);
        write!(
            list,
            "\n{line}\n{}\n{line}\n\n{}\n",
            places.join("\n"),
            text.trim_end()
        )?;
    }
    Ok(list)
}

/// Names and versions of all that is linked in, as `cargo tree` shows them.
fn linked() -> Result<BTreeSet<String>> {
    let mut linked = BTreeSet::new();
    for package in PACKAGES {
        let mut ask = cargo::cargo();
        ask.args(["tree", "--locked", "--package", package]);
        ask.args(["--edges", "normal", "--prefix", "none", "--format", "{p}"]);
        for line in command::output(&mut ask)?.lines() {
            // What follows is a path, or a remark.
            let mut words = line.split(' ');
            if let (Some(name), Some(version)) = (words.next(), words.next()) {
                linked.insert(format!("{name} {version}"));
            }
        }
    }
    Ok(linked)
}

/// The licences in a package's directory: names of files, and what they say.
fn texts_in(directory: &Path) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let upper = name.to_uppercase();
        let is_license = PREFIXES.iter().any(|prefix| upper.starts_with(prefix));
        if is_license && path.is_file() {
            let text = fs::read(&path)?;
            texts.insert(
                name.into_owned(),
                String::from_utf8_lossy(&text).into_owned(),
            );
        }
    }
    Ok(texts)
}
