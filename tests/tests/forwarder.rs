//! The thread that forwards, alone in a network namespace: what it leaves in the kernel, and what
//! that takes.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use failover::config;
use failover::forward::{Error, Forwarder};
use failover::health::Effective;
use failover::model::{Model, ServiceId};
use failover::policy::{self, Forward, View};
use failover::protocol::Removed;
use failover_tests::lab::Netns;
use failover_tests::{command, privileged};

/// How long anything may take; generous, as the machine may be busy.
const BOUND: Duration = Duration::from_secs(60);

/// A namespace of its own, gone afterwards.
struct Alone(Netns);

impl Alone {
    fn new(name: &str) -> Result<Self> {
        let netns = Netns::named(format!("fo-{}-{name}", std::process::id()));
        netns.create()?;
        Ok(Self(netns))
    }

    fn nft(&self, args: &[&str]) -> Result<String> {
        self.0.output(command::command("nft").args(args))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.delete().ok();
    }
}

/// So many services, each with two WAN addresses and two servers, of weights 1 and 3.
fn model(services: u32, snat: bool) -> Result<Model> {
    let mut text = format!(
        "[server]\nlisten = [\"192.0.2.1\"]\n[port_forward]\nenabled = true\nsnat = {snat}\n\
         [[zone]]\nname = \"example.com\"\nfile = \"example.com.zone\"\n[[wan]]\nname = \"wan1\"\n"
    );
    for n in 0..services {
        let (high, low) = (n / 250, n % 250);
        write!(
            text,
            "[[service]]\nname = \"s{n}\"\nfqdn = [\"s{n}.example.com\"]\nport = 80\n\
             wan = [{{ link = \"wan1\", address = \"198.18.{high}.{low}\" }}, \
             {{ link = \"wan1\", address = \"2001:db8::{high}:{low}\" }}]\n\
             [[service.server]]\nname = \"a\"\naddress = \"10.1.{high}.{low}\"\n\
             [[service.server]]\nname = \"b\"\naddress = \"10.2.{high}.{low}\"\nweight = 3\n\
             [[service.server]]\nname = \"c\"\naddress = \"2001:db8:1::{high}:{low}\"\n"
        )?;
    }
    let dir = tempfile::tempdir()?;
    let zone = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/example.com.zone");
    fs::copy(zone, dir.path().join("example.com.zone"))?;
    let file = dir.path().join("failover.toml");
    fs::write(&file, text)?;
    Ok(config::load(&file)?.model)
}

/// Where the connections of each service go when these servers are down and the others up.
fn forwards(model: &Model, down: &[usize]) -> Vec<Forward> {
    let mut servers = vec![Effective::Up; model.servers.len()];
    for server in down {
        servers[*server] = Effective::Down;
    }
    let view = View {
        servers: &servers,
        wans: &[Effective::Up],
    };
    let services = model.services.iter();
    services
        .map(|service| policy::forward(service, model, view))
        .collect()
}

fn wait(forwarder: &Forwarder) -> Result<()> {
    let done = forwarder.wait(BOUND);
    ensure!(done, "not in place: {:?}", forwarder.status());
    Ok(())
}

#[test]
fn table_and_changes() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let alone = Alone::new("table")?;
    // Threads belong to the namespace of the thread that starts them.
    alone.0.enter(|| {
        let one = Arc::new(model(1, false)?);
        let forwarder = Forwarder::start(&one)?;
        assert_eq!(forwarder.status().rules, 0);
        forwarder.replace(&one, forwards(&one, &[]));
        wait(&forwarder)?;
        assert_eq!(forwarder.status().rules, 2);
        let first = alone.nft(&["list", "ruleset"])?;
        for want in [
            "\tcomment \"Failover: port forwarding\"\n",
            "198.18.0.0 . 80 . 0 : 10.1.0.0 . 80",
            "198.18.0.0 . 80 . 3 : 10.2.0.0 . 80",
            "2001:db8:: . 80 . 0 : 2001:db8:1:: . 80",
        ] {
            assert!(first.contains(want), "no {want:?} in {first}");
        }
        // What others may have saved can be loaded again.
        let saved = tempfile::NamedTempFile::new()?;
        fs::write(saved.path(), &first)?;
        let path = saved.path().to_str().context("a path")?;
        alone.nft(&["--check", "--file", path])?;

        forwarder.change(vec![(ServiceId(0), forwards(&one, &[0]).remove(0))]);
        wait(&forwarder)?;
        let second = alone.nft(&["list", "ruleset"])?;
        assert!(!second.contains("10.1.0.0"), "{second}");
        // There and back again.
        forwarder.change(vec![(ServiceId(0), forwards(&one, &[]).remove(0))]);
        wait(&forwarder)?;
        assert_eq!(sorted(&alone.nft(&["list", "ruleset"])?), sorted(&first));

        // The next daemon begins anew, and with another configuration.
        drop(forwarder);
        assert_eq!(sorted(&alone.nft(&["list", "ruleset"])?), sorted(&first));
        let snat = Arc::new(model(2, true)?);
        let forwarder = Forwarder::start(&snat)?;
        forwarder.replace(&snat, forwards(&snat, &[]));
        wait(&forwarder)?;
        let third = alone.nft(&["list", "ruleset"])?;
        assert!(
            !third.contains("hairpin") && third.contains("198.18.0.1"),
            "{third}"
        );
        // A reload back.
        forwarder.replace(&one, forwards(&one, &[]));
        wait(&forwarder)?;
        assert_eq!(sorted(&alone.nft(&["list", "ruleset"])?), sorted(&first));

        assert_eq!(forwarder.remove()?, Removed::Table);
        assert_eq!(alone.nft(&["list", "ruleset"])?, "");
        assert_eq!(forwarder.remove()?, Removed::Nothing);
        Ok(())
    })
}

/// Its lines, in no order: chains are listed in the order in which they were made.
fn sorted(listing: &str) -> Vec<String> {
    let mut lines: Vec<String> = listing.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_table_of_others_is_refused() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let alone = Alone::new("foreign")?;
    alone.0.enter(|| {
        let one = model(1, false)?;
        alone.nft(&["add table inet failover { comment \"mine\"; }"])?;
        let before = alone.nft(&["list", "ruleset"])?;
        let refused = Forwarder::start(&one);
        assert!(matches!(refused, Err(Error::Foreign)), "{refused:?}");
        // Nor is it taken for what an earlier run has left.
        let off = Model {
            port_forward: None,
            ..one
        };
        let forwarder = Forwarder::start(&off)?;
        forwarder.wait(BOUND);
        drop(forwarder);
        assert_eq!(alone.nft(&["list", "ruleset"])?, before);
        Ok(())
    })
}

/// A change costs what it changes: the figures are printed, and the bounds are only there to tell
/// that from what grows with the number of services.
#[test]
fn many_services() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let alone = Alone::new("many")?;
    alone.0.enter(|| {
        for services in [1_000, 10_000] {
            let all = Arc::new(model(services, false)?);
            let forwarder = Forwarder::start(&all)?;
            let time = |what: &str, act: &dyn Fn()| {
                let begun = Instant::now();
                act();
                wait(&forwarder)?;
                let took = begun.elapsed();
                println!("{services} services, {what}: {} ms", took.as_millis());
                anyhow::Ok(took)
            };
            let up = forwards(&all, &[]);
            time("all", &|| forwarder.replace(&all, up.clone()))?;
            let down = forwards(&all, &[0]).swap_remove(0);
            let one = time("one changes", &|| {
                forwarder.change(vec![(ServiceId(0), down.clone())]);
            })?;
            assert!(one < Duration::from_secs(5), "{one:?}");
            let servers: Vec<usize> = (0..300).map(|service| service * 3).collect();
            let some = forwards(&all, &servers).into_iter();
            let some: Vec<_> = (0..).map(ServiceId).zip(some).take(100).collect();
            time("100 change", &|| forwarder.change(some.clone()))?;
            let listing = alone.nft(&["list", "map", "inet", "failover", "services4"])?;
            let elements = listing.matches(" : goto one_of_").count();
            assert_eq!(elements, services as usize);
            assert_eq!(forwarder.remove()?, Removed::Table);
        }
        Ok(())
    })
}
