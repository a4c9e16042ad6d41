//! An interface that is deleted and made again gets the program again.

use anyhow::{Context as _, Result};
use failover_tests::dns::Rtype;
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Config, Handle, Host, Status};
use failover_tests::privileged;
use failover_tests::reference::{NAME, WAN1, WAN2};

use crate::site::{BOUND, Site, lab, set, wait_until};

const SPARE: &str = "spare";

#[test]
fn made_again_it_answers_again() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = lab(&Config {
        more_interface: Some(SPARE),
        ..Config::default()
    })?;
    plug_in(&lab)?;
    // Generic, so that the far end needs no program.
    let mut site = Site::start_in(lab, "generic")?;
    let program = site.programs()?.remove(SPARE).context("no program")?;
    answers(&mut site)?;

    site.lab.netns(Host::Ns).ip(&["link", "delete", SPARE])?;
    wait_for(&mut site, "detached")?;
    plug_in(&site.lab)?;
    wait_for(&mut site, "generic")?;
    wait_until("the program is on it again", || {
        Ok(site.programs()?.get(SPARE) == Some(&program))
    })?;
    answers(&mut site)
}

/// A cable straight from the client to the name server, and the way to ns1 through it.
fn plug_in(lab: &Handle) -> Result<()> {
    let [ns, client] = [Host::Ns, Host::Client].map(|host| lab.netns(host));
    let cable = format!(
        "link add {SPARE} type veth peer name {SPARE} netns {}",
        client.name()
    );
    ns.ip(&words(&cable))?;
    for (netns, address) in [(&ns, "100.64.1.1/30"), (&client, "100.64.1.2/30")] {
        netns.ip(&["address", "add", address, "dev", SPARE])?;
        netns.ip(&["link", "set", SPARE, "up"])?;
    }
    lab.wait_until_up(Host::Client, SPARE)?;
    client.ip(&words(&format!("route add {NS1}/32 via 100.64.1.1")))
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn answers(site: &mut Site) -> Result<()> {
    let want = set(&[WAN1, WAN2]);
    let took = site.client.time_until(NS1, NAME, Rtype::A, &want, BOUND);
    took.map(drop)
}

fn wait_for(site: &mut Site, state: &str) -> Result<()> {
    let wanted = |status: &Status| {
        let mut interfaces = status.interfaces.iter();
        interfaces.any(|interface| interface.name == SPARE && interface.xdp == state)
    };
    site.daemon
        .wait_for(&format!("{SPARE} {state}"), BOUND, wanted)
        .map(drop)
}
