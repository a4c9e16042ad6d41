//! What the daemon tells a service manager, heard by one of our own.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use failover_tests::dns::{Client, Rtype};
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Config, Host, Lab, Server};
use failover_tests::privileged;
use failover_tests::reference::{NAME, OFFSITE};
use rustix::process::{Pid, Signal, kill_process};

use crate::site::{BOUND, lab, set};

/// What the manager wants to hear at least every so often, as `WatchdogSec=` has it.
const WATCHDOG: Duration = Duration::from_millis(400);
/// A probe that tells nothing for so long; nothing is published before.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A daemon and the socket that it reports to.
struct Managed<'a> {
    socket: UnixDatagram,
    daemon: Child,
    lab: &'a Lab,
    /// All that was heard, and when.
    heard: Vec<(Instant, String)>,
}

impl<'a> Managed<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        let path = lab.dir().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        let mut run = Command::new(failover_tests::daemon()?);
        run.args(["run", "--xdp", "native", "-c"])
            .arg(lab.config_file())
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        let daemon = lab.start_program("failover", Host::Ns, &mut run)?;
        Ok(Self {
            socket,
            daemon,
            lab,
            heard: Vec::new(),
        })
    }

    /// Listens until a message has this line; `None` when there is none within `bound`.
    fn listen_for(&mut self, line: &str, bound: Duration) -> Result<Option<Instant>> {
        let deadline = Instant::now() + bound;
        let mut message = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let Ok(octets) = self.socket.recv(&mut message) else {
                continue;
            };
            let now = Instant::now();
            let text = std::str::from_utf8(&message[..octets])?;
            let lines = text.lines().map(|line| (now, line.to_owned()));
            self.heard.extend(lines);
            if text.lines().any(|found| found == line) {
                return Ok(Some(now));
            }
        }
    }

    fn wait_for(&mut self, line: &str) -> Result<Instant> {
        let heard = self.listen_for(line, BOUND)?;
        heard.with_context(|| {
            let log = std::fs::read_to_string(self.lab.log("failover")).unwrap_or_default();
            format!("no {line} but {:?}; its log: {log}", self.heard)
        })
    }

    fn heard(&self, start: &str) -> usize {
        let lines = self.heard.iter();
        lines.filter(|(_, line)| line.starts_with(start)).count()
    }
}

#[test]
fn readiness_watchdog_and_end() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = lab(&Config {
        check: format!("timeout = \"{}ms\"", TIMEOUT.as_millis()),
        ..Config::default()
    })?;
    // The first round of probes lasts as long as it may.
    lab.black_hole(Server::WebA)?;
    let mut client = Client::new(&lab.netns(Host::Client))?;
    let begun = Instant::now();
    let mut daemon = Managed::start(&lab)?;

    daemon.wait_for("STATUS=waiting for the first round of probes")?;
    let ready = daemon.wait_for("READY=1")?;
    ensure!(ready - begun >= TIMEOUT, "ready before the first round");
    ensure!(
        daemon.heard("EXTEND_TIMEOUT_USEC=") > 1,
        "{:?}",
        daemon.heard
    );
    // One that was told of it finds answers.
    let reply = client.ask(NS1, NAME, Rtype::A, BOUND)?;
    let reply = reply.context("a query was lost")?;
    ensure!(reply.set() == set(&[OFFSITE]), "{reply:?}");

    let extended = daemon.heard("EXTEND_TIMEOUT_USEC=");
    let mut before = daemon.wait_for("WATCHDOG=1")?;
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let now = daemon.wait_for("WATCHDOG=1")?;
        pauses.push(now - before);
        before = now;
    }
    // Each should be a half of it; but this machine may be busy.
    let shortest = pauses.iter().min().context("pauses")?;
    ensure!(*shortest < WATCHDOG, "{pauses:?}");
    ensure!(daemon.heard("EXTEND_TIMEOUT_USEC=") == extended);
    ensure!(daemon.heard("READY=1") == 1);

    kill_process(Pid::from_child(&daemon.daemon), Signal::TERM)?;
    daemon.wait_for("STOPPING=1")?;
    let ended = daemon.daemon.wait()?;
    ensure!(ended.success(), "{ended}");
    Ok(())
}
