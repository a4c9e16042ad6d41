//! The package on a machine of its own: installed, configured, run by systemd, upgraded, removed.
//!
//! `cargo xtask dist --test` makes package and machine and names them by variables.

mod life;
mod machine;
mod sandbox;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use failover_tests::dns::{Client, Rtype};
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Config, Host, Lab, Purpose, Server};
use failover_tests::reference::{NAME, WAN1, WAN2};
use failover_tests::{command, package, privileged};
use serde_json::Value;

use machine::{Machine, Run};

/// How long anything may take; generous, as the machine may be busy.
const BOUND: Duration = Duration::from_secs(30);

/// Where the package looks for its configuration.
const CONFIGURATION: &str = "/etc/failover/failover.toml";

#[test]
fn the_package_on_a_machine() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let (Some(package), Some(archive)) = (named(package::PACKAGE), named(package::MACHINE)) else {
        eprintln!("skipped: needs a package; run it with `cargo xtask dist --test`");
        return Ok(());
    };
    let serve = vec![OsString::from(env!("CARGO_BIN_EXE_lab-serve"))];
    let lab = Lab::start(Purpose::Test, serve, &[Server::WebB])?;
    let machine = Machine::boot(&lab, &archive)?;
    fs::copy(&package, machine.path("/root/failover.deb"))?;
    let mut host = HostWithPackage {
        client: Client::new(&lab.netns(Host::Client))?,
        lab: &lab,
        machine,
    };
    let before = host.machine.files()?;

    life::installed(&host)?;
    sandbox::unit_as_analysed(&host)?;
    life::example_is_a_configuration(&host)?;
    life::configured_and_started(&mut host)?;
    sandbox::daemon_in_its_confines(&host)?;
    sandbox::nft_within_the_same_confines(&host)?;
    life::log_in_the_journal(&host)?;
    life::generic_xdp(&mut host)?;
    life::reloaded(&mut host)?;
    life::hung_and_killed(&mut host)?;
    life::upgraded(&mut host)?;
    life::removed_and_purged(&host, &before)
}

/// The file that a variable names.
fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// The machine in its network.
struct HostWithPackage<'a> {
    // Before the lab's own end, as it is in there.
    machine: Machine<'a>,
    client: Client,
    lab: &'a Lab,
}

impl HostWithPackage<'_> {
    /// Puts the reference case into the machine's configuration, with everything in its default
    /// place.
    fn configure(&self, edit: impl Fn(String) -> String) -> Result<()> {
        let config = Config {
            extra: sandbox::CHECKED_FROM_INSIDE.to_owned(),
            ..Config::default()
        };
        let text = config.render(self.lab.dir(), &self.lab.bpf_dir());
        let places = ["control_socket", "state_dir", "bpf_dir"];
        let lines = text
            .lines()
            .filter(|line| !places.iter().any(|place| line.starts_with(place)));
        let text: String = lines.flat_map(|line| [line, "\n"]).collect();
        fs::write(self.machine.path(CONFIGURATION), edit(text))?;
        fs::copy(
            self.lab.dir().join("example.com.zone"),
            self.machine.path("/etc/failover/example.com.zone"),
        )?;
        Ok(())
    }

    fn install(&self) -> Result<Run> {
        let run = self.machine.run(&["dpkg", "-i", "/root/failover.deb"])?;
        ensure!(run.code == Some(0), "{run:?}");
        Ok(run)
    }

    /// A property of the unit.
    fn unit(&self, property: &str) -> Result<String> {
        let show = ["systemctl", "show", "-P", property, "failover"];
        Ok(self.machine.output(&show)?.trim().to_owned())
    }

    /// Waits until the unit is in that state.
    fn wait_for_unit(&self, state: &str) -> Result<()> {
        wait_until(&format!("failover.service is {state}"), || {
            Ok(self.unit("ActiveState")? == state)
        })
        .with_context(|| self.journal())
    }

    fn journal(&self) -> String {
        let show = ["journalctl", "--no-pager", "-n", "30"];
        self.machine.output(&show).unwrap_or_default()
    }

    fn status(&self) -> Result<Value> {
        let status = self.machine.output(&["failover", "status", "--json"])?;
        serde_json::from_str(&status).context(status)
    }

    /// The client gets the addresses of both links, at once.
    fn answers(&mut self) -> Result<()> {
        let reply = self.client.ask(NS1, NAME, Rtype::A, BOUND)?;
        let reply = reply.context("a query was lost")?;
        ensure!(
            reply.set() == BTreeSet::from([WAN1, WAN2]),
            "{reply:?}\n{}",
            self.journal()
        );
        Ok(())
    }

    /// The client gets them after a while.
    fn answers_again(&mut self) -> Result<()> {
        let want: BTreeSet<IpAddr> = BTreeSet::from([WAN1, WAN2]);
        let answered = self.client.time_until(NS1, NAME, Rtype::A, &want, BOUND);
        answered.map(drop).with_context(|| self.journal())
    }

    /// How many interfaces of the machine have an XDP program.
    fn programs(&self) -> Result<usize> {
        let netns = self.lab.netns(Host::Ns);
        let mut show = command::command("ip");
        show.args(["-n", netns.name(), "-json", "link", "show"]);
        let links: Value = serde_json::from_str(&command::output(&mut show)?)?;
        let links = links.as_array().context("no list of links")?;
        Ok(links
            .iter()
            .filter(|link| link.get("xdp").is_some())
            .count())
    }
}

/// Waits until `done`.
fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + BOUND;
    while !done()? {
        ensure!(Instant::now() < deadline, "not within {BOUND:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
