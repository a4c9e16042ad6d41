//! `docs/transcripts.md` is what clients show, `docs/operators-day.md` what an operator sees.

use std::fs;

use anyhow::{Result, bail};
use failover_tests::lab::{Config, Server};
use failover_tests::privileged;
use failover_tests::transcripts::{self, day};

use crate::site::{Site, lab};

#[test]
fn transcripts_are_true() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    if let Some(why) = transcripts::why_not()? {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    let lab = lab(&Config::default())?;
    transcripts::configure(&lab)?;
    let mut site = Site::start_in(lab, "native")?;

    let text = fs::read_to_string(transcripts::file())?;
    let renewed = transcripts::renew(&text, &site.lab, &mut site.daemon)?;
    let lines = text.lines().zip(renewed.lines());
    for (number, (line, renewed)) in (1..).zip(lines) {
        if line != renewed {
            bail!(
                "line {number} is\n{line}\nnow\n{renewed}\n`cargo xtask transcripts` renews the file"
            );
        }
    }
    assert_eq!(text.len(), renewed.len());
    Ok(())
}

#[test]
fn the_operators_day_is_true() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = lab(&Config::default())?;
    // The day begins with all servers.
    lab.revive(Server::WebB)?;
    let mut site = Site::start_in(lab, "native")?;
    let text = fs::read_to_string(day::file())?;
    let played = day::renew(&text, &site.lab, &mut site.daemon)?;
    for (number, (line, played)) in (1..).zip(text.lines().zip(played.lines())) {
        if day::essence(line) != day::essence(played) {
            bail!(
                "line {number} is\n{line}\nnow\n{played}\n`cargo xtask transcripts` plays the day again"
            );
        }
    }
    assert_eq!(text.lines().count(), played.lines().count());
    Ok(())
}
