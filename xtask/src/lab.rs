//! `cargo xtask lab`: operates a running lab from another terminal.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Subcommand, ValueEnum};
use failover_tests::command;
use failover_tests::lab::{Handle, Host, LinkState, Purpose, Server, Wan, clean_stale};

use crate::{cargo, privilege};

/// The lab and what to do with it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The lab's id, where several run
    #[arg(long)]
    id: Option<String>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the running labs
    List,
    /// Remove what labs left behind whose process was killed
    Clean,
    /// Kill a server: its port refuses connections
    Kill { server: Server },
    /// Start a server again, or take it out of its black hole
    Revive { server: Server },
    /// Make a server's host discard all packets: connections time out
    BlackHole { server: Server },
    /// Change the state of WAN link 1
    Wan1 { state: Link },
    /// Change the state of WAN link 2
    Wan2 { state: Link },
    /// Run dig on the client; asks 198.51.100.130 unless told otherwise
    #[command(disable_help_flag = true)]
    Dig {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run dnsperf on the client with the lab's queries
    #[command(disable_help_flag = true)]
    Dnsperf {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run a program on a host
    Exec {
        host: Host,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Any command of the daemon, such as status, explain or stats
    #[command(external_subcommand)]
    Daemon(Vec<OsString>),
}

/// What a link shall do.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Link {
    /// Work
    Up,
    /// Lose the carrier
    Down,
    /// Keep the carrier, but discard all that leaves by it
    BlackHole,
}

impl From<Link> for LinkState {
    fn from(link: Link) -> Self {
        match link {
            Link::Up => Self::Up,
            Link::Down => Self::Down,
            Link::BlackHole => Self::BlackHole,
        }
    }
}

/// Does what was asked for.
pub(crate) fn lab(args: Args) -> Result<()> {
    let own: Vec<String> = std::env::args().skip(1).collect();
    privilege::ensure_root(&own.iter().map(String::as_str).collect::<Vec<_>>())?;
    let find = || find(args.id.as_deref());
    match args.action {
        Action::List => list(),
        Action::Clean => clean(),
        Action::Kill { server } => find()?.kill(server),
        Action::Revive { server } => find()?.revive(server),
        Action::BlackHole { server } => find()?.black_hole(server),
        Action::Wan1 { state } => find()?.set_link(Wan::Wan1, state.into()),
        Action::Wan2 { state } => find()?.set_link(Wan::Wan2, state.into()),
        Action::Dig { args } => {
            let mut dig = command::command("dig");
            if !args.iter().any(|arg| arg.starts_with('@')) {
                dig.arg("@198.51.100.130");
            }
            exec(&find()?, Host::Client, dig.args(args))
        }
        Action::Dnsperf { args } => {
            let lab = find()?;
            let mut dnsperf = command::command("dnsperf");
            dnsperf
                .args(["-s", "198.51.100.130", "-d"])
                .arg(lab.dir().join("queries.txt"));
            exec(&lab, Host::Client, dnsperf.args(args))
        }
        Action::Exec { host, command } => {
            let mut program = Command::new(&command[0]);
            exec(&find()?, host, program.args(&command[1..]))
        }
        Action::Daemon(args) => {
            let mut failover = Command::new(cargo::daemon());
            exec(
                &find()?,
                Host::Ns,
                failover.args(args).arg("-c").arg(find()?.config_file()),
            )
        }
    }
}

fn find(id: Option<&str>) -> Result<Handle> {
    match id {
        Some(id) => Handle::open(id),
        None => Handle::all()
            .into_iter()
            .next()
            .context("no lab runs; start one with `cargo xtask run`"),
    }
}

/// Becomes the program, on the host.
fn exec(lab: &Handle, host: Host, command: &mut Command) -> Result<()> {
    lab.netns(host).move_into()?;
    let line = command::display(command);
    Err(command.exec()).with_context(|| format!("cannot run `{line}`"))
}

fn list() -> Result<()> {
    let labs = Handle::all();
    if labs.is_empty() {
        println!("no lab runs");
    }
    for lab in labs {
        let purpose = match lab.purpose() {
            Purpose::Run => "cargo xtask run",
            Purpose::Bench => "cargo xtask bench",
            Purpose::Demo => "cargo xtask demo",
            Purpose::Test => "a test",
        };
        println!("{} ({purpose}), files in {}", lab.id(), lab.dir().display());
        for host in Host::ALL {
            println!(
                "  host    {host:<9} nsenter --net={}",
                lab.netns(host).path().display()
            );
        }
        for server in Server::ALL {
            let state = if lab.serves(server) {
                "serves"
            } else {
                "killed"
            };
            println!("  server  {:<9} {state}", server.name());
        }
    }
    Ok(())
}

fn clean() -> Result<()> {
    let cleaned = clean_stale()?;
    if cleaned.is_empty() {
        println!("nothing to clean");
    }
    for id in cleaned {
        println!("removed lab {id}");
    }
    Ok(())
}
