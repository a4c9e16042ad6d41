//! The reference case: all five states.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use failover_tests::dns::Rtype;
use failover_tests::lab::topology::{NS1, NS2};
use failover_tests::lab::{Config, LinkState, Server, Wan};
use failover_tests::privileged;
use failover_tests::reference::{NAME, OFFSITE, WAN1, WAN2, differences};

use crate::site::{BOUND, Site, set};

/// Queries beside dig's.
const QUERIES: u64 = 20;

#[test]
fn native() -> Result<()> {
    play("native")
}

#[test]
fn generic() -> Result<()> {
    play("generic")
}

fn play(mode: &str) -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let mut site = Site::start(mode, &Config::default())?;
    let interfaces = site.daemon.status()?.interfaces;
    let programs = site.programs()?;
    assert_eq!(programs.len(), interfaces.len(), "{programs:?}");
    for interface in interfaces {
        assert_eq!(interface.xdp, mode, "{interface:?}");
        assert_eq!(programs[&interface.name].mode, mode, "{interface:?}");
    }
    check(&mut site, "web-a serves", NS1, &[WAN1, WAN2])?;

    site.lab.kill(Server::WebA)?;
    check(&mut site, "primary and backup down", NS1, &[OFFSITE])?;
    site.lab.revive(Server::WebA)?;
    site.wait_for_answer(&[WAN1, WAN2])?;

    set_links(&site, LinkState::Down)?;
    check(&mut site, "wan1 and wan2 down", NS2, &[OFFSITE])?;
    set_links(&site, LinkState::Up)?;
    site.wait_for_answer(&[WAN1, WAN2])?;

    site.daemon.stop()?;
    site.lab.configure(&Config {
        redundancy_only: true,
        ..Config::default()
    })?;
    site.start_again()?;
    check(&mut site, "redundancy_only", NS1, &[WAN1])?;
    site.lab.set_link(Wan::Wan1, LinkState::Down)?;
    check(&mut site, "redundancy_only, wan1 down", NS2, &[WAN2])
}

fn set_links(site: &Site, state: LinkState) -> Result<()> {
    site.lab.set_link(Wan::Wan1, state)?;
    site.lab.set_link(Wan::Wan2, state)
}

/// Waits for the answer, and looks at it with dig and at many more of its kind.
fn check(site: &mut Site, state: &str, server: IpAddr, want: &[IpAddr]) -> Result<()> {
    site.wait_for_answer(want).context(state.to_owned())?;
    // The way of queries may have changed as well, and the kernel may only just have found it.
    site.client
        .time_until(server, NAME, Rtype::A, &set(want), BOUND)?;
    site.answered_by_xdp(1 + QUERIES, |site| {
        let dig = site.dig(server, &[NAME, "A"])?;
        assert_eq!(differences(&dig, &set(want)), [""; 0], "{state}");
        for _ in 0..QUERIES {
            let reply = site.client.ask(server, NAME, Rtype::A, BOUND)?;
            let reply = reply.context("a query was lost")?;
            assert_eq!(reply.set(), set(want), "{state}");
        }
        Ok(())
    })
    .context(state.to_owned())
}
