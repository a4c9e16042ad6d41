//! The daemon in the lab.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::processes::{self, Stop};
use super::{Handle, Host};
use crate::command;

/// The name of the daemon's process record and log.
pub(super) const PROCESS: &str = "failover";

/// How the daemon is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `failover` binary.
    pub binary: PathBuf,
    /// `--xdp`; as configured where `None`.
    pub xdp: Option<String>,
    /// Further options of `failover run`.
    pub more: Vec<String>,
    /// Where its logs go.
    pub output: Output,
}

/// Where the daemon's logs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// To our own terminal.
    Terminal,
    /// To `logs/failover` in the lab's directory.
    Log,
}

/// A daemon running in `ns`; stopped when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    lab: Handle,
    binary: PathBuf,
    child: Child,
}

/// What `failover status --json` says, as far as it is needed here.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// The number of the published snapshot.
    pub generation: u64,
    /// Interfaces with the XDP program.
    pub interfaces: Vec<XdpInterface>,
    /// What is answered.
    pub services: Vec<Service>,
    /// The WAN links.
    pub wans: Vec<WanStatus>,
    /// Who answered how much.
    pub counters: Counters,
}

/// An interface with the XDP program.
#[derive(Clone, Debug, Deserialize)]
pub struct XdpInterface {
    /// Its name.
    pub name: String,
    /// The mode: `native` or `generic`.
    pub xdp: String,
}

/// A service and its answer.
#[derive(Clone, Debug, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The addresses that are answered.
    pub answer: BTreeSet<IpAddr>,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
}

/// A server and its state.
#[derive(Clone, Debug, Deserialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: String,
    /// `up`, `down`, …
    pub effective: String,
}

/// A WAN link and its state.
#[derive(Clone, Debug, Deserialize)]
pub struct WanStatus {
    /// Its name.
    pub name: String,
    /// `up` or `down`.
    pub effective: String,
}

/// The data plane's counters.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Counters {
    /// Queries that XDP answered.
    pub answered: u64,
    /// Queries that user space answered.
    pub slow_path: u64,
}

impl Status {
    /// The service of that name.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn service(&self, name: &str) -> Result<&Service> {
        let found = self.services.iter().find(|service| service.name == name);
        found.with_context(|| format!("status has no service {name:?}"))
    }
}

impl Daemon {
    /// Starts `failover run` with the lab's configuration file.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(lab: &Handle, options: &Options) -> Result<Self> {
        let mut command = Command::new(&options.binary);
        command.arg("run").arg("-c").arg(lab.config_file());
        if let Some(mode) = &options.xdp {
            command.args(["--xdp", mode]);
        }
        command.args(&options.more);
        let child = match options.output {
            Output::Log => processes::start(lab, PROCESS, Host::Ns, &mut command)?,
            Output::Terminal => {
                use std::os::unix::process::CommandExt as _;
                // Not in our process group: Ctrl-C reaches us, and we stop it.
                command.process_group(0).stdin(Stdio::null());
                processes::spawn(lab, PROCESS, Host::Ns, &mut command)?
            }
        };
        Ok(Self {
            lab: lab.clone(),
            binary: options.binary.clone(),
            child,
        })
    }

    /// The `failover` binary.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Asks the daemon for its status.
    ///
    /// # Errors
    ///
    /// When it does not answer, or not as documented.
    pub fn status(&self) -> Result<Status> {
        let json = self.query(&["status", "--json"])?;
        serde_json::from_str(&json).with_context(|| format!("unexpected status: {json}"))
    }

    /// Runs one of the daemon's commands with `-c FILE` and returns what it prints.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn query(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command::output(command.args(args).arg("-c").arg(self.lab.config_file()))
    }

    /// Waits until the status is as wanted, and returns it.
    ///
    /// # Errors
    ///
    /// When it is not within `bound`, or when the daemon ends; `what` says what was waited for.
    pub fn wait_for(
        &mut self,
        what: &str,
        bound: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        let deadline = Instant::now() + bound;
        loop {
            let last = self.status();
            match &last {
                Ok(status) if wanted(status) => return last,
                _ => {}
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "the daemon ended ({status}) while waiting for {what}{}",
                    self.log_tail()
                );
            }
            if Instant::now() > deadline {
                let last =
                    last.map_or_else(|error| format!("{error:#}"), |last| format!("{last:?}"));
                bail!(
                    "no {what} within {bound:?}; last status: {last}{}",
                    self.log_tail()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the daemon to end by itself.
    ///
    /// # Errors
    ///
    /// When the system cannot say.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Sends SIGTERM, as a service manager would, and nothing harsher; returns how it ended.
    ///
    /// # Errors
    ///
    /// When it does not end within `bound`.
    pub fn terminate(&mut self, bound: Duration) -> Result<ExitStatus> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let deadline = Instant::now() + bound;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!(
                    "SIGTERM does not end it within {bound:?}{}",
                    self.log_tail()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The id of the daemon's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How much CPU time it has used.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn cpu_time(&self) -> Result<Duration> {
        processes::cpu_time(self.pid()).context("the daemon does not run")
    }

    /// Stops the daemon and waits for its end.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn stop(&self) -> Result<()> {
        self.end(Stop::Politely)
    }

    /// Kills the daemon, as a crash would.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn kill(&self) -> Result<()> {
        self.end(Stop::Kill)
    }

    /// Ends this daemon; one that was started after it is left alone.
    fn end(&self, how: Stop) -> Result<()> {
        if processes::running(&self.lab, PROCESS) == Some(self.pid()) {
            processes::stop(&self.lab, PROCESS, how)?;
        }
        Ok(())
    }

    /// The last lines that it logged, where they go to a file.
    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.lab.log(PROCESS)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(15)..];
        if tail.is_empty() {
            String::new()
        } else {
            format!("; its log ends\n{}", tail.join("\n"))
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end(Stop::Politely).ok();
    }
}
