//! `cargo xtask transcripts`: what `docs/transcripts.md` and `docs/operators-day.md` show, made anew.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use failover_tests::lab::{Config, Daemon, Lab, Options, Output, Purpose};
use failover_tests::transcripts::{self, day};

use crate::{privilege, run, setup};

/// Runs the commands in the files and writes their output into them.
pub(crate) fn transcripts(built: bool) -> Result<()> {
    if !built {
        setup::ensure(&[setup::Need::Transcripts])?;
    }
    let binary = run::prepare(built)?;
    privilege::ensure_root(&["transcripts", "--built"])?;
    if let Some(why) = transcripts::why_not()? {
        eprintln!("{why}: the output may look different");
    }
    let options = Options {
        binary,
        xdp: None,
        more: Vec::new(),
        output: Output::Log,
    };

    let lab = Lab::start(Purpose::Demo, run::serve_program()?, &[])?;
    transcripts::configure(&lab)?;
    let mut daemon = Daemon::start(&lab, &options)?;
    renew(&transcripts::file(), |text| {
        transcripts::renew(text, &lab, &mut daemon)
    })?;
    drop((daemon, lab));

    let lab = Lab::start(Purpose::Demo, run::serve_program()?, &[])?;
    lab.configure(&Config::default())?;
    let mut daemon = Daemon::start(&lab, &options)?;
    // Its times are never the same: it is always new.
    renew(&day::file(), |text| day::renew(text, &lab, &mut daemon))
}

fn renew(file: &Path, renewed: impl FnOnce(&str) -> Result<String>) -> Result<()> {
    let name = || file.display().to_string();
    let text = fs::read_to_string(file).with_context(name)?;
    let renewed = renewed(&text).with_context(name)?;
    if renewed == text {
        println!("{} is as it was", file.display());
        return Ok(());
    }
    fs::write(file, renewed).with_context(name)?;
    println!("{} has changed", file.display());
    Ok(())
}
