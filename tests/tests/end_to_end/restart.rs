//! The daemon's end, by request and by crash, and its next beginning.

use std::collections::BTreeMap;

use anyhow::Result;
use failover_tests::dns::Rtype;
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Config, Server};
use failover_tests::privileged;
use failover_tests::reference::{NAME, OFFSITE};

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
    assert_eq!(site.programs()?.len(), first.interfaces.len());
    let socket = site.lab.dir().join("control.sock");
    assert!(socket.exists());

    let ended = site.daemon.terminate(BOUND)?;
    assert!(ended.success(), "{ended}");
    assert_eq!(site.programs()?, BTreeMap::new());
    assert!(!socket.exists());

    // Now no probe of web-a ends: what is answered comes from before.
    site.lab.revive(Server::WebA)?;
    site.lab.black_hole(Server::WebA)?;
    site.start_again()?;
    let second = answers_offsite(&mut site)?;
    assert!(second > first.generation, "{second} after {first:?}");

    site.daemon.kill()?;
    wait_until("no program is attached after a crash", || {
        Ok(site.programs()?.is_empty())
    })?;
    site.start_again()?;
    let third = answers_offsite(&mut site)?;
    assert!(third > second, "{third} after {second}");
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
