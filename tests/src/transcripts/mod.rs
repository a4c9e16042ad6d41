//! `docs/transcripts.md`: what real clients show, and the same made anew.
//!
//! The file is its own script: in its blocks of `console` each line that starts with `$ ` is a
//! command, and what follows it, up to the next one or the end of the block, is its output. What
//! is different each time is left out or named (`plain`). Behind each command stands who answered
//! it, by the daemon's counters.

pub mod day;
mod plain;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::command;
use crate::lab::{Counters, Daemon, Handle, Host, Status};

/// The clients, and the versions that the file was made with.
const CLIENTS: [(&str, &str, &str); 2] = [("dig", "-v", "9.18."), ("kdig", "--version", "3.2.")];
/// How long the daemon may take until all is up that the file relies on.
const BOUND: Duration = Duration::from_secs(20);
/// How late the counters may be.
const PATIENCE: Duration = Duration::from_secs(1);
/// What stands between a command and who answered it.
const ANSWERED_BY: &str = "  # ";

/// The file.
#[must_use]
pub fn file() -> PathBuf {
    docs().join("transcripts.md")
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs")
}

/// Why the file cannot be made here as it was made: a client is missing, or of another version.
///
/// # Errors
///
/// When one that is there does not run.
pub fn why_not() -> Result<Option<String>> {
    for (client, option, version) in CLIENTS {
        if command::find(client).is_none() {
            return Ok(Some(format!("no {client} here")));
        }
        let output = command::command(client).arg(option).output()?;
        // dig says it on standard error.
        let said = String::from_utf8([output.stdout, output.stderr].concat())?;
        if !said.contains(version) {
            let said = said.trim();
            return Ok(Some(format!(
                "made with {client} {version}*, here is {said:?}"
            )));
        }
    }
    Ok(None)
}

/// Gives the lab the configuration that the file is made with.
///
/// # Errors
///
/// When a file cannot be read or written.
pub fn configure(lab: &Handle) -> Result<()> {
    let from = docs().join("transcripts");
    lab.configure_from(&from.join("failover.toml"))?;
    let zone = "example.com.zone";
    fs::copy(from.join(zone), lab.dir().join(zone)).context("cannot copy the zone")?;
    Ok(())
}

/// Runs all commands of `text` on the lab's client, one after another, and returns the text with
/// their output.
///
/// # Errors
///
/// When the daemon does not come up, or a command cannot be run.
pub fn renew(text: &str, lab: &Handle, daemon: &mut Daemon) -> Result<String> {
    let is_up = |status: &Status| {
        let mut services = status.services.iter();
        status.generation > 0 && services.all(|service| !service.answer.is_empty())
    };
    daemon.wait_for("answers of all services", BOUND, is_up)?;

    let mut renewed = String::new();
    let mut block = Block::Prose;
    let mut cookie = None;
    for line in text.lines() {
        block = block.after(line);
        match line.strip_prefix("$ ") {
            Some(rest) if block == Block::Console => {
                let command = rest.split(ANSWERED_BY).next().unwrap_or(rest).trim_end();
                let before = daemon.status()?.counters;
                let output = run(lab, command, cookie.as_deref())?;
                let by = answered_by(daemon, before)?;
                cookie = plain::cookie(&output).or(cookie);
                if !renewed.ends_with("```console\n") {
                    renewed.push('\n');
                }
                let output = plain::output(command, &output);
                write!(renewed, "$ {command}{ANSWERED_BY}{by}\n{output}")?;
            }
            _ if block == Block::Console && !line.starts_with("```") => {}
            _ => writeln!(renewed, "{line}")?,
        }
    }
    ensure!(block == Block::Prose, "a block that does not end");
    Ok(renewed)
}

/// Where a line stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Prose,
    /// Commands and their output.
    Console,
    /// Another block.
    Other,
}

impl Block {
    fn after(self, line: &str) -> Self {
        match (self, line) {
            (Self::Prose, "```console") => Self::Console,
            (Self::Prose, line) if line.starts_with("```") => Self::Other,
            (_, "```") => Self::Prose,
            (block, _) => block,
        }
    }
}

/// What a command prints. `cookie` is that of the reply before, for those that send it back.
fn run(lab: &Handle, line: &str, cookie: Option<&str>) -> Result<String> {
    let mut line = line.to_owned();
    if line.contains(plain::SERVER_COOKIE) {
        line = line.replace(plain::SERVER_COOKIE, cookie.context("no cookie before")?);
    }
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    ensure!(
        CLIENTS.iter().any(|(client, ..)| *client == program),
        "{program:?} is none of the clients"
    );
    let mut command = command::command(program);
    // dig would read options from a file of the user's.
    command.args(words).env("HOME", lab.dir());
    let output = lab.netns(Host::Client).enter(|| {
        // A client fails where it is refused a transfer.
        command.output().with_context(|| line.clone())
    })?;
    // Clients warn, on standard error, before they show a reply.
    Ok(String::from_utf8([output.stderr, output.stdout].concat())?)
}

/// Who has answered since these were the counters. They may be a moment late.
fn answered_by(daemon: &Daemon, before: Counters) -> Result<&'static str> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = daemon.status()?.counters;
        let xdp = now.answered > before.answered;
        let user_space = now.slow_path > before.slow_path;
        match (xdp, user_space) {
            (true, false) => return Ok("XDP"),
            (false, true) => return Ok("user space"),
            (true, true) => return Ok("XDP, then user space"),
            (false, false) if Instant::now() > deadline => return Ok("nobody"),
            (false, false) => thread::sleep(Duration::from_millis(10)),
        }
    }
}
