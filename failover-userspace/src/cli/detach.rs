//! `failover detach`: everything out of the kernel, with a daemon or without.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::client::{Client, unexpected};
use super::{Daemon, print};
use crate::dataplane::{Pins, PinsError};
use crate::forward;
use crate::protocol::{Removed, Reply, Request};

const TABLE_REMOVED: &str = "table inet failover removed";

pub(super) fn detach(daemon: &Daemon) -> Result<ExitCode> {
    match daemon.try_connect()? {
        Ok(client) => ask(client),
        Err(error) if error.is_certain() => without_daemon(daemon),
        Err(error) => Err(error.into()),
    }
}

/// The daemon does it, and ends.
fn ask(mut client: Client) -> Result<ExitCode> {
    let Reply::Detached(detached) = client.ask(&Request::Detach {})? else {
        return Err(unexpected());
    };
    let mut done = if detached.interfaces.is_empty() {
        "nothing was attached".to_owned()
    } else {
        format!("detached from {}", detached.interfaces.join(", "))
    };
    if detached.rules == Ok(Removed::Table) {
        done += &format!(", {TABLE_REMOVED}");
    }
    print(&format!("{done}; the daemon is ending\n"))?;
    match detached.rules {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(why) => bail!("the rules of port forwarding are still there: {why}"),
    }
}

/// Program and rules outlive the daemon.
fn without_daemon(daemon: &Daemon) -> Result<ExitCode> {
    let mut done = Vec::new();
    let programs = remove_programs(daemon)
        .context("no daemon is running, but one may have left its program on interfaces")?;
    match programs {
        0 => {}
        1 => done.push("program taken off 1 interface".to_owned()),
        count => done.push(format!("program taken off {count} interfaces")),
    }
    if remove_rules(daemon)? == Removed::Table {
        done.push(TABLE_REMOVED.to_owned());
    }
    if done.is_empty() {
        print("no daemon is running, and none has left anything\n")?;
    } else {
        print(&format!("no daemon is running; {}\n", done.join(", ")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns off how many interfaces.
fn remove_programs(daemon: &Daemon) -> Result<usize> {
    let Some(directory) = daemon.bpf_dir()? else {
        return Ok(0);
    };
    match Pins::open(&directory, false) {
        Ok(Some(pins)) => Ok(pins.remove_all()?),
        // Nothing can be pinned there.
        Ok(None) | Err(PinsError::NotThere(_)) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn remove_rules(daemon: &Daemon) -> Result<Removed> {
    match forward::remove_left() {
        Ok(removed) => Ok(removed),
        // Who may not look need not, unless there is something to expect.
        Err(error) if error.is_for_want_of_rights() && !daemon.forwards()? => Ok(Removed::Nothing),
        Err(error) => Err(error)
            .context("no daemon is running, but one may have left the table inet failover"),
    }
}
