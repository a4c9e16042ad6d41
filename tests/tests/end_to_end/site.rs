//! The lab with a running daemon, and what all tests ask of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use failover_tests::command;
use failover_tests::dig::Dig;
use failover_tests::dns::Client;
use failover_tests::lab::{
    Config, Counters, Daemon, Host, Lab, Options, Output, Purpose, Server, Status,
};
use serde_json::Value;

/// How long anything may take; generous, as the machine may be busy.
pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// The lab in the first state of the reference case: web-a serves and web-b does not.
pub(crate) struct Site {
    // Before the lab, so that it is stopped before that is taken down.
    pub(crate) daemon: Daemon,
    pub(crate) client: Client,
    pub(crate) lab: Lab,
    pub(crate) options: Options,
}

impl Site {
    pub(crate) fn start(mode: &str, config: &Config) -> Result<Self> {
        let lab = lab(config)?;
        Self::start_in(lab, mode)
    }

    /// Starts the daemon in a lab that a test has prepared.
    pub(crate) fn start_in(lab: Lab, mode: &str) -> Result<Self> {
        let options = Options {
            binary: failover_tests::daemon()?,
            xdp: Some(mode.to_owned()),
            more: Vec::new(),
            output: Output::Log,
        };
        let mut daemon = Daemon::start(&lab, &options)?;
        wait_until_ready(&mut daemon)?;
        Ok(Self {
            client: Client::new(&lab.netns(Host::Client))?,
            daemon,
            lab,
            options,
        })
    }

    /// Kills the daemon, and waits until the last of its threads has ended.
    pub(crate) fn crash(&self) -> Result<()> {
        self.daemon.kill()?;
        let socket = self.lab.dir().join("control.sock");
        wait_until("the daemon's socket is closed", || {
            Ok(UnixStream::connect(&socket).is_err())
        })
    }

    /// Starts the daemon again; it must have been stopped before.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.daemon = Daemon::start(&self.lab, &self.options)?;
        wait_until_ready(&mut self.daemon)
    }

    /// Waits until the daemon says that `www` is answered with `want`.
    pub(crate) fn wait_for_answer(&mut self, want: &[IpAddr]) -> Result<Status> {
        let (what, want) = (format!("answer {want:?}"), set(want));
        let wanted = |status: &Status| {
            let www = status.service("www");
            www.is_ok_and(|www| www.answer == want)
        };
        self.daemon.wait_for(&what, BOUND, wanted)
    }

    /// What `dig` on the client prints, taken apart.
    pub(crate) fn dig(&self, server: IpAddr, args: &[&str]) -> Result<Dig> {
        let mut dig = command::command("dig");
        dig.args(["+tries=1", "+timeout=5", &format!("@{server}")])
            .args(args);
        let output = self.lab.netns(Host::Client).output(&mut dig)?;
        Dig::parse(&output).with_context(|| command::display(&dig))
    }

    /// Runs `ask`, which asks `queries` times, and makes sure that XDP has answered each.
    pub(crate) fn answered_by_xdp<T>(
        &mut self,
        queries: u64,
        ask: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let before = self.daemon.status()?.counters;
        let result = ask(self)?;
        let after = self.daemon.status()?.counters;
        let grown = |of: fn(Counters) -> u64| of(after).checked_sub(of(before));
        ensure!(
            grown(|c| c.answered) == Some(queries) && grown(|c| c.slow_path) == Some(0),
            "{queries} queries: {before:?}, then {after:?}"
        );
        Ok(result)
    }

    /// One of the daemon's commands, with `-c FILE`.
    pub(crate) fn failover(&self, args: &[&str]) -> Result<Run> {
        let mut command = Command::new(&self.options.binary);
        command.args(args).arg("-c").arg(self.lab.config_file());
        let output = command.output()?;
        Ok(Run {
            code: output.status.code(),
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    }

    /// The interfaces of the name server that run an XDP program, and which, as the kernel says.
    pub(crate) fn programs(&self) -> Result<BTreeMap<String, Program>> {
        let netns = self.lab.netns(Host::Ns);
        let mut show = command::command("ip");
        show.args(["-n", netns.name(), "-json", "link", "show"]);
        let links: Value = serde_json::from_str(&command::output(&mut show)?)?;
        let links = links.as_array().context("no list of links")?;
        let programs = links.iter().filter_map(|link| {
            let name = link["ifname"].as_str()?.to_owned();
            let mode = match link["xdp"]["mode"].as_u64()? {
                1 => "native",
                2 => "generic",
                _ => "other",
            };
            let id = link["xdp"]["prog"]["id"].as_u64()?;
            Some((name, Program { mode, id }))
        });
        Ok(programs.collect())
    }
}

/// A lab without a daemon, web-b not serving.
pub(crate) fn lab(config: &Config) -> Result<Lab> {
    let serve = vec![OsString::from(env!("CARGO_BIN_EXE_lab-serve"))];
    let lab = Lab::start(Purpose::Test, serve, &[Server::WebB])?;
    lab.configure(config)?;
    Ok(lab)
}

fn wait_until_ready(daemon: &mut Daemon) -> Result<()> {
    let attached = |status: &Status| {
        let mut interfaces = status.interfaces.iter();
        status.generation > 0 && interfaces.all(|interface| interface.xdp != "detached")
    };
    let what = "first publication and attachment";
    daemon.wait_for(what, BOUND, attached).map(drop)
}

/// An XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) mode: &'static str,
    pub(crate) id: u64,
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn set(addresses: &[IpAddr]) -> BTreeSet<IpAddr> {
    addresses.iter().copied().collect()
}

/// Waits until `done`.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + BOUND;
    while !done()? {
        ensure!(Instant::now() < deadline, "not within {BOUND:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
