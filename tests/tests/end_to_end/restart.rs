//! The daemon's end, by request and by crash, and its next beginning.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Result, ensure};
use failover_tests::dns::Rtype;
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Config, Server};
use failover_tests::privileged;
use failover_tests::reference::{NAME, OFFSITE};

use crate::load::{self, field, number};
use crate::site::{BOUND, Site, lab, set, wait_until};

/// Probes that tell nothing within [`BOUND`] unless they are answered at once.
const SLOW: &str = "interval = \"60s\"\nfastinter = \"60s\"\ntimeout = \"60s\"";

#[test]
fn stop_crash_and_start() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let config = Config {
        check: SLOW.to_owned(),
        ..Config::default()
    };
    let lab = lab(&config)?;
    lab.kill(Server::WebA)?;
    let mut site = Site::start_in(lab, "native")?;
    let first = site.wait_for_answer(&[OFFSITE])?;
    let interfaces = first.interfaces.len();
    assert_eq!(site.programs()?.len(), interfaces);
    let socket = site.lab.dir().join("control.sock");
    assert!(socket.exists());

    let ended = site.daemon.terminate(BOUND)?;
    assert!(ended.success(), "{ended}");
    assert!(!socket.exists());
    // XDP goes on with what it has.
    assert_eq!(site.programs()?.len(), interfaces);
    still_offsite(&mut site)?;

    // Now no probe of web-a ends: what is answered comes from before.
    site.lab.revive(Server::WebA)?;
    site.lab.black_hole(Server::WebA)?;
    let left = site.programs()?;
    site.start_again()?;
    let second = answers_offsite(&mut site)?;
    assert!(second > first.generation, "{second} after {first:?}");
    let programs = site.programs()?;
    assert!(
        left.iter().all(|(name, old)| programs[name].id != old.id),
        "{left:?}, then {programs:?}"
    );

    site.crash()?;
    still_offsite(&mut site)?;
    site.start_again()?;
    let third = answers_offsite(&mut site)?;
    assert!(third > second, "{third} after {second}");
    // Of the daemons before nothing is left.
    let pins = fs::read_dir(site.lab.bpf_dir())?;
    let pins: Vec<_> = pins
        .map(|pin| Ok(pin?.file_name()))
        .collect::<Result<_>>()?;
    assert_eq!(pins.len(), interfaces + 1, "{pins:?}");
    Ok(())
}

/// While there is no daemon.
fn still_offsite(site: &mut Site) -> Result<()> {
    // Answered by the program that the other one leads to.
    let reply = site.client.ask(NS1, NAME, Rtype::TXT, BOUND)?;
    ensure!(
        reply.as_ref().map(|reply| reply.set()) == Some(set(&[])),
        "{reply:?}"
    );
    let reply = site.client.ask(NS1, NAME, Rtype::A, BOUND)?;
    ensure!(
        reply.as_ref().map(|reply| reply.set()) == Some(set(&[OFFSITE])),
        "{reply:?}"
    );
    Ok(())
}

/// Not a query, by daemons that come and go; but not for ever.
#[test]
fn no_query_is_lost_by_restarts() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let mut site = Site::start("native", &Config::default())?;
    // The last one is not usual.
    let queries = "www.example.com A\ndual.example.com AAAA\nwww.example.com TXT\n";
    let dnsperf = load::start(&site, queries, 5000)?;
    for round in 0..4 {
        if round % 2 == 0 {
            site.daemon.terminate(BOUND)?;
        } else {
            site.crash()?;
        }
        site.start_again()?;
        // Each answers, and is not only there.
        wait_until("the next one is asked", || {
            Ok(site.daemon.status()?.counters.answered > 1000)
        })?;
    }
    let report = load::stop(dnsperf)?;
    assert_eq!(number(&report, "Queries lost:")?, 0, "{report}");
    let completed = number(&report, "Queries completed:")?;
    let codes = field(&report, "Response codes:")?;
    assert_eq!(codes, format!("NOERROR {completed} (100.00%)"), "{report}");
    Ok(())
}

/// What an earlier daemon has left is not in the way, and does not stay where it is not wanted.
#[test]
fn nothing_stays_that_is_not_wanted() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let mut site = Site::start("native", &Config::default())?;
    let all = site.programs()?;
    site.crash()?;

    // Another mode, and one interface less.
    let file = site.lab.config_file();
    let configuration = fs::read_to_string(&file)?;
    ensure!(configuration.contains(", \"oob\"]"), "{configuration}");
    fs::write(&file, configuration.replace(", \"oob\"]", "]"))?;
    site.options.xdp = Some("generic".to_owned());
    site.start_again()?;
    let generic = site.programs()?;
    assert_eq!(generic.len(), all.len() - 1);
    let is_generic = generic.values().all(|program| program.mode == "generic");
    assert!(is_generic, "{generic:?}");

    // No program at all.
    site.crash()?;
    site.options.xdp = Some("off".to_owned());
    site.start_again()?;
    wait_until("no program", || Ok(site.programs()?.is_empty()))?;

    // A daemon that is to leave nothing.
    site.daemon.terminate(BOUND)?;
    fs::write(&file, &configuration)?;
    site.options.xdp = Some("native".to_owned());
    site.options.more = vec!["--detach-on-exit".to_owned()];
    site.start_again()?;
    assert_eq!(site.programs()?.len(), all.len());
    site.daemon.terminate(BOUND)?;
    assert_eq!(site.programs()?, BTreeMap::new());

    // Detached: by the daemon, and after one that has died.
    site.options.more = Vec::new();
    site.start_again()?;
    let detached = site.failover(&["detach"])?;
    assert_eq!(detached.code, Some(0), "{detached:?}");
    assert_eq!(site.programs()?, BTreeMap::new());
    site.daemon.wait()?;
    site.start_again()?;
    site.crash()?;
    let detached = site.failover(&["detach"])?;
    let want = "no daemon is running; program taken off 3 interfaces\n";
    assert_eq!(detached.out, want, "{detached:?}");
    assert_eq!(site.programs()?, BTreeMap::new());
    assert!(!site.lab.bpf_dir().exists());
    Ok(())
}

/// The generation that says so.
fn answers_offsite(site: &mut Site) -> Result<u64> {
    let status = site.daemon.status()?;
    assert_eq!(status.service("www")?.answer, set(&[OFFSITE]));
    site.client
        .time_until(NS1, NAME, Rtype::A, &set(&[OFFSITE]), BOUND)?;
    Ok(status.generation)
}
