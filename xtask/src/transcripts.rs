//! `cargo xtask transcripts`: what `docs/transcripts.md` shows, made anew.

use std::fs;

use anyhow::{Context as _, Result};
use failover_tests::lab::{Daemon, Lab, Options, Output, Purpose};
use failover_tests::transcripts;

use crate::{privilege, run, setup};

/// Runs the commands in the file and writes their output into it.
pub(crate) fn transcripts(built: bool) -> Result<()> {
    if !built {
        setup::ensure(&[setup::Need::Transcripts])?;
    }
    let binary = run::prepare(built)?;
    privilege::ensure_root(&["transcripts", "--built"])?;
    if let Some(why) = transcripts::why_not()? {
        eprintln!("{why}: the output may look different");
    }

    let lab = Lab::start(Purpose::Demo, run::serve_program()?, &[])?;
    transcripts::configure(&lab)?;
    let options = Options {
        binary,
        xdp: None,
        output: Output::Log,
    };
    let mut daemon = Daemon::start(&lab, &options)?;
    let file = transcripts::file();
    let name = || file.display().to_string();
    let text = fs::read_to_string(&file).with_context(name)?;
    let renewed = transcripts::renew(&text, &lab, &mut daemon)?;
    if renewed == text {
        println!("{} is as it was", file.display());
        return Ok(());
    }
    fs::write(&file, renewed).with_context(name)?;
    println!("{} has changed", file.display());
    Ok(())
}
