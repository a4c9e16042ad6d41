//! Port forwarding: real connections through real rules.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use failover_tests::lab::{Config, Host, Lab, LinkState, Netns, Server, Wan};
use failover_tests::reference::OFFSITE;
use failover_tests::{command, privileged};
use serde_json::Value;

use crate::site::{BOUND, Site, lab, wait_until};

/// The WAN addresses of `www`, and one of `six`.
const WAN1: &str = "198.51.100.134:80";
const WAN2: &str = "203.0.113.70:80";
const WAN1_V6: &str = "[2001:db8:1::134]:8080";
/// Of `spread`.
const SPREAD: &str = "198.51.100.134:8080";

const ON: &str = "\n[port_forward]\nenabled = true\n";

/// Services to forward, beside those of the reference case.
const SERVICES: &str = r#"
[[service]]
name = "six"
fqdn = ["six.example.com"]
port = 8080
wan = [{ link = "wan1", address = "2001:db8:1::134" }]

[[service.server]]
name = "web-a"
address = "2001:db8:10::10"
port = 80

[[service.server]]
name = "web-b"
address = "2001:db8:10::11"
port = 80
priority = "backup"

[[service]]
name = "spread"
fqdn = ["spread.example.com"]
port = 8080
wan = [{ link = "wan1", address = "198.51.100.134" }]

[[service.server]]
name = "web-a"
address = "192.168.10.10"
port = 80
weight = 3

[[service.server]]
name = "web-b"
address = "192.168.10.11"
port = 80
"#;

/// A table of somebody else's, with nearly our name.
const FOREIGN: &str = r#"
table ip failover {
	comment "Failover: port forwarding"
	set hosts {
		type ipv4_addr
		elements = { 192.0.2.1, 192.0.2.2 }
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		ip saddr @hosts tcp dport 80 drop
	}
}
table inet firewall {
	chain input {
		type filter hook input priority filter; policy accept;
		ct state invalid accept
	}
}
"#;

/// The configuration with more sections.
fn config(sections: &str) -> Config {
    Config {
        extra: format!("{SERVICES}{sections}"),
        ..Config::default()
    }
}

/// The lab as others have left it, with port forwarding configured, and what rules it has.
fn prepared() -> Result<(Lab, String)> {
    let lab = lab(&config(ON))?;
    let file = lab.dir().join("foreign.nft");
    std::fs::write(&file, FOREIGN)?;
    let netns = lab.netns(Host::Ns);
    netns.output(command::command("nft").arg("-f").arg(&file))?;
    let before = ruleset(&lab)?;
    ensure!(before.contains("table inet firewall"), "{before}");
    Ok((lab, before))
}

/// All rules of the name server.
fn ruleset(lab: &Lab) -> Result<String> {
    let mut nft = command::command("nft");
    lab.netns(Host::Ns).output(nft.args(["list", "ruleset"]))
}

/// Who serves a new connection.
fn served(from: &Netns, to: &str) -> Result<String> {
    let to: SocketAddr = to.parse()?;
    from.enter(|| {
        let mut stream = TcpStream::connect_timeout(&to, BOUND).context("connect")?;
        stream.set_read_timeout(Some(BOUND))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (_, body) = response.split_once("\r\n\r\n").context("no response")?;
        let name = body.trim().strip_prefix("this is ");
        name.map(str::to_owned).with_context(|| body.to_owned())
    })
}

/// A connection that lasts.
struct Talk {
    stream: BufReader<TcpStream>,
    name: String,
}

impl Talk {
    fn begin(from: &Netns, to: &str) -> Result<Self> {
        let to: SocketAddr = to.parse()?;
        let stream = from.enter(|| Ok(TcpStream::connect_timeout(&to, BOUND)?))?;
        stream.set_read_timeout(Some(BOUND))?;
        let mut talk = Self {
            stream: BufReader::new(stream),
            name: String::new(),
        };
        talk.name = talk.say()?;
        Ok(talk)
    }

    /// With the server of that name.
    fn with(from: &Netns, to: &str, name: &str) -> Result<Self> {
        for _ in 0..1000 {
            let talk = Self::begin(from, to)?;
            if talk.name == format!("this is {name}\n") {
                return Ok(talk);
            }
        }
        bail!("none of a thousand connections is with {name}");
    }

    /// Says something, and returns what is said to it.
    fn say(&mut self) -> Result<String> {
        self.stream.get_mut().write_all(b"hello\n")?;
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "closed");
        Ok(line)
    }

    /// It goes on with whom it began.
    fn goes_on(&mut self) -> Result<()> {
        let name = self.name.clone();
        ensure!(self.say()? == name, "another server than {name}");
        Ok(())
    }

    /// Waits for its end, which whoever goes on talking gets to know.
    fn ends(mut self) -> Result<()> {
        let stream = self.stream.get_mut();
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        let deadline = Instant::now() + BOUND;
        while Instant::now() < deadline {
            if stream.write_all(b"hello\n").is_err() {
                return Ok(());
            }
            match stream.read(&mut [0; 64]) {
                Ok(0) => return Ok(()),
                Ok(_) => bail!("it goes on"),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Ok(()),
            }
        }
        bail!("it has not ended within {BOUND:?}");
    }
}

/// `port_forward` of the status.
fn status(site: &Site) -> Result<Value> {
    let run = site.failover(&["status", "--json"])?;
    let status: Value = serde_json::from_str(&run.out).with_context(|| run.err)?;
    Ok(status["port_forward"].clone())
}

/// Waits until new connections are with a server, and the status says that all is well.
fn wait_for_server(site: &Site, from: &Netns, to: &str, name: &str) -> Result<()> {
    let what = format!("{name} serves {to}");
    wait_until(&what, || {
        let is = served(from, to).is_ok_and(|server| server == name);
        Ok(is && status(site)?["applied"] == true)
    })
}

#[test]
fn connections_go_where_the_answer_leads() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let (lab, before) = prepared()?;
    let mut site = Site::start_in(lab, "native")?;
    let client = site.lab.netns(Host::Client);
    // From outside; from this host itself; and from behind it, where the server is the client.
    for host in [Host::Client, Host::Ns, Host::WebA] {
        let from = site.lab.netns(host);
        for to in [WAN1, WAN2, WAN1_V6, SPREAD] {
            let name = served(&from, to).with_context(|| format!("{to} from {host}"))?;
            assert_eq!(name, "web-a", "{to} from {host}");
        }
    }
    // `dual` shares the addresses of `www`; its others lead nowhere.
    let want = r#"{ "enabled": true, "applied": true, "error": null, "rules": 4 }"#;
    assert_eq!(status(&site)?, serde_json::from_str::<Value>(want)?);
    let table = site.failover(&["status"])?.out;
    assert!(
        table.contains("\nport forwarding: 4 addresses\n"),
        "{table}"
    );

    for (name, want) in [
        ("www", "forwarded    IPv4 connections to web-a (primary)\n"),
        ("six", "forwarded    IPv6 connections to web-a (primary)\n"),
    ] {
        let explained = site.failover(&["explain", name])?.out;
        assert!(explained.ends_with(want), "{explained}");
    }

    // One server after the other, and back. The answer stays, the connections move.
    site.lab.revive(Server::WebB)?;
    site.lab.kill(Server::WebA)?;
    for to in [WAN1, WAN2, WAN1_V6] {
        wait_for_server(&site, &client, to, "web-b")?;
    }
    // Both are gone: who has the old answer in its cache comes to the first tier.
    site.lab.kill(Server::WebB)?;
    site.wait_for_answer(&[OFFSITE])?;
    site.lab.revive(Server::WebB)?;
    wait_for_server(&site, &client, WAN1, "web-b")?;
    site.lab.revive(Server::WebA)?;
    wait_for_server(&site, &client, WAN1, "web-a")?;
    // A link that is down takes nothing from those who come by another.
    site.lab.set_link(Wan::Wan1, LinkState::Down)?;
    site.wait_for_answer(&[WAN2.parse::<SocketAddr>()?.ip()])?;
    for to in [WAN1, WAN2] {
        assert_eq!(served(&client, to)?, "web-a", "{to}");
    }
    site.lab.set_link(Wan::Wan1, LinkState::Up)?;

    // Ours are the last that were made.
    let now = ruleset(&site.lab)?;
    let ours = now.strip_prefix(&before).context(now.clone())?;
    assert!(ours.starts_with("table inet failover {"), "{ours}");
    let detached = site.failover(&["detach"])?;
    assert_eq!(detached.code, Some(0), "{detached:?}");
    let removed = ", table inet failover removed; the daemon is ending\n";
    assert!(detached.out.ends_with(removed), "{detached:?}");
    assert_eq!(ruleset(&site.lab)?, before);
    Ok(())
}

/// On and off by reloads, and to other servers.
#[test]
fn a_reload_forwards_otherwise() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let (lab, before) = prepared()?;
    let site = Site::start_in(lab, "native")?;
    let client = site.lab.netns(Host::Client);
    site.lab.revive(Server::WebB)?;
    let file = site.lab.config_file();
    let forwarding = std::fs::read_to_string(&file)?;
    let reload = |text: &str, want: &str| -> Result<()> {
        std::fs::write(&file, text)?;
        let reloaded = site.failover(&["reload"])?;
        ensure!(reloaded.code == Some(0), "{reloaded:?}");
        ensure!(reloaded.out.contains(want), "{reloaded:?}");
        Ok(())
    };

    reload(
        &forwarding.replace(ON, ""),
        "port forwarding  1 altered (enabled)",
    )?;
    wait_until("no rules", || Ok(ruleset(&site.lab)? == before))?;
    assert!(served(&client, WAN1).is_err());

    // On again, and web-a is not there any more.
    let (a, b) = ("address = \"192.168.10.10\"", "address = \"192.168.10.11\"");
    let others = forwarding
        .replace(a, "address = \"192.168.10.12\"")
        .replace(b, a)
        .replace("address = \"192.168.10.12\"", b);
    reload(&others, "port forwarding  1 altered (enabled)")?;
    wait_for_server(&site, &client, WAN1, "web-b")?;

    // Another's table of our name: nothing changes.
    reload(&others.replace(ON, ""), "port forwarding")?;
    wait_until("no rules", || Ok(ruleset(&site.lab)? == before))?;
    let netns = site.lab.netns(Host::Ns);
    netns.output(command::command("nft").args(["add", "table", "inet", "failover"]))?;
    std::fs::write(&file, &forwarding)?;
    let refused = site.failover(&["reload"])?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("that is not ours"), "{refused:?}");
    assert_eq!(status(&site)?["enabled"], false);
    Ok(())
}

#[test]
fn connections_go_on_with_servers_that_stay() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let (lab, _) = prepared()?;
    lab.revive(Server::WebB)?;
    let site = Site::start_in(lab, "native")?;
    let client = site.lab.netns(Host::Client);
    let mut stays = Talk::with(&client, SPREAD, "web-a")?;
    let leaves = Talk::with(&client, SPREAD, "web-b")?;

    // Three of four are with web-a; more than seven standard deviations are nobody's luck.
    let names = (0..400).map(|_| served(&client, SPREAD));
    let names = names.collect::<Result<Vec<_>>>()?;
    let with_a = names.iter().filter(|name| *name == "web-a").count();
    assert!((235..=365).contains(&with_a), "{with_a} of 400");

    // Nothing of web-b is heard any more: that its connections end is our doing.
    site.lab.black_hole(Server::WebB)?;
    leaves.ends()?;
    stays.goes_on()?;
    let names = (0..50).map(|_| served(&client, SPREAD));
    for name in names.collect::<Result<Vec<_>>>()? {
        assert_eq!(name, "web-a");
    }

    // It comes back, takes connections, and those of web-a still go on.
    site.lab.revive(Server::WebB)?;
    wait_until("web-b takes connections again", || {
        Ok(served(&client, SPREAD)? == "web-b")
    })?;
    stays.goes_on()
}

#[test]
fn rules_outlive_the_daemon() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let (lab, before) = prepared()?;
    let mut site = Site::start_in(lab, "native")?;
    let client = site.lab.netns(Host::Client);
    may_do_no_more(site.daemon.pid())?;
    let mut talk = Talk::with(&client, WAN1, "web-a")?;

    // Whatever becomes of the daemon, clients are served, and not cut by the next one.
    site.daemon.terminate(BOUND)?;
    assert_eq!(served(&client, WAN1)?, "web-a");
    talk.goes_on()?;
    site.start_again()?;
    talk.goes_on()?;
    site.crash()?;
    assert_eq!(served(&client, WAN1)?, "web-a");
    site.start_again()?;
    talk.goes_on()?;

    // As `systemctl reload nftables` does it.
    let netns = site.lab.netns(Host::Ns);
    let foreign = site.lab.dir().join("foreign.nft");
    netns.output(command::command("nft").args(["flush", "ruleset"]))?;
    netns.output(command::command("nft").arg("-f").arg(foreign))?;
    wait_until("the rules are put back", || {
        Ok(ruleset(&site.lab)?.contains("table inet failover"))
    })?;
    wait_for_server(&site, &client, WAN1, "web-a")?;

    // Without a daemon.
    site.crash()?;
    let detach = || {
        let mut detach = Command::new(failover_tests::daemon()?);
        netns.output(detach.args(["detach", "-c"]).arg(site.lab.config_file()))
    };
    assert_eq!(
        detach()?,
        "no daemon is running; program taken off 3 interfaces, table inet failover removed\n"
    );
    assert_eq!(ruleset(&site.lab)?, before);
    assert_eq!(site.programs()?.len(), 0);
    let nothing = "no daemon is running, and none has left anything\n";
    assert_eq!(detach()?, nothing);

    // Not configured any more: what is left is removed at the start.
    site.start_again()?;
    assert_ne!(ruleset(&site.lab)?, before);
    site.crash()?;
    site.lab.configure(&config(""))?;
    site.start_again()?;
    wait_until("the table is gone", || Ok(ruleset(&site.lab)? == before))?;
    site.daemon.terminate(BOUND)?;

    // Servers that know no way back to the client, and a name that is taken.
    site.lab.configure(&config(&format!("{ON}snat = true\n")))?;
    site.lab
        .netns(Host::WebA)
        .ip(&["route", "delete", "default"])?;
    site.start_again()?;
    assert_eq!(served(&client, WAN1)?, "web-a");
    site.failover(&["detach"])?;
    site.daemon.wait()?;
    netns.output(command::command("nft").args(["add", "table", "inet", "failover"]))?;
    let taken = ruleset(&site.lab)?;
    let mut run = Command::new(failover_tests::daemon()?);
    let refused = netns.output(run.args(["run", "-c"]).arg(site.lab.config_file()));
    let refused = format!("{:#}", refused.expect_err("the table is somebody else's"));
    assert!(refused.contains("that is not ours"), "{refused}");
    assert_eq!(ruleset(&site.lab)?, taken);
    Ok(())
}

/// With several uplinks, the host's routing sees to it, as README.md has it.
#[test]
fn replies_leave_by_the_uplink_of_the_client() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    const TIMES: u64 = 40;
    let (lab, _) = prepared()?;
    let site = Site::start_in(lab, "native")?;
    let (client, netns) = (site.lab.netns(Host::Client), site.lab.netns(Host::Ns));
    let sent = |interface: &str| -> Result<u64> {
        let mut show = command::command("ip");
        show.args([
            "-n",
            netns.name(),
            "-json",
            "-stats",
            "link",
            "show",
            interface,
        ]);
        let links: Value = serde_json::from_str(&command::output(&mut show)?)?;
        let packets = links.pointer("/0/stats64/tx/packets");
        packets.and_then(Value::as_u64).context("no statistics")
    };
    // More by wan2 than by wan1, over many connections: probes leave by both.
    let by_wan2 = || -> Result<bool> {
        let before = (sent("wan1")?, sent("wan2")?);
        for _ in 0..TIMES {
            assert_eq!(served(&client, WAN2)?, "web-a");
        }
        let after = (sent("wan1")?, sent("wan2")?);
        let (wan1, wan2) = (after.0 - before.0, after.1 - before.1);
        ensure!(wan1.max(wan2) >= 3 * TIMES, "{wan1} and {wan2} packets");
        Ok(wan2 > wan1 + TIMES)
    };
    ensure!(!by_wan2()?, "the lab's default route is not by wan1");

    let readme = include_str!("../../../README.md");
    let (_, example) = readme
        .split_once("```\nnft add table inet uplinks\n")
        .context("no example")?;
    let (example, _) = example.split_once("```").context("no end")?;
    for line in std::iter::once("nft add table inet uplinks").chain(example.lines()) {
        let mut shell = Command::new("sh");
        let path = "PATH=$PATH:/usr/sbin:/sbin";
        netns.output(shell.args(["-c", &format!("{path}; {line}")]))?;
    }
    ensure!(by_wan2()?, "replies leave by wan1");
    Ok(())
}

/// The thread that starts nft, and with it nft, may configure the network and nothing else.
fn may_do_no_more(daemon: u32) -> Result<()> {
    const NET_ADMIN: u64 = 1 << 12;
    for task in std::fs::read_dir(format!("/proc/{daemon}/task"))? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        if status.starts_with("Name:\tport forwarding\n") {
            let want = format!("CapPrm:\t{NET_ADMIN:016x}\n");
            ensure!(status.contains(&want), "{status}");
            return Ok(());
        }
    }
    bail!("no thread forwards");
}

#[test]
fn check_warns_where_the_kernel_forwards_nothing() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = lab(&config(ON))?;
    for (host, forwards) in [(Host::Ns, true), (Host::Client, false)] {
        let mut check = Command::new(failover_tests::daemon()?);
        let out = lab
            .netns(host)
            .output(check.arg("check").arg(lab.config_file()))?;
        for family in ["IPv4", "IPv6"] {
            let warning = format!("warning: the kernel does not forward {family}:");
            assert_eq!(out.contains(&warning), !forwards, "{host}: {out}");
        }
        assert!(out.contains("failover.toml: ok ("), "{out}");
    }
    Ok(())
}
