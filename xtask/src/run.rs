//! `cargo xtask run`: the daemon in the lab, or on this host.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use failover_tests::lab::{Config, Daemon, Host, Lab, Options, Output, Purpose};

use crate::{Xdp, cargo, privilege, setup};

/// How long the daemon may take until it answers; generous.
const READY: Duration = Duration::from_secs(20);

/// Runs the daemon on this host in place of this process.
pub(crate) fn on_this_host(args: &[OsString]) -> Result<()> {
    setup::ensure(&[setup::Need::Build])?;
    let daemon = cargo::build_daemon()?;
    let mut command = if privilege::is_root() {
        Command::new(daemon)
    } else {
        let mut sudo = privilege::as_root("env")?;
        sudo.arg(daemon);
        sudo
    };
    Err(command.arg("run").args(args).exec()).context("cannot run the daemon")
}

/// Builds the lab and runs the daemon in it until Ctrl-C.
pub(crate) fn in_the_lab(xdp: Option<Xdp>, built: bool) -> Result<()> {
    let binary = prepare(built)?;
    let mut args = vec!["run", "--built"];
    args.extend(xdp.iter().flat_map(|xdp| ["--xdp", xdp.name()]));
    privilege::ensure_root(&args)?;

    let lab = Lab::start(Purpose::Run, serve_program()?, &[])?;
    lab.configure(&Config {
        extra: "\n[port_forward]\nenabled = true\n".to_owned(),
        ..Config::default()
    })?;
    let options = Options {
        binary,
        xdp: xdp.map(|xdp| xdp.name().to_owned()),
        more: Vec::new(),
        output: Output::Terminal,
    };
    let mut daemon = Daemon::start(&lab, &options)?;
    daemon.wait_for("first publication", READY, |status| status.generation > 0)?;
    print_guide(&lab);

    let status = daemon.wait()?;
    // After Ctrl-C this does not return: the lab is being taken down, and then we exit.
    drop(lab);
    if !status.success() {
        bail!("the daemon ended: {status}");
    }
    println!("the daemon ended");
    Ok(())
}

/// Sets up and builds, unless that was done before we became root; returns the daemon.
pub(crate) fn prepare(built: bool) -> Result<std::path::PathBuf> {
    if built {
        return Ok(cargo::daemon());
    }
    setup::ensure(&[setup::Need::Build, setup::Need::Lab])?;
    cargo::build_daemon()
}

/// The program of the lab's TCP servers: ourselves.
pub(crate) fn serve_program() -> Result<Vec<OsString>> {
    Ok(vec![std::env::current_exe()?.into(), "serve".into()])
}

fn print_guide(lab: &Lab) {
    let client = lab.netns(Host::Client);
    println!(
        "
The lab is up. In another terminal, as root, in this directory:

  cargo xtask lab dig www.example.com          ask from the client (@198.51.100.130 by default)
  cargo xtask lab dig @2001:db8:2::66 dual.example.com AAAA
  cargo xtask lab exec client curl -s http://198.51.100.134     connect: port forwarding leads to web-a
  cargo xtask lab kill web-a                   the answer stays: web-b takes over behind it
  cargo xtask lab kill web-b                   … now 192.0.2.200 is answered
  cargo xtask lab revive web-a
  cargo xtask lab black-hole web-a             as a dead machine: probes time out; revive undoes it
  cargo xtask lab wan1 down                    … only 203.0.113.70 is answered; up, black-hole
  cargo xtask lab status                       what the daemon thinks; any other of its commands too
  cargo xtask lab dnsperf -l 5                 queries as fast as dnsperf can
  cargo xtask lab exec client bash             a shell on a host: client, ns, inet, web-a, web-b, offsite
  bpftool map                                  the maps; then: bpftool map dump name NAME

The same by hand:  nsenter --net={} dig @198.51.100.130 www.example.com
Configuration:     {}
Ctrl-C takes everything down.
",
        client.path().display(),
        lab.config_file().display(),
    );
}
