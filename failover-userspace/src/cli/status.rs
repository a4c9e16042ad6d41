//! `failover status`.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;

use super::client::unexpected;
use super::text::{Cell, age, bad, good, left, mode, of_state, rtt, table, title, unusual};
use super::watch::watch;
use super::{print, print_json};
use crate::health::{Admin, AdminState, Carrier, Verdict};
use crate::model::{Priority, Tier};
use crate::protocol::{
    PortForwardStatus, Reply, Request, ServerStatus, ServiceStatus, Status, WanStatus, XdpState,
};

pub(super) fn status(args: &super::Status) -> Result<ExitCode> {
    if args.watch {
        return watch(&args.daemon, args.json);
    }
    let mut client = args.daemon.connect()?;
    let Reply::Status(status) = client.ask(&Request::Status {})? else {
        return Err(unexpected());
    };
    if args.json {
        print_json(&status)?;
    } else {
        print(&shown(&status, Timestamp::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The status for people.
pub(super) fn shown(status: &Status, now: Timestamp) -> String {
    let listen: Vec<String> = status.listen.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "generation {}, answering at {}\n\n",
        status.generation,
        listen.join(", ")
    );
    text += &services(&status.services, now);
    let parts = [
        set_by_hand(status, now),
        servers(&status.services, now),
        wans(&status.wans, now),
        interfaces(status),
    ];
    for rows in parts.iter().filter(|rows| rows.len() > 1) {
        text.push('\n');
        text += &table("", rows);
    }
    if let Some(line) = port_forward(&status.port_forward) {
        let _ = writeln!(text, "\nport forwarding: {line}");
    }
    let counters = &status.counters;
    let _ = writeln!(
        text,
        "\npackets: {} received, {} answered, {} passed, {} answered by user space",
        counters.rx, counters.answered, counters.passed, counters.slow_path
    );
    text
}

fn services(services: &[ServiceStatus], now: Timestamp) -> String {
    let mut rows = vec![title(["SERVICE", "TIER", "TTL", "FOR", "ANSWER"])];
    rows.extend(services.iter().map(|service| {
        vec![
            Cell::from(service.name.clone()),
            match service.tier {
                Some(Tier::Primary) => Cell::from(Tier::Primary.as_str()),
                Some(tier) => Cell::new(tier.as_str(), unusual()),
                None => Cell::new("none", bad()),
            },
            Cell::from(service.ttl.to_string()),
            Cell::from(age(service.since, now)),
            Cell::from(addresses(&service.answer, &service.rcode)),
        ]
    }));
    let mut text = table("", &rows);
    for service in services.iter().filter(|service| service.tier.is_none()) {
        let _ = writeln!(text, "  {}: {}", service.name, service.reason);
    }
    text
}

/// Servers and links that do not follow their checks, and who has said so.
fn set_by_hand(status: &Status, now: Timestamp) -> Vec<Vec<Cell>> {
    let mut rows = vec![title([
        "SET BY HAND",
        "TO",
        "VERDICT",
        "BY",
        "FOR",
        "LEFT",
        "REASON",
    ])];
    let mut add = |name: String, admin: &Admin, verdict: Verdict| {
        if admin.state == AdminState::Auto {
            return;
        }
        let reason = admin.reason.as_ref().map(ToString::to_string);
        rows.push(vec![
            Cell::from(name),
            Cell::new(admin.state.as_str(), unusual()),
            of_verdict(verdict),
            Cell::from(admin.by.as_deref().unwrap_or("-")),
            Cell::from(
                admin
                    .since
                    .map_or_else(|| "-".to_owned(), |since| age(since, now)),
            ),
            Cell::from(
                admin
                    .until
                    .map_or_else(|| "-".to_owned(), |until| left(until, now)),
            ),
            Cell::from(reason.unwrap_or_default()),
        ]);
    };
    for service in &status.services {
        for server in &service.servers {
            add(full_name(service, server), &server.admin, server.verdict);
        }
    }
    for wan in &status.wans {
        add(format!("wan/{}", wan.name), &wan.admin, wan.verdict);
    }
    rows
}

fn servers(services: &[ServiceStatus], now: Timestamp) -> Vec<Vec<Cell>> {
    let mut rows = vec![title([
        "SERVER",
        "ADDRESS",
        "PRIORITY",
        "SITE",
        "STATE",
        "VERDICT",
        "ADMIN",
        "FOR",
        "RTT",
        "LAST ERROR",
    ])];
    for service in services {
        rows.extend(service.servers.iter().map(|server| {
            vec![
                Cell::from(full_name(service, server)),
                Cell::from(SocketAddr::new(server.address, server.port.get()).to_string()),
                Cell::from(priority(server.priority)),
                Cell::from(if server.offsite { "offsite" } else { "onsite" }),
                of_state(server.effective),
                of_verdict(server.verdict),
                of_admin(&server.admin),
                Cell::from(age(server.since, now)),
                Cell::from(rtt(server.rtt_us)),
                Cell::from(server.last_error.clone().unwrap_or_default()),
            ]
        }));
    }
    rows
}

fn wans(wans: &[WanStatus], now: Timestamp) -> Vec<Vec<Cell>> {
    let mut rows = vec![title([
        "WAN",
        "STATE",
        "VERDICT",
        "ADMIN",
        "FOR",
        "INTERFACE",
        "TARGETS",
    ])];
    rows.extend(wans.iter().map(|wan| {
        vec![
            Cell::from(wan.name.clone()),
            of_state(wan.effective),
            of_verdict(wan.verdict),
            of_admin(&wan.admin),
            Cell::from(age(wan.since, now)),
            Cell::from(interface(wan)),
            Cell::from(targets(wan)),
        ]
    }));
    rows
}

fn interfaces(status: &Status) -> Vec<Vec<Cell>> {
    let mut rows = vec![title(["INTERFACE", "XDP"])];
    rows.extend(status.interfaces.iter().map(|interface| {
        let style = match interface.xdp {
            XdpState::Detached => bad(),
            XdpState::Native | XdpState::Generic => good(),
        };
        vec![
            Cell::from(interface.name.clone()),
            Cell::new(mode(interface), style),
        ]
    }));
    rows
}

/// As `failover set` takes it.
fn full_name(service: &ServiceStatus, server: &ServerStatus) -> String {
    format!("{}/{}", service.name, server.name)
}

fn of_verdict(verdict: Verdict) -> Cell {
    match verdict {
        Verdict::Down => Cell::new(verdict.as_str(), bad()),
        Verdict::Up | Verdict::Unknown => Cell::from(verdict.as_str()),
    }
}

fn of_admin(admin: &Admin) -> Cell {
    match admin.state {
        AdminState::Auto => Cell::from(admin.state.as_str()),
        state => Cell::new(state.as_str(), unusual()),
    }
}

/// `None`: nothing is forwarded, and nothing is wrong.
fn port_forward(status: &PortForwardStatus) -> Option<String> {
    let rules = status.rules;
    let addresses = if rules == 1 { "address" } else { "addresses" };
    let rules = match (status.enabled, status.applied) {
        (false, _) if status.error.is_none() => return None,
        (false, _) => "off".to_owned(),
        (true, true) => format!("{rules} {addresses}"),
        (true, false) => format!("{rules} {addresses}, not up to date"),
    };
    let error = status.error.as_ref();
    let error = error.map_or_else(String::new, |error| format!("; trying again: {error}"));
    Some(rules + &error)
}

/// What is answered.
pub(super) fn addresses(answer: &[IpAddr], rcode: &str) -> String {
    if answer.is_empty() {
        return match rcode {
            "NOERROR" => "no address".to_owned(),
            rcode => rcode.to_owned(),
        };
    }
    let addresses: Vec<String> = answer.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}

pub(super) const fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Disabled => "disabled",
        Priority::Tier(tier) => tier.as_str(),
    }
}

fn interface(wan: &WanStatus) -> String {
    let carrier = match wan.carrier {
        None => "not known yet",
        Some(Carrier::Up) => "carrier",
        Some(Carrier::Down) => "no carrier",
        Some(Carrier::NotWatched) => "not watched",
    };
    wan.interface
        .as_ref()
        .map_or_else(|| "-".to_owned(), |name| format!("{name} ({carrier})"))
}

fn targets(wan: &WanStatus) -> String {
    let targets = wan.targets.iter().map(|target| {
        let error = target.last_error.as_ref();
        let error = error.map_or_else(String::new, |error| format!(" ({error})"));
        format!("{} {}{error}", target.target, target.verdict)
    });
    let targets: Vec<String> = targets.collect();
    if targets.is_empty() {
        "-".to_owned()
    } else {
        targets.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{
        "generation": 7, "listen": ["192.0.2.53:53"],
        "interfaces": [{ "name": "eth0", "xdp": "native" }],
        "services": [{
            "name": "www", "fqdn": ["www.example.com"], "tier": "backup", "reason": "why",
            "answer": ["192.0.2.1"], "rcode": "NOERROR", "ttl": 30,
            "since": "1970-01-01T00:00:00Z", "generation": 7,
            "servers": [{
                "name": "web-a", "address": "192.0.2.1", "port": 80, "priority": "primary",
                "offsite": false, "verdict": "up", "admin": "drain", "admin_reason": "kernel",
                "admin_until": "1970-01-01T02:01:00Z", "admin_by": "alice",
                "admin_since": "1970-01-01T00:00:30Z", "effective": "drain",
                "since": "1970-01-01T00:00:30Z", "last_error": null, "rtt_us": 310, "checks": []
            }]
        }],
        "wans": [{
            "name": "wan1", "verdict": "down", "admin": "auto", "effective": "down",
            "since": "1970-01-01T00:00:00Z", "interface": null, "carrier": "not_watched",
            "min_up": 1, "targets": []
        }],
        "port_forward": { "enabled": false, "applied": false, "error": null, "rules": 0 },
        "counters": { "rx": 5, "answered": 3, "passed": 2, "slow_path": 1 }
    }"#;

    fn at_minute_one(status: &str) -> String {
        let status: Status = serde_json::from_str(status).unwrap();
        shown(&status, Timestamp::from_second(60).unwrap())
    }

    #[test]
    fn a_status_for_people() {
        let text = at_minute_one(STATUS);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "\
generation 7, answering at 192.0.2.53:53

SERVICE  TIER    TTL  FOR    ANSWER
www      backup  30   1m00s  192.0.2.1

SET BY HAND  TO     VERDICT  BY     FOR  LEFT   REASON
www/web-a    drain  up       alice  30s  2h00m  kernel

SERVER     ADDRESS       PRIORITY  SITE    STATE  VERDICT  ADMIN  FOR  RTT      LAST ERROR
www/web-a  192.0.2.1:80  primary   onsite  drain  up       drain  30s  0.31 ms

WAN   STATE  VERDICT  ADMIN  FOR    INTERFACE  TARGETS
wan1  down   down     auto   1m00s  -          -

INTERFACE  XDP
eth0       native

packets: 5 received, 3 answered, 2 passed, 1 answered by user space
"
        );
        for coloured in [
            "\u{1b}[33mdrain\u{1b}[0m",
            "\u{1b}[31mdown",
            "\u{1b}[1mSERVER",
        ] {
            assert!(text.contains(coloured), "{coloured:?} in {text:?}");
        }
    }

    #[test]
    fn what_is_as_usual_is_not_listed() {
        let status = STATUS
            .replace("\"admin\": \"drain\"", "\"admin\": \"auto\"")
            .replace(
                "\"tier\": \"backup\", \"reason\": \"why\"",
                "\"tier\": null, \"reason\": \"why\"",
            );
        let text = at_minute_one(&status);
        assert!(!text.contains("SET BY HAND"), "{text}");
        assert!(text.contains("\n  www: why\n"), "{text}");
    }
}

#[test]
fn port_forwarding_in_a_line() {
    let error = || Some("nft: no".to_owned());
    for (enabled, applied, error, rules, want) in [
        (false, false, None, 0, None),
        (false, false, error(), 0, Some("off; trying again: nft: no")),
        (true, true, None, 1, Some("1 address")),
        (true, true, None, 4, Some("4 addresses")),
        (true, false, None, 0, Some("0 addresses, not up to date")),
        (
            true,
            false,
            error(),
            2,
            Some("2 addresses, not up to date; trying again: nft: no"),
        ),
    ] {
        let status = PortForwardStatus {
            enabled,
            applied,
            error,
            rules,
        };
        assert_eq!(port_forward(&status).as_deref(), want, "{status:?}");
    }
}
