//! Secondaries that transfer the zone and follow it: real `nsd` and `knotd`, and `dig`.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use failover_tests::command;
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Config, Host, Server};
use failover_tests::peers::{Program, Settings};
use failover_tests::privileged;
use failover_tests::reference::{NAME, OFFSITE, WAN1, WAN2};

use crate::site::{Site, set, wait_until};

/// Where the secondary runs: who may transfer the zone, and is told of its changes.
const SECONDARY: &str = "192.0.2.18";

/// The secondary's zone in NSD's words.
const NSD_ZONE: &str = r#"
zone:
    name: "example.com"
    zonefile: "example.com.zone"
    request-xfr: 198.51.100.130 NOKEY
    request-xfr: 203.0.113.66 NOKEY
    allow-notify: 198.51.100.130 NOKEY
    allow-notify: 203.0.113.66 NOKEY
"#;

/// The secondary's zone in Knot's words.
const KNOT_ZONE: &str = r#"
remote:
  - id: failover
    address: [198.51.100.130, 203.0.113.66]
acl:
  - id: from-failover
    address: [198.51.100.130, 203.0.113.66]
    action: notify
zone:
  - domain: example.com
    storage: "{dir}"
    master: failover
    acl: from-failover
"#;

#[test]
fn nsd_follows() -> Result<()> {
    follows(Program::Nsd, "    server-count: 1", NSD_ZONE)
}

#[test]
fn knot_follows() -> Result<()> {
    follows(Program::Knotd, "", KNOT_ZONE)
}

/// A secondary has each answer of ours soon after it changed.
fn follows(program: Program, server: &str, sections: &str) -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    if let Some(why) = program.missing() {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    let mut site = site()?;
    let settings = Settings {
        server: server.to_owned(),
        sections: sections.to_owned(),
    };
    program.start(&site.lab, Host::Client, SECONDARY.parse()?, &settings)?;

    wait_for_zone(&site, &[WAN1, WAN2])?;
    let first = site.soa(SECONDARY.parse()?)?;
    // It would not look again by itself before the test is over.
    ensure!(first.refresh >= 900, "{first:?}");
    for (change, want) in [
        (Change::Kill, &[OFFSITE][..]),
        (Change::Revive, &[WAN1, WAN2]),
    ] {
        match change {
            Change::Kill => site.lab.kill(Server::WebA)?,
            Change::Revive => site.lab.revive(Server::WebA)?,
        }
        site.wait_for_answer(want)?;
        wait_for_zone(&site, want)
            .with_context(|| format!("{}: {}", program.name(), log(&site, program)))?;
    }
    let last = site.soa(SECONDARY.parse()?)?;
    ensure!(last.serial > first.serial, "{first:?} {last:?}");
    ensure!(last == site.soa(NS1)?);
    Ok(())
}

enum Change {
    Kill,
    Revive,
}

/// The lab with a daemon from which the client may transfer the zone.
fn site() -> Result<Site> {
    let config = Config {
        zone: format!("allow_transfer = [{SECONDARY:?}]"),
        ..Config::default()
    };
    Site::start("native", &config)
}

/// Waits until the secondary's answer is the whole of `want`.
fn wait_for_zone(site: &Site, want: &[IpAddr]) -> Result<()> {
    wait_until(&format!("the secondary answers {want:?}"), || {
        // There is no reply before it listens.
        let Ok(dig) = site.dig(SECONDARY.parse()?, &[NAME, "A"]) else {
            return Ok(false);
        };
        let found: Vec<_> = dig
            .answer
            .iter()
            .filter_map(|record| record.data.parse().ok())
            .collect();
        Ok(dig.flags.starts_with("qr aa") && set(&found) == set(want))
    })
}

fn log(site: &Site, program: Program) -> String {
    fs::read_to_string(site.lab.log(program.name())).unwrap_or_default()
}

/// What matters of a SOA record.
#[derive(Debug, PartialEq, Eq)]
struct Soa {
    serial: u32,
    refresh: u32,
}

impl Site {
    /// The SOA that a name server answers.
    fn soa(&self, server: IpAddr) -> Result<Soa> {
        let dig = self.dig(server, &["example.com", "SOA"])?;
        let record = dig.answer.first().context("no SOA")?;
        soa(&record.data)
    }

    /// The records that `dig` gets by a transfer, as owner, type and data.
    fn transfer(&self, host: Host, args: &[&str]) -> Result<Transfer> {
        let mut dig = command::command("dig");
        dig.args(["+tries=1", "+timeout=5", &format!("@{NS1}"), "example.com"])
            .args(args);
        let output = self
            .lab
            .netns(host)
            .enter(|| dig.output().context("cannot run dig"))?;
        let text = String::from_utf8(output.stdout)?;
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with(';'));
        let records = lines.map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            [&fields[..1], &fields[3..]].concat().join(" ")
        });
        Ok(Transfer {
            records: records.collect(),
            failed: text.contains("Transfer failed"),
        })
    }
}

fn soa(data: &str) -> Result<Soa> {
    let mut numbers = data.split(' ').skip(2).map(str::parse);
    let mut next = || numbers.next().context("too short a SOA");
    Ok(Soa {
        serial: next()??,
        refresh: next()??,
    })
}

/// What `dig` shows of a transfer.
#[derive(Debug)]
struct Transfer {
    records: Vec<String>,
    failed: bool,
}

#[test]
fn dig_transfers_where_it_may() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let site = site()?;
    let Soa { serial, .. } = site.soa(NS1)?;
    let soa = format!(
        "example.com. SOA ns1.example.com. hostmaster.example.com. {serial} 3600 900 1209600 300"
    );

    let whole = site.transfer(Host::Client, &["AXFR"])?;
    let mut want = vec![
        soa.as_str(),
        "example.com. NS ns1.example.com.",
        "example.com. NS ns2.example.com.",
        "example.com. MX 10 mail.example.com.",
        "example.com. TXT \"the reference case\"",
        "dual.example.com. A 198.51.100.134",
        "dual.example.com. A 203.0.113.70",
        "dual.example.com. AAAA 2001:db8:1::134",
        "dual.example.com. AAAA 2001:db8:2::70",
        "mail.example.com. A 192.0.2.25",
        "ns1.example.com. A 198.51.100.130",
        "ns2.example.com. A 203.0.113.66",
        "www.example.com. A 198.51.100.134",
        "www.example.com. A 203.0.113.70",
        soa.as_str(),
    ];
    ensure!(whole.records == want, "{whole:#?}");
    let older = site.transfer(Host::Client, &[&format!("IXFR={}", serial - 1)])?;
    ensure!(older.records == want, "{older:#?}");

    want.truncate(1);
    for args in [
        &[format!("IXFR={serial}")][..],
        &[format!("IXFR={}", serial + 1)],
        &[format!("IXFR={}", serial - 1), "+notcp".into()],
    ] {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let current = site.transfer(Host::Client, &args)?;
        ensure!(current.records == want, "{args:?} {current:#?}");
    }

    for args in ["AXFR".to_owned(), format!("IXFR={}", serial - 1)] {
        let refused = site.transfer(Host::Offsite, &[&args])?;
        ensure!(
            refused.failed && refused.records.is_empty(),
            "{args}: {refused:#?}"
        );
    }
    let stats: serde_json::Value = serde_json::from_str(&site.daemon.query(&["stats", "--json"])?)?;
    ensure!(stats["slow_path"]["transfers"] == 2, "{stats}");
    Ok(())
}
