//! Another configuration while `dnsperf` asks all the time.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use domain::base::Message;
use failover_tests::dns::{Client, Rcode, Rtype};
use failover_tests::lab::topology::{NS1, NS2};
use failover_tests::lab::{Config, Host};
use failover_tests::privileged;
use failover_tests::reference::{NAME, WAN1, WAN2};
use serde_json::Value;

use crate::load::{self, field, number};
use crate::site::{BOUND, Run, Site, set};

/// An address of the name server that it does not listen on at first.
const ANOTHER: &str = "198.51.100.134";
const ANOTHER_NAME: &str = "api.example.com";
const ANOTHER_SERVICE: &str = "
[[service]]
name = \"api\"
fqdn = [\"api.example.com\"]
port = 80
[[service.server]]
name = \"offsite\"
address = \"192.0.2.200\"
priority = \"primary\"
offsite = true
";
const QUERIES: &str = "\
www.example.com A
www.example.com AAAA
dual.example.com AAAA
mail.example.com A
WwW.eXaMpLe.CoM A
";

#[test]
fn no_query_is_lost_or_answered_wrongly() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let mut site = Site::start("native", &Config::default())?;
    let configuration = fs::read_to_string(site.lab.config_file())?;
    let before = site.status()?;
    let maps = maps(site.daemon.pid())?;
    let sent_before = site.client.sent();

    let dnsperf = load::start(&site, QUERIES, 20_000)?;
    let mut stranger = Client::new(&site.lab.netns(Host::Client))?;
    for round in 0..2 {
        names_come_and_go(&mut site, &configuration).with_context(|| format!("round {round}"))?;
        servers_change(&mut site, &configuration)?;
        addresses_come_and_go(&mut site, &configuration, &mut stranger)?;
        interfaces_come_and_go(&mut site, &configuration)?;
        mistakes_change_nothing(&mut site, &configuration)?;
    }
    let report = load::stop(dnsperf)?;

    let after = site.status()?;
    let sent = number(&report, "Queries sent:")?;
    // Those that were on their way when it was stopped.
    let interrupted = number(&report, "Queries interrupted:").unwrap_or(0);
    println!("{sent} queries, generation {}", after["generation"]);
    assert!(sent > 0, "{report}");
    assert_eq!(number(&report, "Queries lost:")?, 0, "{report}");
    let completed = number(&report, "Queries completed:")?;
    assert_eq!(completed + interrupted, sent, "{report}");
    let codes = field(&report, "Response codes:")?;
    assert_eq!(codes, format!("NOERROR {completed} (100.00%)"), "{report}");

    // Counters go on: of all queries each has been answered once, by the one or the other.
    let counter = |status: &Value, name: &str| {
        let count = status["counters"][name].as_u64();
        count.with_context(|| format!("{name} in {status}"))
    };
    let mut answered = 0;
    for name in ["answered", "slow_path"] {
        answered += counter(&after, name)? - counter(&before, name)?;
    }
    let own = site.client.sent() - sent_before + stranger.sent();
    let asked = sent + own;
    // A reply to the stranger, while his address is not ours, never comes.
    ensure!(
        (asked - stranger.sent()..=asked).contains(&answered),
        "{answered} of {asked}"
    );
    // Nothing is left of what was replaced.
    assert_eq!(self::maps(site.daemon.pid())?, maps);
    let is_map = |name: &str| name.starts_with("map-");
    let pins = fs::read_dir(site.lab.bpf_dir())?;
    let pins = pins.filter_map(|pin| pin.ok()?.file_name().into_string().ok());
    assert_eq!(pins.filter(|name| is_map(name)).count(), 1);
    // What has not changed is as it was.
    for (service, server) in [(0, 0), (0, 2), (1, 0), (1, 1), (1, 3)] {
        let since = |status: &Value| {
            let servers = &status["services"][service]["servers"];
            servers[server]["since"].clone()
        };
        assert_eq!(since(&after), since(&before), "{service}/{server}");
    }
    for wan in 0..2 {
        for key in ["effective", "since"] {
            let value = |status: &Value| status["wans"][wan][key].clone();
            assert_eq!(value(&after), value(&before), "{key} of link {wan}");
        }
    }
    Ok(())
}

fn names_come_and_go(site: &mut Site, configuration: &str) -> Result<()> {
    site.configure(&format!("{configuration}{ANOTHER_SERVICE}"))?;
    let done = site.reload()?;
    ensure!(done.out.contains("services  1 added (api)\n"), "{done:?}");
    // By XDP, at once.
    let offsite: IpAddr = "192.0.2.200".parse()?;
    ensure!(site.rcode_by_xdp(ANOTHER_NAME, "answered")? == Rcode::NOERROR);
    site.client
        .time_until(NS1, ANOTHER_NAME, Rtype::A, &set(&[offsite]), BOUND)?;

    site.configure(configuration)?;
    let done = site.reload()?;
    ensure!(done.out.contains("services  1 removed (api)\n"), "{done:?}");
    ensure!(site.rcode_by_xdp(ANOTHER_NAME, "answered_nxdomain")? == Rcode::NXDOMAIN);
    Ok(())
}

fn servers_change(site: &mut Site, configuration: &str) -> Result<()> {
    // Not the one that is answered.
    let weight = "address = \"192.168.10.11\"\nweight = 3";
    site.configure(&configuration.replacen("address = \"192.168.10.11\"", weight, 1))?;
    let done = site.reload()?;
    let want = "services  1 altered (www: servers)\nservers   1 altered (www/web-b: weight)\n";
    ensure!(done.out.contains(want), "{done:?}");
    site.client
        .time_until(NS1, NAME, Rtype::A, &set(&[WAN1, WAN2]), BOUND)
        .map(drop)
}

fn addresses_come_and_go(site: &mut Site, configuration: &str, client: &mut Client) -> Result<()> {
    let address: IpAddr = ANOTHER.parse()?;
    let listen = format!("listen = [{ANOTHER:?}, ");
    site.configure(&configuration.replacen("listen = [", &listen, 1))?;
    site.reload()?;
    client.time_until(address, NAME, Rtype::A, &set(&[WAN1, WAN2]), BOUND)?;
    site.configure(configuration)?;
    let done = site.reload()?;
    ensure!(
        done.out.starts_with("settings  1 altered (listen)\n"),
        "{done:?}"
    );
    let silence = Duration::from_millis(50);
    ensure!(client.ask(address, NAME, Rtype::A, silence)?.is_none());
    Ok(())
}

fn interfaces_come_and_go(site: &mut Site, configuration: &str) -> Result<()> {
    let fewer = configuration.replacen(", \"oob\"]", "]", 1);
    site.configure(&fewer)?;
    let done = site.reload()?;
    ensure!(
        done.out.starts_with("settings  1 altered (interfaces)\n"),
        "{done:?}"
    );
    let programs = site.programs()?;
    ensure!(!programs.contains_key("oob"), "{programs:?}");
    site.configure(configuration)?;
    site.reload()?;
    let programs = site.programs()?;
    let ids: Vec<_> = programs.values().map(|program| program.id).collect();
    ensure!(
        ids.len() == 3 && ids.iter().all(|id| *id == ids[0]),
        "{programs:?}"
    );
    ensure!(
        programs.values().all(|program| program.mode == "native"),
        "{programs:?}"
    );
    Ok(())
}

fn mistakes_change_nothing(site: &mut Site, configuration: &str) -> Result<()> {
    let before = site.daemon.status()?.generation;
    let mistakes = configuration
        .replacen("ttl = \"30s\"", "ttl = \"soon\"", 1)
        .replacen("link = \"wan1\"", "link = \"wan7\"", 1);
    site.configure(&format!("{mistakes}{ANOTHER_SERVICE}"))?;
    let refused = site.failover(&["reload"])?;
    ensure!(
        (refused.code, &*refused.out) == (Some(1), ""),
        "{refused:?}"
    );
    let file = site.lab.config_file();
    let mut lines = refused.err.lines();
    for want in [
        "ttl: expected a duration",
        "link: expected the name of a [[wan]]",
    ] {
        let line = lines.next().context("too few errors")?;
        let place = line.strip_prefix(&format!("{}:", file.display()));
        let rest = place.and_then(|rest| rest.split_once(": "));
        let (place, message) = rest.with_context(|| line.to_owned())?;
        ensure!(message.starts_with(want), "{line}");
        let place = place.split_once(':').context("line and column")?;
        ensure!(
            place.0.parse::<u32>().is_ok() && place.1.parse::<u32>().is_ok(),
            "{line}"
        );
    }
    ensure!(lines.next() == Some("failover: not reloaded: nothing has changed"));
    ensure!(site.daemon.status()?.generation == before);
    site.client
        .time_until(NS1, NAME, Rtype::A, &set(&[WAN1, WAN2]), BOUND)?;

    site.configure(configuration)?;
    let unchanged = site.reload()?;
    ensure!(unchanged.out == "nothing has changed\n", "{unchanged:?}");
    Ok(())
}

/// Each reload changes a TTL. Over both uplinks and from user space, over a connection that outlives
/// all of them, nobody sees an older one after a newer one.
#[test]
fn no_older_answer_comes_after_a_newer_one() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let mut site = Site::start("native", &Config::default())?;
    let configuration = fs::read_to_string(site.lab.config_file())?;
    let netns = site.lab.netns(Host::Client);
    let mut client = Client::new(&netns)?;
    let mut connection = netns.enter(|| Ok(TcpStream::connect((NS1, 53))?))?;
    connection.set_read_timeout(Some(BOUND))?;
    let done = AtomicBool::new(false);
    let last = thread::scope(|scope| {
        let asker = scope.spawn(|| -> Result<u32> {
            let mut newest = 30;
            while !done.load(Ordering::Relaxed) {
                for way in [Some(NS1), None, Some(NS2), None] {
                    let ttl = match way {
                        Some(server) => {
                            let reply = client.ask(server, NAME, Rtype::A, BOUND)?;
                            ttl(&reply.context("no reply")?.message)?
                        }
                        None => ask_over(&mut connection)?,
                    };
                    ensure!(ttl >= newest, "{ttl} after {newest} from {way:?}");
                    newest = ttl;
                }
            }
            Ok(newest)
        });
        let reloads = (31..41).try_for_each(|seconds| {
            let ttl = format!("ttl = \"{seconds}s\"");
            site.configure(&configuration.replacen("ttl = \"30s\"", &ttl, 1))?;
            site.reload().map(drop)
        });
        done.store(true, Ordering::Relaxed);
        let last = asker.join().expect("a client does not panic");
        reloads.and(last)
    })?;
    assert_eq!(last, 40);
    without_xdp_and_back(&mut site, &configuration)
}

fn without_xdp_and_back(site: &mut Site, configuration: &str) -> Result<()> {
    let start = configuration
        .find("interfaces = [")
        .context("no interfaces")?;
    let len = configuration[start..].find('\n').context("no end")?;
    let mut without = configuration.to_owned();
    without.replace_range(start..start + len, "interfaces = []");
    site.configure(&without)?;
    site.reload()?;
    ensure!(site.programs()?.is_empty(), "{:?}", site.programs()?);
    let both = set(&[WAN1, WAN2]);
    site.client.time_until(NS1, NAME, Rtype::A, &both, BOUND)?;
    site.configure(configuration)?;
    site.reload()?;
    ensure!(site.programs()?.len() == 3, "{:?}", site.programs()?);
    site.client.time_until(NS1, NAME, Rtype::A, &both, BOUND)?;
    site.answered_by_xdp(1, |site| {
        let reply = site.client.ask(NS1, NAME, Rtype::A, BOUND)?;
        reply.context("no reply").map(drop)
    })
}

/// The TTL of the first answer.
fn ttl(message: &Message<Vec<u8>>) -> Result<u32> {
    let record = message.answer()?.next().context("no answer")??;
    Ok(record.ttl().as_secs())
}

/// The TTL that user space answers with.
fn ask_over(connection: &mut TcpStream) -> Result<u32> {
    let mut query = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in NAME.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let len = u16::try_from(query.len())?;
    connection.write_all(&[&len.to_be_bytes(), &query[..]].concat())?;
    let mut len = [0; 2];
    connection.read_exact(&mut len)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(len))];
    connection.read_exact(&mut reply)?;
    ttl(&Message::from_octets(reply).ok().context("a short reply")?)
}

/// How many BPF maps and programs a process holds.
fn maps(pid: u32) -> Result<usize> {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo"))?;
    let infos = infos.map(|info| Ok(fs::read_to_string(info?.path()).unwrap_or_default()));
    let infos = infos.collect::<Result<Vec<_>>>()?;
    let is_bpf = |info: &&String| info.contains("map_id:") || info.contains("prog_id:");
    Ok(infos.iter().filter(is_bpf).count())
}

impl Site {
    fn status(&self) -> Result<Value> {
        let status = self.failover(&["status", "--json"])?;
        serde_json::from_str(&status.out).with_context(|| status.err)
    }

    fn configure(&self, text: &str) -> Result<()> {
        fs::write(self.lab.config_file(), text).context("write the configuration")
    }

    fn reload(&self) -> Result<Run> {
        let run = self.failover(&["reload"])?;
        ensure!(run.code == Some(0) && run.err.is_empty(), "{run:?}");
        Ok(run)
    }

    /// What a name is answered with, and that it is XDP that counts it so.
    fn rcode_by_xdp(&mut self, name: &str, counter: &str) -> Result<Rcode> {
        let count = |site: &Self| -> Result<u64> {
            let stats: Value = serde_json::from_str(&site.failover(&["stats", "--json"])?.out)?;
            let count = if counter == "answered" {
                // dnsperf asks for other names.
                let services = stats["services"].as_array().context("no services")?;
                let service = services.iter().find(|service| service["name"] == "api");
                service
                    .map_or(&Value::Null, |service| &service["a"])
                    .as_u64()
            } else {
                stats["counters"][counter].as_u64()
            };
            count.with_context(|| format!("no {counter} in {stats:#}"))
        };
        let before = count(self)?;
        let reply = self.client.ask(NS1, name, Rtype::A, BOUND)?;
        let reply = reply.context("no reply")?;
        let after = count(self)?;
        ensure!(after == before + 1, "{name}: {before}, then {after}");
        Ok(reply.rcode)
    }
}
