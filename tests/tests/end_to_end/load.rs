//! `dnsperf` while the answer changes all the time.

use std::fs;
use std::io::Read as _;
use std::process::{Child, Stdio};
use std::thread;

use anyhow::{Context as _, Result};
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Config, Host, Server};
use failover_tests::reference::{OFFSITE, WAN1, WAN2};
use failover_tests::{command, privileged};
use rustix::process::{Pid, Signal, kill_process};

use crate::site::{Site, wait_until};

#[test]
fn no_query_is_lost_while_a_server_flaps() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let mut site = Site::start(
        "native",
        &Config {
            check: "interval = \"100ms\"\nfall = 2".to_owned(),
            ..Config::default()
        },
    )?;
    let before = site.daemon.status()?;

    let client = site.lab.netns(Host::Client);
    let mut dnsperf = command::command("dnsperf");
    dnsperf
        .args(["-s", &NS1.to_string(), "-l", "3", "-c", "4", "-e", "-d"])
        .arg(site.lab.dir().join("queries.txt"))
        // Leaves the daemon something of a small machine.
        .args(["-Q", "50000"]);
    let mut flaps = 0;
    let report = thread::scope(|scope| {
        let dnsperf = scope.spawn(|| client.output(&mut dnsperf));
        while !dnsperf.is_finished() {
            site.lab.kill(Server::WebA)?;
            site.wait_for_answer(&[OFFSITE])?;
            site.lab.revive(Server::WebA)?;
            site.wait_for_answer(&[WAN1, WAN2])?;
            flaps += 1;
        }
        dnsperf.join().expect("dnsperf does not panic")
    })?;
    let after = site.daemon.status()?;

    let sent = number(&report, "Queries sent:")?;
    println!(
        "{sent} queries, {flaps} flaps, generations {} to {}",
        before.generation, after.generation
    );
    assert!(sent > 0, "{report}");
    assert_eq!(number(&report, "Queries completed:")?, sent, "{report}");
    assert_eq!(number(&report, "Queries lost:")?, 0, "{report}");
    let codes = field(&report, "Response codes:")?;
    assert_eq!(codes, format!("NOERROR {sent} (100.00%)"), "{report}");
    let (before, after) = (before.counters, after.counters);
    assert_eq!(after.answered - before.answered, sent);
    assert_eq!(after.slow_path, before.slow_path);
    Ok(())
}

/// Has dnsperf ask these queries, so many a second, until it is [`stop`]ped. Returns when XDP has
/// answered the first of them.
pub(crate) fn start(site: &Site, queries: &str, rate: u32) -> Result<Child> {
    let before = site.daemon.status()?.counters.answered;
    let file = site.lab.dir().join("queries.txt");
    fs::write(&file, queries)?;
    let mut dnsperf = command::command("dnsperf");
    dnsperf
        .args(["-s", &NS1.to_string(), "-l", "600", "-c", "4", "-e"])
        .args(["-Q", &rate.to_string(), "-d"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let dnsperf = site
        .lab
        .start_piped("dnsperf", Host::Client, &mut dnsperf)?;
    wait_until("dnsperf asks", || {
        Ok(site.daemon.status()?.counters.answered > before + u64::from(rate))
    })?;
    Ok(dnsperf)
}

/// Ends dnsperf, and returns its report.
pub(crate) fn stop(mut dnsperf: Child) -> Result<String> {
    kill_process(Pid::from_child(&dnsperf), Signal::INT)?;
    let mut report = String::new();
    let mut out = dnsperf.stdout.take().context("no output")?;
    out.read_to_string(&mut report)?;
    dnsperf.wait()?;
    Ok(report)
}

/// What stands after `name` in a report of dnsperf.
pub(crate) fn field<'a>(report: &'a str, name: &str) -> Result<&'a str> {
    let mut lines = report.lines();
    let field = lines.find_map(|line| line.trim().strip_prefix(name));
    let field = field.with_context(|| format!("no {name:?} in {report}"))?;
    Ok(field.trim())
}

/// The number after `name`.
pub(crate) fn number(report: &str, name: &str) -> Result<u64> {
    let word = field(report, name)?.split_whitespace().next();
    Ok(word.context("a field without value")?.parse()?)
}
