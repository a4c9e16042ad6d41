//! `failover status`.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use super::client::unexpected;
use super::text::{age, header, mode, rtt, table};
use super::{print, print_json};
use crate::health::Carrier;
use crate::model::Priority;
use crate::protocol::{PortForwardStatus, Reply, Request, ServiceStatus, Status, WanStatus};

/// Between two looks of `--watch`.
const PERIOD: Duration = Duration::from_secs(1);
/// Moves to the upper left corner, and clears all below.
const REDRAW: &str = "\x1b[H\x1b[J";

pub(super) fn status(args: &super::Status) -> Result<ExitCode> {
    let mut client = args.daemon.connect()?;
    let redraw = args.watch && !args.json && io::stdout().is_terminal();
    loop {
        let Reply::Status(status) = client.ask(&Request::Status {})? else {
            return Err(unexpected());
        };
        if args.json {
            print_json(&status)?;
        } else {
            let text = shown(&status, Timestamp::now())?;
            print(&if redraw {
                format!("{REDRAW}{text}")
            } else {
                text
            })?;
        }
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        sleep(PERIOD);
    }
}

fn shown(status: &Status, now: Timestamp) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let listen: Vec<String> = status.listen.iter().map(ToString::to_string).collect();
    writeln!(
        text,
        "generation {}, answering at {}\n",
        status.generation,
        listen.join(", ")
    )?;

    let mut rows = vec![header(["SERVICE", "TIER", "TTL", "FOR", "ANSWER"])];
    rows.extend(status.services.iter().map(|service| {
        vec![
            service.name.clone(),
            service
                .tier
                .map_or_else(|| "none".to_owned(), |tier| tier.to_string()),
            service.ttl.to_string(),
            age(service.since, now),
            answer(service),
        ]
    }));
    text += &table("", &rows);
    for service in status
        .services
        .iter()
        .filter(|service| service.tier.is_none())
    {
        writeln!(text, "  {}: {}", service.name, service.reason)?;
    }

    let mut rows = vec![header([
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
    for service in &status.services {
        rows.extend(service.servers.iter().map(|server| {
            vec![
                format!("{}/{}", service.name, server.name),
                std::net::SocketAddr::new(server.address, server.port.get()).to_string(),
                priority(server.priority).to_owned(),
                if server.offsite { "offsite" } else { "onsite" }.to_owned(),
                server.effective.to_string(),
                server.verdict.to_string(),
                server.admin.to_string(),
                age(server.since, now),
                rtt(server.rtt_us),
                server.last_error.clone().unwrap_or_default(),
            ]
        }));
    }
    text += "\n";
    text += &table("", &rows);

    if !status.wans.is_empty() {
        let mut rows = vec![header([
            "WAN",
            "STATE",
            "VERDICT",
            "ADMIN",
            "FOR",
            "INTERFACE",
            "TARGETS",
        ])];
        rows.extend(status.wans.iter().map(|wan| {
            vec![
                wan.name.clone(),
                wan.effective.to_string(),
                wan.verdict.to_string(),
                wan.admin.to_string(),
                age(wan.since, now),
                interface(wan),
                targets(wan),
            ]
        }));
        text += "\n";
        text += &table("", &rows);
    }

    if !status.interfaces.is_empty() {
        let mut rows = vec![header(["INTERFACE", "XDP"])];
        let interfaces = status.interfaces.iter();
        rows.extend(
            interfaces.map(|interface| vec![interface.name.clone(), mode(interface).to_owned()]),
        );
        text += "\n";
        text += &table("", &rows);
    }

    if let Some(line) = port_forward(&status.port_forward) {
        writeln!(text, "\nport forwarding: {line}")?;
    }

    let counters = &status.counters;
    writeln!(
        text,
        "\npackets: {} received, {} answered, {} passed, {} answered by user space",
        counters.rx, counters.answered, counters.passed, counters.slow_path
    )?;
    Ok(text)
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

fn answer(service: &ServiceStatus) -> String {
    if service.answer.is_empty() {
        return match service.rcode.as_str() {
            "NOERROR" => "no address".to_owned(),
            rcode => rcode.to_owned(),
        };
    }
    let addresses: Vec<String> = service.answer.iter().map(ToString::to_string).collect();
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
}
