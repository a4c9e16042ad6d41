//! `docs/operators-day.md`: an operator's day, played through in the lab.
//!
//! The file is its own script, as that of the [`transcripts`](super). Beside commands it has
//! comments that a reader of the page does not see, each on a line of its own:
//!
//! | comment | what it does |
//! |---|---|
//! | `<!-- lab: kill web-a -->` | `kill`, `revive` or `black-hole` a server; or a link: `wan1 down`, `up`, `black-hole` |
//! | `<!-- until: www 192.0.2.200 -->` | waits until the service is answered with just these addresses |
//! | `<!-- until: wan1 down -->` | waits for the state of a link, or of a server: `www/web-a up` |
//!
//! Commands are `failover …`, as on the host of the daemon; `dig …`, as on a client; and `sed …`,
//! `nft …` in the directory of the configuration. The page shows what they really printed. Two
//! runs are the same if they differ in times only: see [`essence`].

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Block, docs};
use crate::command;
use crate::lab::{Daemon, Handle, Host, LinkState, Server, ServerStatus, Status, Wan};

/// How long a failover, or anything else that is waited for, may take.
const BOUND: Duration = Duration::from_secs(20);
/// Where a reader has the configuration.
const DIRECTORY: &str = "/etc/failover";

/// The file.
#[must_use]
pub fn file() -> PathBuf {
    docs().join("operators-day.md")
}

/// Plays the day and returns the text with what the commands have printed.
///
/// # Errors
///
/// When a step cannot be done, or what it waits for does not come.
pub fn renew(text: &str, lab: &Handle, daemon: &mut Daemon) -> Result<String> {
    let mut renewed = String::new();
    let mut block = Block::Prose;
    for (number, line) in (1..).zip(text.lines()) {
        let place = || format!("line {number}: {line}");
        block = block.after(line);
        match line.strip_prefix("$ ") {
            Some(command) if block == Block::Console => {
                let output = run(lab, daemon, command).with_context(place)?;
                if !renewed.ends_with("```console\n") {
                    renewed.push('\n');
                }
                write!(renewed, "$ {command}\n{output}")?;
            }
            _ if block == Block::Console && !line.starts_with("```") => {}
            _ => {
                if block == Block::Prose {
                    step(lab, daemon, line).with_context(place)?;
                }
                writeln!(renewed, "{line}")?;
            }
        }
    }
    ensure!(block == Block::Prose, "a block that does not end");
    Ok(renewed)
}

/// What two runs have in common: each number is a `#`, be it a time, a duration or a count, but for
/// addresses; and columns may be narrower or wider.
#[must_use]
pub fn essence(line: &str) -> String {
    let word = |word: &str| {
        let is_address = word
            .trim_matches(|c: char| !c.is_ascii_alphanumeric())
            .split(['/', ':'])
            .next()
            .is_some_and(|start| start.parse::<IpAddr>().is_ok());
        if is_address {
            return word.to_owned();
        }
        let mut essence = String::new();
        // 1h02m, 59m58s, 0.31 and 12 are all the same.
        for c in word.chars() {
            let is_time = c.is_ascii_digit() || essence.ends_with('#') && "dhms.:-TZ".contains(c);
            match (is_time, essence.ends_with('#')) {
                (true, true) => {}
                (true, false) => essence.push('#'),
                (false, _) => essence.push(c),
            }
        }
        essence
    };
    line.split_whitespace()
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Does what a comment says.
fn step(lab: &Handle, daemon: &mut Daemon, line: &str) -> Result<()> {
    let Some(comment) = line
        .strip_prefix("<!-- ")
        .and_then(|rest| rest.strip_suffix(" -->"))
    else {
        return Ok(());
    };
    let (kind, rest) = comment
        .split_once(": ")
        .context("a comment without a colon")?;
    let (first, rest) = rest.split_once(' ').context("a comment of one word")?;
    match kind {
        "lab" => {
            if let Some(wan) = link(first) {
                return lab.set_link(wan, link_state(rest)?);
            }
            let server: Server = rest.parse().map_err(anyhow::Error::msg)?;
            match first {
                "kill" => lab.kill(server),
                "revive" => lab.revive(server),
                "black-hole" => lab.black_hole(server),
                _ => bail!("nothing that can be done to a server"),
            }
        }
        "until" => {
            if let Some(wan) = link(first) {
                let is_so = |status: &Status| {
                    let mut wans = status.wans.iter();
                    wans.any(|link| link.name == wan.name() && link.effective == rest)
                };
                return daemon.wait_for(comment, BOUND, is_so).map(drop);
            }
            if let Some((service, name)) = first.split_once('/') {
                let is_so = |status: &Status| {
                    let servers = status.service(service).map(|found| &found.servers);
                    let is_so =
                        |server: &ServerStatus| server.name == name && server.effective == rest;
                    servers.is_ok_and(|servers| servers.iter().any(is_so))
                };
                return daemon.wait_for(comment, BOUND, is_so).map(drop);
            }
            let addresses: Result<BTreeSet<IpAddr>, _> = rest.split(' ').map(str::parse).collect();
            let addresses = addresses?;
            let is_answered = |status: &Status| {
                let service = status.service(first);
                service.is_ok_and(|service| service.answer == addresses)
            };
            daemon.wait_for(comment, BOUND, is_answered).map(drop)
        }
        _ => bail!("neither lab nor until"),
    }
}

fn link(name: &str) -> Option<Wan> {
    [Wan::Wan1, Wan::Wan2]
        .into_iter()
        .find(|wan| wan.name() == name)
}

fn link_state(word: &str) -> Result<LinkState> {
    Ok(match word {
        "up" => LinkState::Up,
        "down" => LinkState::Down,
        "black-hole" => LinkState::BlackHole,
        _ => bail!("no state of a link"),
    })
}

/// What a command prints, as a reader would see it.
fn run(lab: &Handle, daemon: &Daemon, line: &str) -> Result<String> {
    let (program, rest) = line.split_once(' ').unwrap_or((line, ""));
    let dir = lab.dir();
    let mut shell = command::command("sh");
    shell.arg("-c").current_dir(dir);
    let host = match program {
        "failover" => {
            // Its options may stand anywhere behind the name of the command.
            let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let file = lab.config_file();
            shell.arg(format!("\"$0\" {verb} -c \"$1\" {rest}"));
            shell.arg(daemon.binary()).arg(file);
            Host::Ns
        }
        "dig" => {
            shell.arg(line).env("HOME", dir);
            Host::Client
        }
        "sed" | "nft" => {
            shell.arg(line);
            Host::Ns
        }
        _ => bail!("{program:?} is not known here"),
    };
    let output = text(lab, host, &mut shell)?;
    let shown = output.replace(&dir.display().to_string(), DIRECTORY);
    Ok(if program == "dig" {
        sorted(&shown)
    } else {
        shown
    })
}

/// Both outputs: a refusal is worth seeing, too.
fn text(lab: &Handle, host: Host, command: &mut Command) -> Result<String> {
    let output = lab.netns(host).enter(|| command.output().context("sh"))?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    Ok(if text.is_empty() || text.ends_with('\n') {
        text
    } else {
        text + "\n"
    })
}

/// Addresses take turns.
fn sorted(output: &str) -> String {
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    lines.iter().flat_map(|line| [*line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_do_not_count() {
        for (a, b, same) in [
            (
                "www  backup  30   1m00s  192.0.2.1",
                "www backup 30 2s 192.0.2.1",
                true,
            ),
            ("www  192.0.2.1", "www  192.0.2.2", false),
            (
                "since 2026-11-22T10:00:00Z",
                "since 2026-11-23T11:12:13Z",
                true,
            ),
            ("web-a down", "web-a up", false),
            (
                "a 192.168.10.10:80 0.31 ms",
                "a 192.168.10.10:80 12 ms",
                true,
            ),
            ("2h00m left", "1h59m left", true),
        ] {
            assert_eq!(
                essence(a) == essence(b),
                same,
                "{a:?} and {b:?}: {:?}",
                essence(a)
            );
        }
    }
}
