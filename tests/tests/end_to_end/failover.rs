//! From a failure to the new answer on the wire, and back.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use failover_tests::dns::Rtype;
use failover_tests::lab::topology::{NS1, NS2};
use failover_tests::lab::{Config, Lab, LinkState, Server, Wan};
use failover_tests::privileged;
use failover_tests::reference::{NAME, OFFSITE, WAN1, WAN2};

use crate::site::{BOUND, Site, set};

/// What happens, who is asked, and what is answered then.
type Row = (
    &'static str,
    fn(&Lab) -> Result<()>,
    IpAddr,
    &'static [IpAddr],
);

const BOTH: &[IpAddr] = &[WAN1, WAN2];

/// Each row begins where the one before has ended.
const TABLE: &[Row] = &[
    (
        "server refuses",
        |lab| lab.kill(Server::WebA),
        NS1,
        &[OFFSITE],
    ),
    ("server is back", |lab| lab.revive(Server::WebA), NS1, BOTH),
    (
        "server is a black hole",
        |lab| lab.black_hole(Server::WebA),
        NS1,
        &[OFFSITE],
    ),
    ("server is back", |lab| lab.revive(Server::WebA), NS1, BOTH),
    (
        "wan1 loses its carrier",
        |lab| lab.set_link(Wan::Wan1, LinkState::Down),
        NS2,
        &[WAN2],
    ),
    (
        "wan1 is back",
        |lab| lab.set_link(Wan::Wan1, LinkState::Up),
        NS2,
        BOTH,
    ),
    (
        "wan1 is a black hole",
        |lab| lab.set_link(Wan::Wan1, LinkState::BlackHole),
        NS2,
        &[WAN2],
    ),
    (
        "wan1 is back",
        |lab| lab.set_link(Wan::Wan1, LinkState::Up),
        NS2,
        BOTH,
    ),
];

#[test]
fn each_change_is_answered() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let mut site = Site::start("native", &Config::default())?;
    site.client
        .time_until(NS1, NAME, Rtype::A, &set(BOTH), BOUND)?;
    for (what, change, server, want) in TABLE {
        let lab = &site.lab;
        let took = site
            .client
            .time_change(*server, NAME, &set(want), BOUND, || change(lab))
            .context(*what)?;
        println!("{:>5.0} ms  {what}", took.as_secs_f64() * 1e3);
    }
    Ok(())
}
