//! From installation to purge.

use std::ffi::OsString;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use failover_tests::command;
use serde_json::Value;

use crate::{CONFIGURATION, HostWithPackage, sandbox, wait_until};

/// What the administrator has put on the machine, and the package leaves there.
const ADMINISTRATORS: [&str; 3] = [
    "etc/failover",
    "etc/failover/example.com.zone",
    "etc/failover/look-around",
];

/// Settings of the unit that a test needs.
const DROP_IN: &str = "/etc/systemd/system/failover.service.d/test.conf";

/// It runs, and harms nobody; everything is in its place.
pub(crate) fn installed(host: &HostWithPackage<'_>) -> Result<()> {
    host.install()?;
    let machine = &host.machine;
    ensure!(host.unit("UnitFileState")? == "enabled");
    host.wait_for_unit("active")?;
    let status = host.status()?;
    let listen = &status["listen"];
    ensure!(*listen == serde_json::json!(["127.0.0.1:53"]), "{status:#}");
    ensure!(host.programs()? == 0);

    // Without a configuration not even when asked to, but without an error: as at boot.
    let aside = format!("mv {CONFIGURATION} {CONFIGURATION}.away && systemctl restart failover");
    machine.output(&["sh", "-c", &aside])?;
    ensure!(host.unit("ActiveState")? == "inactive");
    ensure!(host.unit("ConditionResult")? == "no");
    ensure!(host.unit("MainPID")? == "0");
    let by_hand = machine.run(&["failover", "run"])?;
    let (code, err) = (by_hand.code, &by_hand.err);
    ensure!(
        code == Some(1) && err.contains(CONFIGURATION),
        "{by_hand:?}"
    );
    let back = format!("mv {CONFIGURATION}.away {CONFIGURATION}");
    machine.output(&["sh", "-c", &back])?;

    ensure!(
        machine
            .output(&["dpkg", "--verify", "failover"])?
            .is_empty()
    );
    let version = machine.output(&["failover", "--version"])?;
    ensure!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");

    for page in [
        "man5/failover.toml.5.gz",
        "man8/failover.8.gz",
        "man8/failover-run.8.gz",
    ] {
        let page = machine.path("/usr/share/man").join(page);
        let mut lint = command::command("mandoc");
        command::output(lint.args(["-T", "lint", "-W", "error,stop"]).arg(page))?;
    }
    Ok(())
}

/// The files in the documentation are right as they are, where failover(8) says to copy them.
pub(crate) fn example_is_a_configuration(host: &HostWithPackage<'_>) -> Result<()> {
    let copy = "cp /usr/share/doc/failover/examples/* /etc/failover/ && failover check";
    host.machine.output(&["sh", "-c", copy]).map(drop)
}

/// `systemctl start` returns when queries are answered, not before.
pub(crate) fn configured_and_started(host: &mut HostWithPackage<'_>) -> Result<()> {
    sandbox::prepare(host)?;
    host.configure(|text| text)?;
    host.machine.output(&["failover", "check"])?;
    let start = host.machine.run(&["systemctl", "start", "failover"])?;
    ensure!(start.code == Some(0), "{start:?}\n{}", host.journal());
    host.answers()?;
    ensure!(host.unit("ActiveState")? == "active");
    ensure!(host.unit("StatusText")? == "answering");
    wait_until("XDP has answered, and user space nothing", || {
        let counters = &host.status()?["counters"];
        Ok(counters["answered"] == 1 && counters["slow_path"] == 0)
    })?;
    let status = host.status()?;
    for interface in status["interfaces"].as_array().context("interfaces")? {
        ensure!(interface["xdp"] == "native", "{status:#}");
    }
    let mode = host
        .machine
        .output(&["stat", "-c", "%a %U:%G", "/run/failover/control.sock"])?;
    ensure!(mode.trim() == "660 root:root", "{mode}");
    Ok(())
}

/// Records have priorities, and their time from the journal alone.
pub(crate) fn log_in_the_journal(host: &HostWithPackage<'_>) -> Result<()> {
    let show = [
        "journalctl",
        "-u",
        "failover",
        "_COMM=failover",
        "-o",
        "json",
    ];
    let records = host.machine.output(&show)?;
    let records: Vec<Value> = records
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let message = |record: &Value| record["MESSAGE"].as_str().unwrap_or_default().to_owned();
    let is_ready = |record: &&Value| message(record).contains(": ready");
    let ready = records.iter().find(is_ready);
    let ready = ready.with_context(|| format!("not ready in {records:#?}"))?;
    ensure!(ready["PRIORITY"] == "6", "{ready:#}");
    let want = "failover::controller::event::log: ready generation=1";
    ensure!(message(ready) == want, "{ready:#}");
    Ok(())
}

/// The other way to attach is open, too.
pub(crate) fn generic_xdp(host: &mut HostWithPackage<'_>) -> Result<()> {
    host.configure(|text| text.replace("[server]\n", "[server]\nxdp = \"generic\"\n"))?;
    host.machine.output(&["systemctl", "restart", "failover"])?;
    host.answers()?;
    let status = host.status()?;
    ensure!(status["interfaces"][0]["xdp"] == "generic", "{status:#}");
    ensure!(host.programs()? == 3);

    // XDP answers on, until it is told not to.
    host.machine.output(&["systemctl", "stop", "failover"])?;
    ensure!(host.unit("Result")? == "success");
    ensure!(host.programs()? == 3, "{}", host.journal());
    host.answers()?;
    host.machine.output(&["failover", "detach"])?;
    ensure!(host.programs()? == 0);
    host.configure(|text| text)?;
    host.machine.output(&["systemctl", "start", "failover"])?;
    host.answers()
}

/// `systemctl reload` has its effect before it returns, and fails when the file is refused.
pub(crate) fn reloaded(host: &mut HostWithPackage<'_>) -> Result<()> {
    let pid = host.unit("MainPID")?;
    host.configure(|text| text.replace("ttl = \"30s\"", "ttl = \"31s\""))?;
    host.machine.output(&["systemctl", "reload", "failover"])?;
    ensure!(host.status()?["services"][0]["ttl"] == 31);
    host.configure(|text| text.replace("ttl = \"30s\"", "ttl = \"soon\""))?;
    let refused = host.machine.run(&["systemctl", "reload", "failover"])?;
    ensure!(refused.code != Some(0), "{refused:?}");
    ensure!(host.unit("ActiveState")? == "active" && host.unit("MainPID")? == pid);
    host.configure(|text| text)?;
    host.machine.output(&["systemctl", "reload", "failover"])?;
    host.answers()
}

/// A daemon without a sign of life is replaced by another, and so is one that was killed.
pub(crate) fn hung_and_killed(host: &mut HostWithPackage<'_>) -> Result<()> {
    let drop_in = host.machine.path(DROP_IN);
    fs::create_dir_all(drop_in.parent().context("a directory")?)?;
    fs::write(&drop_in, "[Service]\nWatchdogSec=5s\n")?;
    host.machine.output(&["systemctl", "daemon-reload"])?;
    host.machine.output(&["systemctl", "restart", "failover"])?;
    for signal in ["STOP", "KILL"] {
        let pid = host.unit("MainPID")?;
        host.machine
            .output(&["kill", &format!("-{signal}"), &pid])?;
        wait_until("another daemon", || {
            Ok(!["0", &pid].contains(&host.unit("MainPID")?.as_str()))
        })
        .with_context(|| host.journal())?;
        host.wait_for_unit("active")?;
        host.answers_again()?;
    }
    let show = ["journalctl", "-u", "failover", "--no-pager"];
    let journal = host.machine.output(&show)?;
    ensure!(journal.contains("Watchdog timeout"), "{journal}");

    fs::remove_file(&drop_in)?;
    fs::remove_dir(drop_in.parent().context("a directory")?)?;
    host.machine
        .output(&["systemctl", "daemon-reload"])
        .map(drop)
}

/// The new version takes over, unless it refuses the configuration or its administrator wants it
/// stopped.
pub(crate) fn upgraded(host: &mut HostWithPackage<'_>) -> Result<()> {
    let first = host.unit("MainPID")?;
    host.install()?;
    host.wait_for_unit("active")?;
    let second = host.unit("MainPID")?;
    ensure!(second != first);
    host.answers()?;

    host.configure(|text| text.replace("[server]\n", "[server]\nunknown = 1\n"))?;
    let warned = host.install()?;
    ensure!(warned.err.contains("no restart"), "{warned:?}");
    ensure!(host.unit("MainPID")? == second);
    host.answers()?;
    host.configure(|text| text)?;

    host.machine
        .output(&["systemctl", "disable", "--now", "failover"])?;
    host.install()?;
    ensure!(host.unit("UnitFileState")? == "disabled");
    ensure!(host.unit("ActiveState")? == "inactive");
    host.machine
        .output(&["systemctl", "enable", "--now", "failover"])?;
    host.answers()
}

/// What remains is what the administrator has put there.
pub(crate) fn removed_and_purged(host: &HostWithPackage<'_>, before: &[OsString]) -> Result<()> {
    let machine = &host.machine;
    machine.output(&["dpkg", "-r", "failover"])?;
    ensure!(host.programs()? == 0);
    ensure!(host.unit("ActiveState")? == "inactive");
    ensure!(machine.run(&["pgrep", "-x", "failover"])?.code == Some(1));
    ensure!(machine.path("/var/lib/failover/state.json").exists());
    ensure!(machine.path(CONFIGURATION).exists());

    machine.output(&["dpkg", "-P", "failover"])?;
    let mut after = machine.files()?;
    after.retain(|path| !before.contains(path));
    ensure!(after == ADMINISTRATORS, "{after:?}");
    Ok(())
}
