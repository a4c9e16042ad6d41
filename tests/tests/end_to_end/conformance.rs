//! The DNS cases over real sockets: the daemon with and without XDP, and other name servers with
//! the same zones.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use failover_tests::cases::{self, Case, Heard, Mismatch, Order, Peer, Protocol};
use failover_tests::lab::topology::{NS1, NS1_V6};
use failover_tests::lab::{Config, Host, Lab, Status};
use failover_tests::peers::{Program, Settings};
use failover_tests::reference::{WAN1, WAN2};
use failover_tests::{command, privileged};

use crate::site::{BOUND, Site, lab, set, wait_until};

/// The cases' zones by name; each is in a file of that name.
const ZONES: [&str; 3] = ["example.com", "child.example.com", "example.org"];
/// The zone that the services are in.
const ZONE_OF_SERVICES: &str = "example.com";

#[test]
fn cases_with_xdp() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let site = start_daemon("native")?;
    let replies = check_daemon(&site)?;
    let counters = site.daemon.status()?.counters;
    ensure!(
        counters.answered > 0 && counters.answered + counters.slow_path >= replies,
        "{replies} replies, {counters:?}"
    );
    Ok(())
}

#[test]
fn cases_without_xdp() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let site = start_daemon("off")?;
    let replies = check_daemon(&site)?;
    let counters = site.daemon.status()?.counters;
    ensure!(
        counters.answered == 0 && counters.slow_path >= replies,
        "{replies} replies, {counters:?}"
    );
    Ok(())
}

#[test]
fn knotd_differs_as_explained() -> Result<()> {
    differs_as_explained(Peer::Knotd)
}

#[test]
fn nsd_differs_as_explained() -> Result<()> {
    differs_as_explained(Peer::Nsd)
}

/// The daemon with the cases' configuration, everything up but the servers called `down`.
fn start_daemon(mode: &str) -> Result<Site> {
    let lab = lab(&Config::default())?;
    lab.configure_from(&cases::directory().join("failover.toml"))?;
    for zone in ZONES {
        copy_zone(zone, lab.dir())?;
    }
    let mut site = Site::start_in(lab, mode)?;
    site.wait_for_answer(&[WAN1, WAN2])?;
    let six = set(&["2001:db8:200::200".parse()?]);
    let is_up = |status: &Status| status.service("six").is_ok_and(|it| it.answer == six);
    site.daemon.wait_for("answer of six", BOUND, is_up)?;
    Ok(site)
}

fn copy_zone(zone: &str, dir: &Path) -> Result<()> {
    let file = format!("{zone}.zone");
    let from = cases::directory().join(&file);
    fs::copy(&from, dir.join(file)).with_context(|| from.display().to_string())?;
    Ok(())
}

/// Holds every case against the daemon; returns how many replies came.
fn check_daemon(site: &Site) -> Result<u64> {
    let mut replies = 0;
    check_all(&site.lab, &[NS1, NS1_V6], |case, _, heard| {
        replies += u64::from(matches!(heard, Heard::Reply(_)));
        Ok(case.check(&heard.render(&case.query)?, Order::Rotated))
    })?;
    Ok(replies)
}

/// Asks every case of each of the addresses over UDP and TCP, and fails with all mismatches.
fn check_all(
    lab: &Lab,
    servers: &[IpAddr],
    mut check: impl FnMut(&Case, Protocol, &Heard) -> Result<Result<(), Mismatch>> + Send,
) -> Result<()> {
    let cases = cases::load()?;
    let mut failures = Vec::new();
    lab.netns(Host::Client).enter(|| {
        for case in &cases {
            for &protocol in &case.over {
                for &server in servers {
                    let heard = cases::ask(server, protocol, &case.query);
                    let checked = heard.and_then(|heard| check(case, protocol, &heard));
                    let checked = checked.with_context(|| case.place.clone())?;
                    if let Err(mismatch) = checked {
                        failures.push(format!("{protocol:?} {server} {mismatch}"));
                    }
                }
            }
        }
        Ok(())
    })?;
    ensure!(
        failures.is_empty(),
        "{} mismatches\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
    Ok(())
}

fn differs_as_explained(peer: Peer) -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    if let Some(why) = why_not(peer)? {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    let lab = lab(&Config::default())?;
    start_peer(&lab, peer)?;
    // Over IPv4 alone: NSD chooses the glue that it has room for by the client's family.
    check_all(&lab, &[NS1], |case, protocol, heard| {
        // Who closes the connection has nothing to say, either.
        let heard = match heard {
            Heard::Closed => &Heard::Silence,
            other => other,
        };
        Ok(case.check_peer(peer, protocol, &heard.render(&case.query)?))
    })
}

/// Why a peer cannot be compared with.
fn why_not(peer: Peer) -> Result<Option<String>> {
    let name = peer.name();
    if let Some(why) = program(peer).missing() {
        return Ok(Some(why));
    }
    let (option, explained) = match peer {
        Peer::Knotd => ("--version", "version 3.2."),
        Peer::Nsd => ("-v", "version 4.6."),
    };
    let output = command::command(name).arg(option).output()?;
    // NSD says it on standard error.
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    let said = said.lines().next().unwrap_or_default();
    Ok((!said.contains(explained))
        .then(|| format!("the cases explain {name} {explained}*, here is {said:?}")))
}

const fn program(peer: Peer) -> Program {
    match peer {
        Peer::Knotd => Program::Knotd,
        Peer::Nsd => Program::Nsd,
    }
}

/// Starts a peer on the name server's host, and waits until it answers. It ends with the lab.
fn start_peer(lab: &Lab, peer: Peer) -> Result<()> {
    let program = program(peer);
    let dir = program.directory(lab)?;
    for zone in ZONES {
        copy_zone(zone, &dir)?;
    }
    let services = fs::read_to_string(cases::directory().join("services.zone"))?;
    let file = dir.join(format!("{ZONE_OF_SERVICES}.zone"));
    let records = fs::read_to_string(&file)?;
    fs::write(file, format!("{records}{services}"))?;

    let mut process = program.start(lab, Host::Ns, NS1, &settings(peer))?;
    wait_until("the peer's first reply", || {
        program.check_running(lab, &mut process)?;
        Ok(ZONES.iter().all(|zone| is_served(lab, zone)))
    })
}

fn is_served(lab: &Lab, zone: &str) -> bool {
    let mut dig = command::command("dig");
    dig.args(["+tries=1", "+timeout=1", "+short", &format!("@{NS1}")]);
    let soa = lab.netns(Host::Client).output(dig.args([zone, "SOA"]));
    // Fails, or is empty, as long as it is not.
    soa.is_ok_and(|soa| !soa.is_empty())
}

/// A peer's settings: size and NSID of ours, and nothing said about itself.
fn settings(peer: Peer) -> Settings {
    let zones: String = ZONES
        .iter()
        .map(|zone| match peer {
            Peer::Knotd => format!("  - domain: {zone}\n    file: {zone}.zone\n"),
            Peer::Nsd => format!("zone:\n    name: {zone}\n    zonefile: {zone}.zone\n"),
        })
        .collect();
    match peer {
        Peer::Knotd => Settings {
            server: r#"
    nsid: ns1.site-a
    identity: ""
    version: ""
    udp-max-payload: 1232
"#
            .to_owned(),
            sections: format!(
                r#"
template:
  - id: default
    storage: "{{dir}}"
    zonefile-sync: -1
    journal-content: none
zone:
{zones}"#
            ),
        },
        Peer::Nsd => Settings {
            server: r"
    nsid: ascii_ns1.site-a
    hide-version: yes
    hide-identity: yes
    ipv4-edns-size: 1232
"
            .to_owned(),
            sections: zones,
        },
    }
}
